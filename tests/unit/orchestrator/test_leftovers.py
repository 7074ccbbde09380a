"""What becomes of a job's keys in Redis: every case of what both sides can hold."""

import itertools

import pytest

from tether.jobs import FINAL_STATES, JobState
from tether.orchestrator.leftovers import NO_KEY, NO_LIFE, HeldJob, Remedy, remedy

LIVES = (NO_KEY, NO_LIFE, 0, 60_000)
CASES = [
    HeldJob(job_life_ms=job, stream_life_ms=stream, is_noted=noted)
    for job, stream, noted in itertools.product(LIVES, LIVES, (False, True))
]


def is_kept(held):
    return NO_LIFE in (held.job_life_ms, held.stream_life_ms)


@pytest.mark.parametrize("state", [None, *JobState])
def test_what_has_an_end_is_left_alone(state):
    for held in CASES:
        if not is_kept(held):
            assert remedy(held, state) in (Remedy.NONE, Remedy.ACKNOWLEDGE)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_whatever_is_left_of_an_ended_job_gets_an_end(state):
    for held in filter(is_kept, CASES):
        expected = Remedy.EXPIRE_STREAM if held.job_life_ms == NO_KEY else Remedy.SEAL
        assert remedy(held, state) is expected


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL_STATES))
def test_an_open_job_keeps_what_it_has(state):
    for held in CASES:
        assert remedy(held, state) is (Remedy.ACKNOWLEDGE if held.is_noted else Remedy.NONE)


def test_a_job_that_the_database_does_not_know_is_disowned():
    assert all(remedy(held, None) is Remedy.DISOWN for held in filter(is_kept, CASES))
