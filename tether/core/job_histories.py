"""The history of a job: what the database has of its attempts, and what Redis knows beyond that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tether.attempts import AttemptEnd
from tether.broker.pools.live_attempts import LiveAttempts
from tether.histories import RUNNING, AttemptRecord, JobHistory
from tether.ids import DrawId, PoolName
from tether.jobs import JobState
from tether.outcomes import Fence
from tether.statuses import JobStatus
from tether.store.attempt_records import record_of_row
from tether.store.rows import JobRow

_IN_REDIS = (JobState.PLACED, JobState.RUNNING)


def history_of(
    row: JobRow, status: JobStatus, known: Sequence[Mapping[str, Any]], live: LiveAttempts | None
) -> JobHistory:
    """Put a history together.

    Args:
      row: The job as the database has it.
      status: The job as its clients see it.
      known: Its rows of the table ``attempts``.
      live: What Redis knows; None where that is nothing.
    """
    records: dict[Fence, AttemptRecord] = {}
    dropped = 0
    for each in known:
        # A dispatch that was never drawn has an outcome, and no attempt.
        if each["attempt"] > 0:
            fence = Fence(each["dispatch"], each["attempt"], DrawId(each["draw_id"]))
            records[fence] = record_of_row(each)
        dropped += each["dropped"]
    if live is not None:
        for end in live.log.ends:
            fence = Fence(end.dispatch, end.attempt, end.draw_id)
            former = records.get(fence)
            if former is None:
                records[fence] = _of_end(end)
            elif former.cause is None:
                records[fence] = replace(_of_end(end), outcome=former.outcome, error=former.error)
        dropped = max(dropped, live.log.dropped)
        if live.state == RUNNING and live.fence.attempt > 0 and live.fence not in records:
            records[live.fence] = _of_running(live)
    since = row.finished_at if row.finished_at is not None else row.updated_at
    if live is not None and live.fence.dispatch == row.dispatch and status.state in _IN_REDIS:
        since = _since(status.state, live) or since
    return JobHistory(
        job_id=row.job_id,
        state=status.state,
        priority=status.priority,
        dispatch=row.dispatch,
        pool=row.pool,
        since=since,
        due_at=row.due_at if status.state is JobState.WAITING_RETRY else None,
        attempts=tuple(records[fence] for fence in sorted(records)),
        dropped=dropped,
    )


def _since(state: JobState, live: LiveAttempts) -> int:
    if state is JobState.RUNNING:
        return live.started_at
    # It waits again since its last attempt ended, or since it was placed.
    return max([live.placed_at, *(end.ended_at for end in live.log.ends)])


def _of_end(end: AttemptEnd) -> AttemptRecord:
    return AttemptRecord(
        dispatch=end.dispatch,
        attempt=end.attempt,
        worker=end.worker,
        pool=end.pool,
        started_at=end.started_at or None,
        start_offset=end.start_offset if end.started_at else None,
        ended_at=end.ended_at,
        offset=end.offset,
        cause=end.cause,
        went=end.went,
        evidence=end.evidence,
    )


def _of_running(live: LiveAttempts) -> AttemptRecord:
    return AttemptRecord(
        dispatch=live.fence.dispatch,
        attempt=live.fence.attempt,
        worker=live.worker,
        pool=PoolName(live.pool),
        started_at=live.started_at or None,
        start_offset=live.start_offset if live.started_at else None,
        offset=live.offset,
        cause=RUNNING,
    )
