"""Rows of a database that was set back to a backup, of jobs that have ended since: Redis still remembers.

Redis refuses to run them again. An end that was committed once stands: what Redis remembers of it is settled
anew. Where it remembers that a job ended, and not its tokens, the job waits until Redis has forgotten that
too, and runs again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from tether.broker.pools.ended_jobs import EndedJob, ended_jobs
from tether.broker.pools.pools import Pools
from tether.deaths import evidence_of_deaths
from tether.ids import JobId
from tether.jobs import JobError, JobState
from tether.outcomes import Letter, Outcome, OutcomeKind, Verdict
from tether.scheduling.cancellation import Cancellation
from tether.scheduling.retry_policy import POISON, RESTORED
from tether.store.end_requests import Request
from tether.store.rows import JobRow
from tether.store.settlements import Settle, Settled, SettledKind, Settlement
from tether.store.store import Store

_WITHOUT_WORKER = (JobState.CANCELLED, JobState.EXPIRED)


def resolution(dispatch: int, ended: EndedJob) -> Outcome | JobState | None:
    """What becomes of a row that is open though its job has ended in Redis.

    Args:
      dispatch: The hand-over that is looked for: the row's newest, or Redis's.

    Returns:
      The outcome to settle; the state that it is to end in, where no outcome of its hand-over is known; None
      where its outcome is to be waited for, or Redis does not remember enough.
    """
    state, fence = ended.state, ended.fence
    if not ended.is_sealed and fence.dispatch <= dispatch:
        return None
    if fence.dispatch < dispatch:
        return JobState(state) if state in _WITHOUT_WORKER else None
    if state == JobState.SUCCEEDED and len(ended.pieces) != ended.offset:
        return None
    error = None
    if state == JobState.DEAD:
        message = ended.error_message or "it had died before the database was restored from a backup"
        error = JobError(ended.error_code or state, message)
    return Outcome(
        job_id=ended.job_id,
        kind=OutcomeKind.FAILED if state == JobState.DEAD else OutcomeKind(state),
        fence=fence,
        worker=ended.worker,
        run=ended.run,
        offset=ended.offset,
        error=error,
        input_tokens=ended.input_tokens,
        finish_reason=ended.finish_reason,
        deaths=ended.deaths,
        pieces=ended.pieces,
        ends=ended.log.ends,
        dropped_ends=ended.log.dropped,
    )


def verdict(outcome: Outcome, row: JobRow) -> Verdict:
    """What becomes of a row by such an outcome: an error is told where the job was dead already."""
    if outcome.kind in (OutcomeKind.SUCCEEDED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED):
        return Verdict(JobState(outcome.kind))
    if outcome.error is not None or outcome.kind is OutcomeKind.POISONED:
        reason = POISON if outcome.error is None else RESTORED
        return Verdict(
            JobState.DEAD,
            letter=Letter(
                reason, True, secrets.token_urlsafe(16), evidence_of_deaths(outcome.evidence, outcome.deaths)
            ),
        )
    if row.requested is not None:
        return Verdict(row.requested)
    return Verdict(JobState.PARKED if outcome.kind is OutcomeKind.WITHDRAWN else JobState.WAITING_RETRY)


class RestoredRows:
    """Settles rows whose jobs have ended in Redis, which the database does not know."""

    def __init__(self, store: Store, pools: Pools, ending: Cancellation, *, has_hook: bool = False) -> None:
        """
        Args:
          has_hook: Whether there is a hook that is to hear of dead letters.
        """
        self._store = store
        self._pools = pools
        self._ending = ending
        # Made once: the store brings together what has the same operation.
        self._settle = Settle(verdict, has_hook=has_hook)

    def settle(self, rows: Sequence[tuple[JobId, int]], now_ms: int) -> list[bool | Exception]:
        """Settle the rows of which Redis remembers enough.

        Args:
          rows: Job id and hand-over of each, see :func:`resolution`.
          now_ms: Milliseconds since the epoch.

        Returns:
          For each whether it is settled now; an error where it alone has failed.

        Raises:
          StoreUnavailable, OUTAGE_ERRORS: Some may have been settled.
        """
        if not rows:
            return []
        done: dict[JobId, bool | Exception] = {}
        settlements: list[Settlement] = []
        requests: list[Request] = []
        found = ended_jobs(self._pools.client, self._pools.keys, [job_id for job_id, _ in rows])
        for (job_id, dispatch), ended in zip(rows, found, strict=True):
            if ended is None or isinstance(ended, Exception):
                done[job_id] = ended or False
                continue
            try:
                answer = resolution(dispatch, ended)
            except ValueError as error:
                done[job_id] = error
                continue
            if isinstance(answer, Outcome):
                settlements.append(Settlement(answer, now_ms, may_be_ahead=True))
            elif answer is not None:
                requests.append(Request(None, job_id, answer, now_ms))
        settled = self._store.write_each(self._settle, settlements)
        for settlement, written in zip(settlements, settled, strict=True):
            is_done = isinstance(written, Settled) and (
                written.kind is SettledKind.SETTLED or written.state is None or written.state.is_final
            )
            done[settlement.outcome.job_id] = written if isinstance(written, Exception) else is_done
        for request, state in zip(requests, self._ending.end(requests), strict=True):
            is_done = not isinstance(state, JobState) or state.is_final
            done[request.job_id] = state if isinstance(state, Exception) else is_done
        return [done.get(job_id, False) for job_id, _ in rows]
