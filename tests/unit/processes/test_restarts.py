import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import ConfigError
from tether.processes.restarts import RestartPolicy


def test_each_failure_in_a_row_doubles_the_wait_up_to_the_longest():
    policy = RestartPolicy(first_delay=1, max_delay=5)
    assert [policy.delay(failures) for failures in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


def test_a_child_that_lived_long_enough_starts_from_the_first_delay():
    policy = RestartPolicy(steady_after=30)
    assert policy.failures_in_a_row(7, lived=30) == 1
    assert policy.failures_in_a_row(7, lived=29.9) == 8


def test_a_child_that_served_for_some_seconds_starts_from_the_first_delay():
    policy = RestartPolicy(steady_after=30, served_after=2)
    assert policy.failures_in_a_row(7, lived=4, served=2) == 1
    assert policy.failures_in_a_row(7, lived=4, served=1.9) == 8
    assert policy.failures_in_a_row(7, lived=4) == 8


@given(st.integers(1, 10**9), st.floats(0.01, 10), st.floats(10, 1000))
def test_no_wait_is_shorter_than_the_first_or_longer_than_the_longest(failures, first, longest):
    policy = RestartPolicy(first_delay=first, max_delay=longest)
    assert first <= policy.delay(failures) <= longest


@pytest.mark.parametrize(
    "wrong",
    [{"first_delay": 0}, {"first_delay": 31}, {"boot_limit": 0}, {"steady_after": -1}, {"served_after": -1}],
)
def test_a_policy_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(ConfigError, match="restart policy"):
        RestartPolicy(**wrong)
