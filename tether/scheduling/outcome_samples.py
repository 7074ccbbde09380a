"""What an outcome says of the models that its attempts ran, for their breakers: pure.

* A success is one, and measures the speed: the time for a token of output, where a token that was read counts
  as a hundredth: what clients ask for, a long prompt or a long answer, changes it little.
* A failure counts where its error is one that another attempt might not have (``retryable``); otherwise the
  request was to blame. That of a worker which is held since it fails what others do, and was only trying,
  says nothing new.
* The death of a process that its supervisor saw is one failure, divided by the jobs that ran in it: any of
  them may be the cause. SIGKILL without want of memory, and what nobody saw, are the deeds of whoever runs
  the machine.
* All else says nothing: a cancellation, a deadline, a drain, a hand-over, a lease that was lost with its
  host, a revoked key, a loss in Redis, a job that was proven to end processes.
"""

from __future__ import annotations

from tether.attempts import AttemptEnd
from tether.deaths import is_blamed, tells_little
from tether.ids import TenantId, worker_of
from tether.jobs import JobError
from tether.outcomes import Outcome, OutcomeKind
from tether.scheduling.attempt_samples import AttemptSample

MIN_MEASURED_TOKENS = 8
"""With fewer tokens of output, what an attempt costs beside them would count for more than they do."""

TOKENS_READ_PER_TOKEN = 100
"""Tokens that are read in the time in which one is made, as :class:`~tether.scheduling.affinity.Assumptions`
has it."""


def samples_of(outcome: Outcome, tenant: TenantId) -> list[tuple[AttemptEnd, AttemptSample]]:
    """Return what each attempt that ended says, with its end."""
    return [(end, _sample(outcome, end, tenant)) for end in outcome.ends if end.started_at]


def _sample(outcome: Outcome, end: AttemptEnd, tenant: TenantId) -> AttemptSample:
    return AttemptSample(
        at=end.ended_at,
        began_at=end.started_at,
        job_id=outcome.job_id,
        tenant=tenant,
        worker=worker_of(end.worker),
        blame=_blame(outcome, end),
        ms_per_token=_ms_per_token(outcome, end) if end.cause == "succeeded" else 0.0,
    )


def _blame(outcome: Outcome, end: AttemptEnd) -> float | None:
    match end.cause:
        case "succeeded":
            return 0.0
        case "failed" if _is_own_end(outcome, end):
            return 1.0 if _may_be_models(outcome.error) and not outcome.was_probe else None
        case "died" if outcome.kind is not OutcomeKind.POISONED:
            return _blame_of_death(outcome, end)
        case _:
            return None


def _is_own_end(outcome: Outcome, end: AttemptEnd) -> bool:
    fence = outcome.fence
    return (end.dispatch, end.attempt, end.draw_id) == (fence.dispatch, fence.attempt, fence.draw_id)


def _may_be_models(error: JobError | None) -> bool:
    return error is None or error.retryable


def _blame_of_death(outcome: Outcome, end: AttemptEnd) -> float | None:
    death = next((each for each in outcome.evidence if each.boot == end.worker), None)
    if death is None or not is_blamed(death.how) or tells_little(death.how):
        return None
    return 1 / (1 + max(0, death.beside))


def _ms_per_token(outcome: Outcome, end: AttemptEnd) -> float:
    made = end.offset - end.start_offset
    if made < MIN_MEASURED_TOKENS or end.ended_at <= end.started_at:
        return 0.0
    read = (outcome.input_tokens + end.start_offset) / TOKENS_READ_PER_TOKEN
    return (end.ended_at - end.started_at) / (made + read)
