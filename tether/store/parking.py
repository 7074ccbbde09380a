"""Hand-overs that are owed to a pool which nobody serves any more: their jobs are parked instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection

from tether.ids import JobId, PoolName
from tether.jobs import JobState
from tether.store.bulk import delete_of_jobs, lock_jobs, update_rows
from tether.store.holds import CAPACITY, Moves, free_holds, move_counters
from tether.store.rows import JobRow
from tether.store.schema import dispatches, jobs


class OwedParking(NamedTuple):
    """A job to park, if this hand-over of it to this pool is owed still. ``now_ms`` is in milliseconds since
    the epoch."""

    job_id: JobId
    dispatch: int
    pool: PoolName
    now_ms: int


class ParkOwed:
    """The operation that parks. Make one and keep it: what goes through it shares transactions.

    Args:
      pause_ms: For how long a job is parked at least that was handed over in vain so often, this time
        included.
    """

    def __init__(self, pause_ms: Callable[[int], int]) -> None:
        self._pause_ms = pause_ms

    def __call__(self, connection: Connection, parkings: list[OwedParking]) -> list[bool]:
        """Park them. They hold no pool's capacity then.

        Returns:
          For each whether it was owed still, and nobody asked for its end.
        """
        rows = lock_jobs(connection, [item.job_id for item in parkings])
        parked = {item.job_id: item for item in parkings if _is_owed(rows.get(item.job_id), item)}
        if parked:
            changes = [
                {
                    "job_id": job_id,
                    "state": JobState.PARKED.value,
                    "due_at": self._due_at(rows[job_id], parked[job_id].now_ms),
                    "updated_at": parked[job_id].now_ms,
                }
                for job_id in sorted(parked)
            ]
            update_rows(connection, jobs, "job_id", changes)
            # Who read its row before may place it yet: the next hand-over has a higher number than that one.
            delete_of_jobs(connection, dispatches, list(parked))
            moves: Moves = Counter()
            free_holds(connection, list(parked), (CAPACITY,), moves)
            move_counters(connection, moves)
        return [item.job_id in parked for item in parkings]

    def _due_at(self, row: JobRow, now_ms: int) -> int:
        return max(row.not_before, now_ms + self._pause_ms(row.dispatch - row.attempts))


def _is_owed(row: JobRow | None, item: OwedParking) -> bool:
    return (
        row is not None
        and row.state is JobState.ACCEPTED
        and row.dispatch == item.dispatch
        and row.pool == item.pool
        and row.requested is None
    )
