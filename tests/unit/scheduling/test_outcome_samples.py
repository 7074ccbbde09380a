"""What outcomes say of the models that their attempts ran."""

import pytest

from tether.attempts import AttemptEnd
from tether.deaths import Death
from tether.jobs import JobError
from tether.outcomes import Fence, Outcome, OutcomeKind
from tether.scheduling.breaker_codec import sample_to_bytes, samples_from_bytes
from tether.scheduling.outcome_samples import samples_of

NOW = 1_800_000_000_000
BROKE = JobError("engine_failed", "x", retryable=True)


def end(cause, attempt=1, *, tokens=0, start=0, ms=1_000, drawn=True):
    return AttemptEnd(
        dispatch=1,
        attempt=attempt,
        draw_id=f"w.{attempt}:1",
        pool="gpu.cpu.local.m-00000000",
        run=0,
        offset=start + tokens,
        started_at=NOW if drawn else 0,
        start_offset=start,
        ended_at=NOW + ms,
        cause=cause,
        went="end",
    )


def outcome(*ends, kind=OutcomeKind.FAILED, **more):
    last = ends[-1]
    fence = Fence(last.dispatch, last.attempt, last.draw_id)
    return Outcome(job_id="job", kind=kind, fence=fence, ends=ends, **more)


def blames(*ends, **more):
    return [sample.blame for _, sample in samples_of(outcome(*ends, **more), "red")]


def ms_per_token(tokens, ms, **more):
    ended = outcome(end("succeeded", tokens=tokens, ms=ms), kind=OutcomeKind.SUCCEEDED, **more)
    return samples_of(ended, "red")[0][1].ms_per_token


@pytest.mark.parametrize(
    "cause",
    [
        "cancelled",
        "expired",
        "lease_lost",
        "released",
        "revoked",
        "gone",
        "withdrawn",
        "superseded",
        "sealed",
    ],
)
def test_ends_that_nobody_blames_the_model_for_say_nothing(cause):
    assert blames(end(cause), error=BROKE) == [None]


def test_a_failure_counts_unless_the_request_was_to_blame_or_the_worker_is_held():
    assert blames(end("failed"), error=BROKE) == [1.0]
    assert blames(end("failed"), error=JobError("request_invalid", "x")) == [None]
    assert blames(end("failed"), error=JobError("job_refused", "x")) == [None]
    assert blames(end("failed"), error=BROKE, was_probe=True) == [None]


def test_each_attempt_of_a_job_counts_by_its_own_end():
    ends = (end("released"), end("failed", 2), end("failed", 3))
    assert blames(*ends, error=BROKE) == [None, None, 1.0]


@pytest.mark.parametrize(
    ("how", "beside", "blame"),
    [
        ("signal 11", 0, 1.0),
        ("signal 11", 3, 0.25),
        ("oom", 1, 0.5),
        ("signal 9", 0, None),
        ("unknown", 0, None),
        ("ended", 0, None),
        ("host", 0, None),
    ],
)
def test_a_death_is_divided_by_all_that_ran_in_the_process(how, beside, blame):
    evidence = (Death(boot="w.1", how=how, beside=beside), Death(boot="other.1", how="oom"))
    assert blames(end("died"), end("cancelled", 2), evidence=evidence)[0] == blame


def test_a_job_that_is_proven_to_end_processes_is_no_fault_of_the_model():
    evidence = (Death(boot="w.1", how="signal 11"),)
    assert blames(end("died"), kind=OutcomeKind.POISONED, evidence=evidence) == [None]


def test_the_speed_is_that_of_a_token_whatever_was_asked_for():
    assert ms_per_token(100, 1_000) == 10.0
    assert ms_per_token(10, 100) == 10.0
    assert ms_per_token(100, 2_000, input_tokens=10_000) == 10.0
    assert ms_per_token(7, 1_000) == 0.0
    assert ms_per_token(100, 0) == 0.0


def test_what_was_made_before_an_attempt_is_not_its_own():
    ended = outcome(end("succeeded", tokens=50, start=50, ms=505), kind=OutcomeKind.SUCCEEDED)
    assert samples_of(ended, "red")[0][1].ms_per_token == 10.0


def test_a_dispatch_that_was_never_drawn_has_none():
    assert blames(end("withdrawn", drawn=False)) == []


def test_samples_are_read_as_they_were_written_and_others_are_left_out():
    samples = [sample for _, sample in samples_of(outcome(end("failed"), end("released", 2)), "red")]
    odd = [b"", b"x", b"[]", b"null", b'{"v":1}', b'{"v":2}', b"[" * 10_000]
    assert samples_from_bytes([*map(sample_to_bytes, samples), *odd]) == samples
