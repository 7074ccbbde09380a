"""One job, as both stores have it, and what does not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tether.ids import JobId, PoolName
from tether.jobs import FINAL_STATES, JobState
from tether.orchestrator.fsck.invariants import Discrepancy, Invariant

NO_KEY = -2
"""Redis's time to live of a key that is not there."""

NO_END = -1
"""Redis's time to live of a key that has none."""

_IN_REDIS = (JobState.PLACED, JobState.RUNNING)
_WITH_CAPACITY = (JobState.ACCEPTED, JobState.PLACED, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """A job as the database has it.

    Attributes:
      changed_at: When its row was last written.
      has_end_time, has_result, has_error, has_letter: Whether there is one.
      holds_quota: Whether it holds of its tenant's quota.
      capacity: Pool and dispatch of its hold of capacity.
      outbox: Dispatch of its outbox row.
    """

    state: JobState
    dispatch: int
    pool: PoolName | None
    priority: str
    changed_at: int
    has_end_time: bool
    has_result: bool
    has_error: bool
    has_letter: bool
    holds_quota: bool
    capacity: tuple[str, int] | None
    outbox: int | None


@dataclass(frozen=True, kw_only=True)
class RedisFacts:
    """A job as Redis has it.

    Attributes:
      life_ms, stream_life_ms: What is left of the lives of its hash and its stream; see :data:`NO_END`.
      unreadable: What is wrong with its hash; empty where nothing is.
      stands_in_lane: Whether a lane has its entry; only looked at where it waits.
      is_among_suspects: Whether the suspects of its group have it; only where it is under suspicion.
      has_lease, is_drawn: Whether it has a lease, and its worker's list names it; only where it runs.
      asked: See :func:`~tether.broker.pools.lane_moves.last_told`.
    """

    state: str
    dispatch: int
    ticket: str
    life_ms: int
    stream_life_ms: int
    unreadable: str = ""
    stands_in_lane: bool = True
    is_among_suspects: bool = True
    has_lease: bool = True
    is_drawn: bool = True
    asked: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is a hash that says something."""
        return self.life_ms != NO_KEY


def discrepancies_of(job_id: JobId, row: RowFacts | None, found: RedisFacts) -> list[Discrepancy]:
    """What does not fit together of one job."""
    told = [*_of_row(row)] if row is not None else []
    told += _of_both(row, found)
    if not found.unreadable:
        told += _of_redis(found)
    in_database = "" if row is None else f"{row.state.value} {row.dispatch} {row.changed_at}"
    mark = f"{in_database}; {found.state} {found.dispatch} {found.ticket}"
    return [Discrepancy(check, job_id, detail, mark) for check, detail in told]


def _of_row(row: RowFacts) -> Iterator[tuple[Invariant, str]]:
    is_final = row.state in FINAL_STATES
    if row.state is JobState.ACCEPTED and row.outbox != row.dispatch:
        yield Invariant.OUTBOX_MISSING, f"dispatch {row.dispatch} is owed, and the outbox has {row.outbox}"
    if not is_final and not row.holds_quota:
        yield Invariant.HOLD_MISSING, f"it is {row.state}, and holds no quota"
    if row.state in _WITH_CAPACITY and row.capacity != (row.pool, row.dispatch):
        held = "none" if row.capacity is None else f"{row.capacity[0]}, dispatch {row.capacity[1]}"
        yield (
            Invariant.HOLD_MISSING,
            f"capacity of {row.pool}, dispatch {row.dispatch}, is needed; it has {held}",
        )
    if row.state is JobState.SUCCEEDED and not row.has_result and not row.has_error:
        yield Invariant.RESULT_MISSING, "it succeeded"
    if is_final != row.has_end_time:
        yield Invariant.END_TIME_WRONG, f"it is {row.state}"
    if row.state is JobState.DEAD and not row.has_letter:
        yield Invariant.LETTER_MISSING, "it is dead"
    if row.state is not JobState.DEAD and row.has_letter:
        yield Invariant.LETTER_EXTRA, f"it is {row.state}"


def _of_both(row: RowFacts | None, found: RedisFacts) -> Iterator[tuple[Invariant, str]]:
    if found.unreadable:
        yield Invariant.JOB_UNREADABLE, found.unreadable
        return
    if row is None:
        if found.is_known and found.life_ms == NO_END:
            yield Invariant.JOB_UNKNOWN, f"Redis has it as {found.state}"
        return
    goes_on = found.state in _IN_REDIS
    if row.state in _IN_REDIS:
        if not found.is_known or found.dispatch < row.dispatch:
            has = f"dispatch {found.dispatch}" if found.is_known else "nothing"
            yield Invariant.JOB_LOST, f"the database placed dispatch {row.dispatch}, and Redis has {has}"
        elif found.dispatch == row.dispatch and not goes_on:
            yield Invariant.OUTCOME_LOST, f"dispatch {row.dispatch} ended as {found.state}"
        elif found.dispatch == row.dispatch and found.asked not in ("", row.priority):
            yield Invariant.PRIORITY_DIFFERS, f"the database has {row.priority}, Redis {found.asked}"
    elif goes_on and (row.state in FINAL_STATES or row.state in (JobState.PARKED, JobState.WAITING_RETRY)):
        yield Invariant.JOB_STALE, f"it is {row.state}, and {found.state} in Redis"
    elif goes_on and found.dispatch < row.dispatch:
        yield (
            Invariant.JOB_STALE,
            f"dispatch {row.dispatch} is owed, and {found.dispatch} {found.state} in Redis",
        )
    if found.is_known and found.dispatch > row.dispatch:
        yield Invariant.JOB_AHEAD, f"the database has dispatch {row.dispatch}, Redis {found.dispatch}"
    if row.state in FINAL_STATES and not goes_on and NO_END in (found.life_ms, found.stream_life_ms):
        yield Invariant.LIFE_MISSING, f"it is {row.state}"


def _of_redis(found: RedisFacts) -> Iterator[tuple[Invariant, str]]:
    if not found.is_known and found.stream_life_ms == NO_END:
        yield Invariant.STREAM_ALONE, "its hash is gone"
    if found.state == JobState.PLACED and not found.stands_in_lane:
        yield Invariant.LANE_MISSING, f"dispatch {found.dispatch} waits"
    if not found.is_among_suspects:
        yield Invariant.SUSPECT_MISSING, f"dispatch {found.dispatch} is {found.state}"
    if found.state == JobState.RUNNING and not found.has_lease:
        yield Invariant.LEASE_MISSING, f"dispatch {found.dispatch} runs"
    if found.state == JobState.RUNNING and not found.is_drawn:
        yield Invariant.DRAWN_MISSING, f"dispatch {found.dispatch} runs"
