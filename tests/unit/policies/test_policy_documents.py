"""Documents of policies: read and written the same, and all that is wrong with one is said at once."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import InvalidPolicy
from tether.policies.document import MAX_POLICY_BYTES, NO_POLICY, DegradeRule, Policy, PolicyDefaults
from tether.policies.reading import policy_document, policy_from_text, policy_text, read_policy

MODELS = st.from_regex(r"[a-z][a-z0-9./:-]{0,20}(@[a-z0-9.]{1,8})?", fullmatch=True)
PLACES = st.lists(st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True), min_size=1, max_size=5).map(tuple)
DEFAULTS = st.builds(
    PolicyDefaults,
    priority=st.sampled_from([None, "batch"]),
    time_limit_ms=st.none() | st.integers(1, 10**9),
)
POLICIES = st.builds(
    Policy,
    models=st.none() | st.lists(MODELS | MODELS.map(lambda name: f"{name[:3]}*"), max_size=5).map(tuple),
    regions=st.none() | PLACES,
    gpu_classes=st.none() | PLACES,
    priority_ceiling=st.sampled_from([None, "interactive", "standard", "batch"]),
    defaults=DEFAULTS,
)
RULES = st.lists(
    st.builds(DegradeRule, model=MODELS, to=st.just("lesser"), max_tokens=st.none() | st.integers(1, 99)),
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FIELDS = st.sampled_from([*Policy.model_fields, "aliaes", "x"])


@given(POLICIES, RULES)
def test_a_policy_is_read_as_it_was_written(policy, rules):
    if policy.models is None:
        rules = tuple(rule for rule in rules if rule.model != rule.to)
        policy = policy.model_copy(update={"degrade": rules})
    assert policy_from_text(policy_text(policy)) == policy
    assert read_policy(policy_document(policy)) == policy


def test_aliases_are_read_as_they_were_written():
    policy = Policy(models=("demo*",), aliases={"fast": "demo@1", "good": "demo-2"})
    assert policy_from_text(policy_text(policy)) == policy


def test_an_empty_document_allows_everything():
    assert read_policy({}) == NO_POLICY
    assert policy_text(NO_POLICY) == "{}"


@given(JSON | st.dictionaries(FIELDS, JSON))
def test_whatever_is_given_is_a_policy_or_refused(document):
    with contextlib.suppress(InvalidPolicy):
        assert isinstance(read_policy(document), Policy)


def problems_of(document):
    with pytest.raises(InvalidPolicy) as caught:
        read_policy(document)
    return caught.value


def test_all_problems_are_told_at_once_with_their_paths():
    error = problems_of(
        {
            "model": ["demo"],
            "regions": ["eu", "Not one"],
            "aliases": {"a b": "demo", "fast": 7},
            "priority_ceiling": "urgent",
            "defaults": {"time_limit_ms": 0, "retention": 1},
        }
    )
    lines = str(error).splitlines()
    assert lines[0] == "the policy has 7 problems:"
    assert lines[1] == "  model: unknown field; did you mean models?"
    assert lines[2].startswith("  regions[1]: 'Not one' is not valid: it must be a list of 1 to 256 names")
    assert sorted(line.split(":")[0] for line in lines[3:]) == [
        "  aliases.'a b'",
        "  aliases.fast",
        "  defaults.retention",
        "  defaults.time_limit_ms",
        "  priority_ceiling",
    ]
    assert error.param == "model"
    assert error.code == "policy_invalid"


def test_what_contradicts_itself_is_told_beside_what_is_not_valid():
    error = problems_of(
        {
            "regions": ["eu", "Not one"],
            "priority_ceiling": "batch",
            "defaults": {"priority": "interactive"},
            "aliases": {"a": "b", "b": "m"},
            "degrade": [{"model": "m", "to": "m"}, {"model": "big", "to": "x*"}],
        }
    )
    assert [line.split(":")[0].strip() for line in str(error).splitlines()[1:]] == [
        "regions[1]",
        "defaults.priority",
        "aliases.a",
        "degrade[0].to",
        "degrade[1].to",
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "must be a JSON object"),
        ({"defaults": []}, "defaults: must be a JSON object"),
        ({"regions": []}, "regions: an array is not valid"),
        ({"regions": None}, None),
        ({"models": "demo"}, "models: 'demo' is not valid: it must be a list"),
        ({"models": ["de mo"]}, r"models[0]: 'de mo' is not valid"),
        ({"defaults": {"time_limit_ms": 1.5}}, "defaults.time_limit_ms: 1.5"),
        ({"defaults": {"time_limit_ms": True}}, "defaults.time_limit_ms: True"),
        (
            {"defaults": {"priority": "interactive"}, "priority_ceiling": "batch"},
            "defaults.priority: priority interactive is above its ceiling: use batch",
        ),
        ({"aliases": {"fast": "fast"}}, "aliases.fast: it stands for itself"),
        ({"aliases": {"a": "b", "b": "demo"}}, "aliases.a: 'b' is an alias itself"),
        ({"aliases": {"a": "demo*"}}, "aliases.a: an alias has no *"),
        ({"aliases": {"a": "demo"}, "models": ["other"]}, "which models does not allow"),
        ({"aliases": {"a": "demo@2"}, "models": ["demo@1"]}, "which models does not allow"),
        ({"aliases": {"a": "demo"}, "models": ["demo@1"]}, None),
        ({"degrade": [{"model": "big*", "to": "small"}, {"model": "*", "to": "m@2", "max_tokens": 9}]}, None),
        ({"degrade": {"model": "big", "to": "small"}}, "degrade: "),
        ({"degrade": [{"model": "big", "to": "small"}, "small"]}, "degrade[1]: must be a JSON object"),
        ({"degrade": [{"modle": "big", "to": "small"}]}, "degrade[0].modle: unknown field; did you mean"),
        ({"degrade": [{"to": "small"}]}, "degrade[0].model: it is missing"),
        ({"degrade": [{"model": "big"}]}, "degrade[0].to: it is missing"),
        ({"degrade": [{"model": "big", "to": "s*"}]}, "degrade[0].to: it has a *"),
        ({"degrade": [{"model": "big", "to": "big"}]}, "it is the model that was asked for"),
        ({"degrade": [{"model": "big", "to": "a"}], "aliases": {"a": "m"}}, "'a' is an alias"),
        ({"degrade": [{"model": "big", "to": "m"}], "models": ["big"]}, "which models does not allow"),
        (
            {"degrade": [{"model": "big", "to": "m", "max_tokens": 0}]},
            "degrade[0].max_tokens: 0 is not valid",
        ),
        ({"degrade": [{"model": "big", "to": "small"}] * 17}, "a list of at most 16 objects"),
        ({"models": ["m" * 256] * 257}, "models: an array is not valid"),
        ({"models": ["m" * 250 + str(n) for n in range(256)], "aliases": {"a": "b"}}, "does not allow"),
    ],
)
def test_what_is_wrong_is_said(document, words):
    if words is None:
        read_policy(document)
    else:
        assert words in str(problems_of(document))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON (line 1, column 1"),
        ('{"models": [}', "not JSON (line 1, column 13"),
        ('{"models": [], "models": ["a"]}', "models: is given twice"),
        ('{"defaults": {"time_limit_ms": NaN}}', "NaN is no JSON"),
        (b"\xff", "not JSON in UTF-8"),
        ("[" * 100_000, f"more than {MAX_POLICY_BYTES} bytes"),
        ("[" * 60_000, "not JSON"),
    ],
)
def test_a_text_that_is_no_json_is_refused(text, words):
    with pytest.raises(InvalidPolicy) as caught:
        policy_from_text(text)
    assert words in str(caught.value)


def test_a_document_that_is_too_large_is_refused():
    names = [f"{'m' * 240}{number}" for number in range(256)]
    aliases = {f"{'a' * 240}{number}": "m" for number in range(200)}
    assert "more than 65536 bytes" in str(problems_of({"models": [*names[:255], "m"], "aliases": aliases}))
