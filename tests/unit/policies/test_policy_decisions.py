"""What a policy allows, and never more than that."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.policies.decisions import (
    is_model_allowed,
    may_allow_model,
    model_meant,
    told,
    why_not_gpu_class,
    why_not_model,
    why_not_priority,
    why_not_region,
)
from tether.policies.document import NO_POLICY, Policy
from tether.requests.fields import Priority

NAMES = st.text("ab-", min_size=1, max_size=6)
PATTERNS = st.text("ab-*", min_size=1, max_size=8)


@given(st.lists(PATTERNS, max_size=4), NAMES, NAMES)
def test_a_model_is_allowed_exactly_if_a_pattern_says_so(patterns, name, version):
    def like(pattern, text):
        return re.fullmatch(pattern.replace("*", ".*"), text) is not None

    by_name = Policy(models=tuple(patterns))
    assert is_model_allowed(by_name, name, version) == any(like(pattern, name) for pattern in patterns)
    assert may_allow_model(by_name, name) == is_model_allowed(by_name, name, version)
    with_version = Policy(models=tuple(f"a@{pattern}" for pattern in patterns))
    assert is_model_allowed(with_version, name, version) == (
        name == "a" and any(like(pattern, version) for pattern in patterns)
    )
    assert bool(why_not_model(by_name, name, version)) != is_model_allowed(by_name, name, version)


@given(st.none() | st.lists(NAMES, min_size=1).map(tuple), NAMES)
def test_a_region_and_a_gpu_class_are_allowed_exactly_if_they_are_named(names, asked):
    policy = Policy(regions=names, gpu_classes=names)
    is_allowed = names is None or asked in names
    assert (why_not_region(policy, asked) == "") is is_allowed
    assert (why_not_gpu_class(policy, asked) == "") is is_allowed


@pytest.mark.parametrize(
    ("ceiling", "allowed"),
    [
        (None, ["interactive", "standard", "batch"]),
        ("interactive", ["interactive", "standard", "batch"]),
        ("standard", ["standard", "batch"]),
        ("batch", ["batch"]),
    ],
)
def test_no_priority_is_above_the_ceiling(ceiling, allowed):
    policy = Policy(priority_ceiling=ceiling)
    assert [each for each in Priority if why_not_priority(policy, each) == ""] == allowed


def test_it_is_said_what_is_allowed_instead():
    policy = Policy(
        models=("demo", "big@2"), regions=("eu",), gpu_classes=("h100",), priority_ceiling="standard"
    )
    assert why_not_model(policy, "big", "1") == "model big@1 is not among those that it allows (demo, big@2)"
    assert why_not_region(policy, "us") == "region us is not among those that it allows (eu)"
    assert why_not_gpu_class(policy, "cpu") == "GPU class cpu is not among those that it allows (h100)"
    assert "above its ceiling: use standard or batch" in why_not_priority(policy, Priority.INTERACTIVE)
    assert told(tuple("abcdefg")) == "a, b, c, d, e and 2 more"
    assert told(()) == "none"


def test_an_alias_is_looked_up_once():
    policy = Policy(aliases={"fast": "demo@1"})
    assert [model_meant(policy, name) for name in ("fast", "demo", "other")] == ["demo@1", "demo", "other"]
    assert model_meant(NO_POLICY, "fast") == "fast"


def test_a_pattern_of_many_stars_takes_no_time():
    policy = Policy(models=("*a" * 120 + "*b",))
    assert not is_model_allowed(policy, "a" * 256, "1")
