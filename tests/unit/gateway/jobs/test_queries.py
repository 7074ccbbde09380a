"""Queries of addresses: what they ask for, or what is wrong with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import InvalidRequest
from tether.gateway.jobs.queries import JOBS_PER_PAGE, ListQuery, read_list_query
from tether.job_filters import JobFilter
from tether.jobs import JobState, first_id_at, new_job_id
from tether.streams.events import event_id, position_of

JOB = new_job_id(5, bytes(10))


def test_nothing_asked_for_is_the_first_page_of_all():
    assert read_list_query([]) == ListQuery(JobFilter(), None, JOBS_PER_PAGE)


def test_everything_can_be_asked_for():
    items = [("state", "running"), ("state", "dead"), ("model", "m"), ("label", "a=b=c"), ("label", "d=")]
    items += [("created_after", "5"), ("created_before", "9"), ("limit", "7"), ("cursor", JOB)]
    assert read_list_query(items) == ListQuery(
        JobFilter(
            states=(JobState.RUNNING, JobState.DEAD),
            model="m",
            labels={"a": "b=c", "d": ""},
            created_after=5,
            created_before=9,
        ),
        JOB,
        7,
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stat", "running", "did you mean state"),
        ("x", "", "available: state, label"),
        ("state", "runing", "state='runing' is not one of accepted"),
        ("label", "team", "write it as key=value"),
        ("limit", "0", "from 1 to 200"),
        ("limit", "201", "from 1 to 200"),
        ("limit", "-1", "not an integer"),
        ("limit", "\u0661", "not an integer"),
        ("created_after", "yesterday", "not an integer"),
        ("created_before", "9" * 15, "not a time"),
        ("cursor", "next", "use next_cursor"),
        ("model", "\ud800", "surrogate"),
    ],
)
def test_what_is_not_possible_is_refused(name, value, words):
    with pytest.raises(InvalidRequest, match=words):
        read_list_query([(name, value)])


def test_what_may_stand_once_stands_once():
    with pytest.raises(InvalidRequest, match="duplicate parameter model"):
        read_list_query([("model", "a"), ("model", "b")])
    with pytest.raises(InvalidRequest, match="two different values"):
        read_list_query([("label", "a=b"), ("label", "a=c")])


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=4))
def test_no_query_makes_the_reader_fail(items):
    try:
        read_list_query(items)
    except InvalidRequest:
        return


@given(st.integers(0, 2**31), st.integers(0, 2**32))
def test_an_event_s_id_tells_its_place(run, offset):
    assert position_of(event_id(run, offset)) == (run, offset)


@pytest.mark.parametrize("text", ["", ".", "1.", ".1", "-1", "a", "1.2.3", "1 ", "\u0661", "1e3"])
def test_what_is_no_id_of_an_event_is_told(text):
    with pytest.raises(ValueError, match="not an event id"):
        position_of(text)


@given(st.integers(1, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_the_first_id_of_a_time_divides_the_jobs_before_from_those_since(now, randomness):
    assert first_id_at(now) <= new_job_id(now, randomness)
    assert new_job_id(now - 1, randomness) < first_id_at(now)
