import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.deaths import Death, deaths_of_evidence
from tether.jobs import FINAL_STATES, NEXT, JobError, JobState
from tether.outcomes import FREE_PROBES, Fence, Outcome, OutcomeKind
from tether.scheduling.retry_policy import (
    ATTEMPTS_EXHAUSTED,
    NOT_RETRYABLE,
    POISON,
    POLICY_GATES,
    RETRY_EXCLUDED,
    PlannedRetry,
    RetryPolicy,
    decide,
    last_to_open,
)

NOW = 1_800_000_000_000
POLICY = RetryPolicy(max_attempts=4, base_ms=500, cap_ms=60_000)


def verdict(kind, *, error=None, failed_before=0, requested=None, policy=POLICY, chance=0.5):
    outcome = Outcome(job_id="job", kind=kind, fence=Fence(1, 1, "w:1"), error=error)
    return decide(
        outcome,
        failed_before=failed_before,
        requested=requested,
        policy=policy,
        chance=chance,
        now_ms=NOW,
        retry_token="fresh",
    )


BROKE = JobError("engine_failed", "it broke", retryable=True)


@pytest.mark.parametrize(("failed", "longest"), [(1, 500), (2, 1_000), (3, 2_000), (7, 32_000), (8, 60_000)])
def test_the_longest_wait_doubles_up_to_the_cap(failed, longest):
    assert POLICY.wait_ms(failed, 0.0) == 0
    assert POLICY.wait_ms(failed, 0.5) == longest // 2
    assert longest - 1 <= POLICY.wait_ms(failed, 0.999999) <= longest


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_beyond_the_cap(failed, chance):
    assert 0 <= POLICY.wait_ms(failed, chance) <= POLICY.cap_ms


def test_the_default_schedule_outlives_the_reset_of_a_driver():
    policy, chances = RetryPolicy(), random.Random(1)
    lasted = sorted(
        sum(policy.wait_ms(failed, chances.random()) for failed in range(1, policy.max_attempts))
        for _ in range(1_000)
    )
    assert lasted[10] > 15_000
    assert lasted[500] > 50_000


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_waits_do_not_get_shorter_with_failures(failed, chance):
    assert POLICY.wait_ms(failed, chance) <= POLICY.wait_ms(failed + 1, chance)


def test_a_failed_attempt_waits_for_the_next_one():
    found = verdict(OutcomeKind.FAILED, error=BROKE, failed_before=1)
    assert (found.state, found.due_at, found.letter) == (JobState.WAITING_RETRY, NOW + 500, None)


def test_a_failure_says_how_long_to_wait_at_least():
    error = JobError("engine_failed", "", retryable=True, retry_after_ms=9_000)
    assert verdict(OutcomeKind.FAILED, error=error).due_at == NOW + 9_000


@pytest.mark.parametrize(("failed_before", "state"), [(2, JobState.WAITING_RETRY), (3, JobState.DEAD)])
def test_the_last_attempt_that_fails_makes_it_dead(failed_before, state):
    found = verdict(OutcomeKind.FAILED, error=BROKE, failed_before=failed_before)
    assert found.state is state
    if state is JobState.DEAD:
        letter = (found.letter.reason, found.letter.retryable, found.letter.retry_token)
        assert letter == (ATTEMPTS_EXHAUSTED, True, "fresh")


def test_an_error_that_cannot_be_mended_makes_it_dead_at_once():
    found = verdict(OutcomeKind.FAILED, error=JobError("request_invalid", "no", retryable=False))
    assert (found.state, found.letter.reason, found.letter.retryable) == (JobState.DEAD, NOT_RETRYABLE, False)


DAMAGED = JobError("model_damaged", "", retryable=True)
UNAVAILABLE = JobError("store_unavailable", "", retryable=True)


@pytest.mark.parametrize("error", [DAMAGED, UNAVAILABLE])
def test_errors_that_the_settings_name_are_never_tried_again_nor_those_of_their_subclasses(error):
    policy = RetryPolicy(never=frozenset({"model_damaged", "store_failed"}))
    found = verdict(OutcomeKind.FAILED, error=error, policy=policy)
    assert (found.state, found.letter.reason, found.letter.retryable) == (JobState.DEAD, RETRY_EXCLUDED, True)
    assert verdict(OutcomeKind.FAILED, error=BROKE, policy=policy).state is JobState.WAITING_RETRY


def test_a_job_names_the_errors_after_which_alone_it_is_tried_again():
    policy = POLICY.for_job(max_attempts=0, base_ms=0, retry_on="engine_failed store_failed")
    states = [verdict(OutcomeKind.FAILED, error=each, policy=policy).state for each in (BROKE, UNAVAILABLE)]
    assert states == [JobState.WAITING_RETRY] * 2
    assert verdict(OutcomeKind.FAILED, error=DAMAGED, policy=policy).letter.reason == RETRY_EXCLUDED
    assert verdict(OutcomeKind.FAILED, policy=policy).letter.reason == RETRY_EXCLUDED


def test_what_the_settings_exclude_no_job_can_ask_for():
    policy = RetryPolicy(never=frozenset({"engine_failed"}))
    policy = policy.for_job(max_attempts=100, base_ms=1, retry_on="engine_failed")
    assert verdict(OutcomeKind.FAILED, error=BROKE, policy=policy).letter.reason == RETRY_EXCLUDED


