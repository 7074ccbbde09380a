"""What a tenant's policy makes of a request, and what it refuses."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.admission.facts import AdmissionFacts
from tether.admission.gates import first_refusal
from tether.admission.policy_terms import request_meant, version_meant
from tether.errors import PolicyRefused, PolicyUnreadable, UnknownModel
from tether.jobs import JobRequest, Priority
from tether.models.registry import ModelVersion, Registry
from tether.policies.document import NO_POLICY, Policy
from tether.policies.kept import UnreadablePolicy, kept_policy

VERSIONS = ("demo", "1", ""), ("demo", "2", ""), ("big", "1", ""), ("there", "1", "us")
REGISTRY = Registry(
    [
        ModelVersion(name=name, version=version, digest=f"{index}" * 64, context=4096, region=region)
        for index, (name, version, region) in enumerate(VERSIONS)
    ]
)
DAMAGED = UnreadablePolicy(3, "it is no text")


def facts(policy=NO_POLICY):
    return AdmissionFacts(registry=REGISTRY, tenant_id="acme", tenant_weight=1.0, now_ms=100, policy=policy)


def asked(**changes):
    return JobRequest(**{"model": "demo", "prompt": "p", **changes})


def refusal(request, policy):
    return first_refusal(request_meant(request, policy, 100), facts(policy))


@pytest.mark.parametrize(
    ("policy", "changes", "param"),
    [
        ({"models": ("big",)}, {}, "model"),
        ({"models": ("demo@2",)}, {}, "model"),
        ({"models": ()}, {}, "model"),
        ({"regions": ("eu",)}, {"region": "us"}, "region"),
        ({"regions": ("eu",)}, {"model": "there"}, "region"),
        ({"gpu_classes": ("h100",)}, {"gpu_class": "cpu"}, "gpu_class"),
        ({"priority_ceiling": "standard"}, {"priority": Priority.INTERACTIVE}, "priority"),
        ({"priority_ceiling": "batch"}, {"named": frozenset({"priority"})}, "priority"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_with_the_field_and_what_to_do(policy, changes, param):
    error = refusal(asked(**changes), Policy(**policy))
    assert isinstance(error, PolicyRefused)
    assert error.param == param
    assert "the policy of tenant 'acme' does not allow this" in str(error)
    assert "tether policies set" in str(error)
    assert refusal(asked(**changes), NO_POLICY) is None


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        ({"models": ("de*",)}, {}),
        ({"models": ("demo@2",)}, {"model": "demo@2"}),
        ({"regions": ("eu",)}, {"region": "us", "prefer": ("region",)}),
        ({"regions": ("eu",)}, {"region": "eu"}),
        ({"regions": ("eu",)}, {}),
        ({"priority_ceiling": "batch"}, {"priority": Priority.BATCH}),
        ({"models": ("big",), "aliases": {"demo": "big"}}, {}),
    ],
)
def test_what_the_policy_allows_passes(policy, changes):
    assert refusal(asked(**changes), Policy(**policy)) is None


@pytest.mark.parametrize(
    ("document", "usual", "priority"),
    [
        ({}, "standard", "standard"),
        ({}, "interactive", "interactive"),
        ({"defaults": {"priority": "interactive"}}, "standard", "interactive"),
        ({"defaults": {"priority": "batch"}}, "interactive", "batch"),
        ({"priority_ceiling": "standard"}, "interactive", "standard"),
        ({"priority_ceiling": "batch"}, "standard", "batch"),
        ({"priority_ceiling": "interactive"}, "standard", "standard"),
    ],
)
def test_a_job_that_names_no_priority_has_the_default_and_never_one_above_the_ceiling(
    document, usual, priority
):
    policy = Policy(**document)
    unnamed = asked(priority=Priority(usual), named=frozenset({"model", "prompt"}))
    assert request_meant(unnamed, policy, 100).priority == priority
    assert refusal(unnamed, policy) is None
    named = asked(priority=Priority(usual), named=frozenset({"priority"}))
    assert request_meant(named, policy, 100).priority == usual


def test_an_unknown_model_is_unknown_whatever_the_policy_allows():
    assert isinstance(refusal(asked(model="nope"), Policy(models=("big",))), UnknownModel)


def test_nothing_passes_where_the_policy_cannot_be_read():
    for model in ("demo", "nope"):
        error = refusal(asked(model=model), DAMAGED)
        assert isinstance(error, PolicyUnreadable)
        assert "version 3 cannot be read: it is no text" in str(error)
    assert error.http_status == 503


def test_an_alias_is_the_model_that_it_stands_for():
    policy = Policy(aliases={"fast": "demo@2"})
    meant = request_meant(asked(model="fast"), policy, 100)
    assert meant == asked(model="demo@2")
    assert version_meant(REGISTRY, "acme", policy, "fast").version == "2"
    with pytest.raises(UnknownModel):
        version_meant(REGISTRY, "acme", NO_POLICY, "fast")
    with pytest.raises(PolicyUnreadable):
        version_meant(REGISTRY, "acme", DAMAGED, "fast")
    assert version_meant(REGISTRY, "acme", DAMAGED, "demo").version == "1"


@pytest.mark.parametrize(
    ("changes", "deadline"),
    [({}, 150), ({"not_before": 200}, 250), ({"deadline": 120}, 120), ({"deadline": 999}, 999)],
)
def test_a_default_time_limit_counts_from_when_the_job_may_start(changes, deadline):
    policy = Policy(defaults={"time_limit_ms": 50})
    assert request_meant(asked(**changes), policy, 100).deadline == deadline


PLACES = st.sampled_from(["", "eu", "us"])


@given(
    st.builds(
        Policy,
        models=st.none() | st.lists(st.sampled_from(["demo", "de*", "demo@2", "big@*"])).map(tuple),
        regions=st.none() | st.just(("eu",)),
        gpu_classes=st.none() | st.just(("us", "x")),
        priority_ceiling=st.sampled_from([None, *Priority]),
        aliases=st.just({}) | st.just({"big": "demo@1"}),
    ),
    st.builds(
        asked,
        model=st.sampled_from(["demo", "demo@2", "big", "there"]),
        region=PLACES,
        gpu_class=PLACES,
        priority=st.sampled_from(Priority),
        any_version=st.booleans(),
    ),
)
def test_nothing_passes_that_the_document_forbids(policy, request):
    meant = request_meant(request, policy, 100)
    if refusal(request, policy) is not None:
        return
    model = REGISTRY.find(meant.model)
    allowed = {"demo": {"1", "2"}, "de*": {"1", "2"}, "demo@2": {"2"}}
    if policy.models is not None:
        if model.name == "demo":
            assert any(model.version in allowed.get(pattern, ()) for pattern in policy.models)
        else:
            assert model.name == "big"
            assert "big@*" in policy.models
    assert policy.regions is None or request.region in ("", "eu")
    assert policy.gpu_classes is None or request.gpu_class in ("", "us")
    if policy.priority_ceiling is not None:
        assert list(Priority).index(meant.priority) >= list(Priority).index(policy.priority_ceiling)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "it is no text"),
        ("{", "not JSON"),
        ('{"sealed": true}', "sealed: unknown field"),
        ('{"regions": []}', "regions"),
    ],
)
def test_a_kept_document_that_cannot_be_read_allows_nothing(text, reason):
    found = kept_policy(2, text)
    assert isinstance(found, UnreadablePolicy)
    assert found.version == 2
    assert reason in found.reason


def test_a_policy_does_not_change_what_makes_two_requests_the_same():
    request = asked(model="fast", retry_token="r")
    meant = request_meant(request, Policy(aliases={"fast": "demo"}, defaults={"time_limit_ms": 5}), 100)
    assert meant.digest() != request.digest()
    assert replace(meant, model="fast", deadline=0) == request
