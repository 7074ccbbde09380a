"""What an attempt ends with, of what its stages came to and what it was told."""

import itertools

import pytest

from tether.errors import EngineFailed, InvalidRequest, UnknownModel
from tether.jobs import JobError
from tether_workers.attempts.attempt import AttemptEnding
from tether_workers.base import ResultKind
from tether_workers.stages.outcome import AttemptOutcome, job_error_of, outcome_of

ERROR = JobError("engine_failed", "it broke", retryable=True)
WISHES = (None, AttemptEnding.RELEASE, AttemptEnding.CANCELLED, AttemptEnding.EXPIRED)


@pytest.mark.parametrize(("ending", "error"), list(itertools.product(WISHES, (None, ERROR))))
def test_an_attempt_whose_tokens_are_all_made_succeeds_whatever_it_was_told(ending, error):
    outcome = outcome_of("stop", error, ending=ending, lost_tokens=False)
    assert outcome == AttemptOutcome(ResultKind.SUCCEEDED, finish_reason="stop")


@pytest.mark.parametrize(("reason", "error"), list(itertools.product((None, "length"), (None, ERROR))))
@pytest.mark.parametrize("ending", [None, AttemptEnding.RELEASE])
def test_an_attempt_that_lost_tokens_is_handed_over(reason, error, ending):
    outcome = outcome_of(reason, error, ending=ending, lost_tokens=True)
    assert outcome == AttemptOutcome(ResultKind.RELEASED)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [(AttemptEnding.CANCELLED, ResultKind.CANCELLED), (AttemptEnding.EXPIRED, ResultKind.EXPIRED)],
)
@pytest.mark.parametrize(("error", "lost_tokens"), list(itertools.product((None, ERROR), (False, True))))
def test_a_job_that_nobody_wants_ends_for_that_reason_not_for_a_failure(ending, kind, error, lost_tokens):
    outcome = outcome_of(None, error, ending=ending, lost_tokens=lost_tokens)
    assert (outcome.kind, outcome.finish_reason, outcome.error.code) == (kind, None, f"job_{kind.value}")


@pytest.mark.parametrize("ending", [None, AttemptEnding.RELEASE])
def test_a_failure_fails_the_attempt_and_without_one_it_is_handed_over(ending):
    failed = outcome_of(None, ERROR, ending=ending, lost_tokens=False)
    assert failed == AttemptOutcome(ResultKind.FAILED, error=ERROR)
    assert outcome_of(None, None, ending=ending, lost_tokens=False) == AttemptOutcome(ResultKind.RELEASED)


def test_only_our_own_errors_speak_to_clients():
    assert job_error_of(InvalidRequest("too long")) == JobError("request_invalid", "too long", False)
    assert job_error_of(UnknownModel("no such model")).code == UnknownModel.code
    error = job_error_of(RuntimeError("password=hunter2"))
    assert (error.code, error.retryable) == ("engine_failed", True)
    assert "hunter2" not in error.message
    assert "RuntimeError" in error.message


def test_how_long_to_wait_goes_on_with_the_error():
    failure = EngineFailed("busy")
    failure.retry_after = 2.5
    assert job_error_of(failure).retry_after_ms == 2_500
    assert job_error_of(EngineFailed("broke")).retry_after_ms == 0