def test_a_job_s_own_numbers_replace_those_of_the_settings():
    policy = POLICY.for_job(max_attempts=7, base_ms=90_000, retry_on="")
    assert (policy.max_attempts, policy.base_ms, policy.cap_ms) == (7, 90_000, 90_000)
    assert POLICY.for_job(max_attempts=0, base_ms=0, retry_on="") is POLICY


class Closed:
    name = "closed"

    def __init__(self, opens_at):
        self._opens_at = opens_at

    def opens_at(self, retry):
        return self._opens_at


@given(st.lists(st.integers(NOW, NOW + 10**7), max_size=4), st.floats(0, 1, exclude_max=True))
def test_a_retry_waits_for_every_gate_and_names_the_last(times, chance):
    gates = (*POLICY_GATES, *map(Closed, times))
    retry = PlannedRetry(
        job_id="job",
        fence=Fence(1, 1, "w:1"),
        pool=None,
        policy=POLICY,
        failed=1,
        error=BROKE,
        chance=chance,
        now_ms=NOW,
    )
    at, name = last_to_open(retry, gates)
    backoff = NOW + POLICY.wait_ms(1, chance)
    assert at == max([backoff, *times])
    assert name == ("backoff" if at == backoff else "closed")


def test_a_failure_without_a_reason_is_tried_again():
    assert verdict(OutcomeKind.FAILED).state is JobState.WAITING_RETRY


def test_a_poisoned_job_is_dead_however_few_attempts_failed():
    found = verdict(OutcomeKind.POISONED)
    assert (found.state, found.letter.reason, found.letter.retryable) == (JobState.DEAD, POISON, True)


def test_a_letter_has_the_evidence_that_its_outcome_brought():
    death = Death(boot="w.1", how="signal 9", at=5, ran=400, beside=7)
    outcome = Outcome(
        job_id="job", kind=OutcomeKind.POISONED, fence=Fence(1, 1, "w:1"), deaths=3, evidence=(death,)
    )
    found = decide(
        outcome, failed_before=0, requested=None, policy=POLICY, chance=0.5, now_ms=NOW, retry_token="fresh"
    )
    assert found.letter.evidence["count"] == 3
    assert deaths_of_evidence(found.letter.evidence) == (death,)
    assert verdict(OutcomeKind.POISONED).letter.evidence == {}


def test_a_withdrawn_job_is_parked_and_due_at_once():
    found = verdict(OutcomeKind.WITHDRAWN, failed_before=100)
    assert (found.state, found.due_at) == (JobState.PARKED, NOW)


@pytest.mark.parametrize("kind", [OutcomeKind.FAILED, OutcomeKind.POISONED, OutcomeKind.WITHDRAWN])
@pytest.mark.parametrize("end", [JobState.CANCELLED, JobState.EXPIRED])
def test_an_end_that_was_asked_for_comes_before_another_attempt(kind, end):
    found = verdict(kind, error=BROKE, requested=end)
    assert (found.state, found.letter) == (end, None)


@pytest.mark.parametrize("end", [None, JobState.CANCELLED, JobState.EXPIRED])
def test_a_job_that_succeeded_has_succeeded_whatever_was_asked_for(end):
    assert verdict(OutcomeKind.SUCCEEDED, requested=end).state is JobState.SUCCEEDED


@pytest.mark.parametrize("kind", [OutcomeKind.CANCELLED, OutcomeKind.EXPIRED])
def test_how_redis_ended_it_stands(kind):
    assert verdict(kind, requested=JobState.EXPIRED).state == kind


@given(
    st.sampled_from(OutcomeKind),
    st.none() | st.builds(JobError, st.just("code"), st.just(""), st.booleans(), st.integers(0, 10**6)),
    st.integers(0, 20),
    st.sampled_from([None, JobState.CANCELLED, JobState.EXPIRED]),
    st.floats(0, 1, exclude_max=True),
)
def test_every_verdict_can_follow_and_the_dead_alone_have_a_letter(kind, error, failed, requested, chance):
    found = verdict(kind, error=error, failed_before=failed, requested=requested, chance=chance)
    before = JobState.PLACED if kind is OutcomeKind.WITHDRAWN else JobState.RUNNING
    # A withdrawn job becomes accepted and then parked, in one step of the database.
    assert found.state in NEXT[before] | ({JobState.PARKED} if kind is OutcomeKind.WITHDRAWN else set())
    assert (found.letter is not None) == (found.state is JobState.DEAD)
    assert (found.due_at >= NOW) == (found.state not in FINAL_STATES)


def probed(dispatch, failed_before):
    outcome = Outcome(
        job_id="job", kind=OutcomeKind.FAILED, fence=Fence(dispatch, 1, "w:1"), error=BROKE, was_probe=True
    )
    return decide(
        outcome,
        failed_before=failed_before,
        requested=None,
        policy=POLICY,
        chance=0.5,
        now_ms=NOW,
        retry_token="fresh",
    )


def test_the_probe_of_a_held_worker_costs_no_attempt_until_the_job_may_be_its_cause():
    assert verdict(OutcomeKind.FAILED, error=BROKE, failed_before=3).state is JobState.DEAD
    last = FREE_PROBES + 3
    assert {probed(dispatch, 3).state for dispatch in range(4, last + 1)} == {JobState.WAITING_RETRY}
    assert probed(last + 1, 3).letter.reason == ATTEMPTS_EXHAUSTED
    assert probed(1, 0).due_at == NOW + POLICY.base_ms // 2
