"""Calls that change many things at once say which: a variable that is None does not mean everything."""

import pytest

from tether.client.chosen import check_chosen
from tether.client.dead_letters import DeadLetters
from tether.client.many_jobs import ManyJobs
from tether.errors import InvalidRequest


class NoPort:
    """No call reaches it."""


CALLS = {
    "cancel": lambda **which: ManyJobs(NoPort()).cancel(**which),
    "reprioritise": lambda **which: ManyJobs(NoPort()).reprioritise("batch", **which),
    "retry_where": lambda **which: DeadLetters(NoPort()).retry_where(**which),
    "purge": lambda **which: DeadLetters(NoPort()).purge(**which),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("which", [{}, {"model": None}, {"pool": None, "tenant": None}], ids=str)
def test_who_says_nothing_does_not_mean_everything(call, which):
    with pytest.raises(InvalidRequest, match="give one, or all=True"):
        CALLS[call](**which)


@pytest.mark.parametrize("call", CALLS)
def test_everything_stands_alone(call):
    with pytest.raises(InvalidRequest, match="leave it out beside model="):
        CALLS[call](all=True, model="tiny")


@pytest.mark.parametrize("which", [{"state": []}, {"labels": {}}], ids=str)
def test_a_filter_that_is_empty_is_none(which):
    with pytest.raises(InvalidRequest):
        check_chosen(which, False)


@pytest.mark.parametrize(
    "which", [{"state": ["queued"]}, {"labels": {"run": "7"}}, {"model": "tiny"}], ids=str
)
def test_a_filter_says_which(which):
    check_chosen(which, False)


def test_everything_can_be_meant():
    check_chosen({"model": None}, True)
