"""A new hand-over of a job: its row, its outbox row and its hold on the pool's capacity change together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Connection

from tether.ids import JobId, PoolName
from tether.jobs import JobState
from tether.store.bulk import delete_of_jobs, insert_rows, update_rows
from tether.store.holds import CAPACITY, Moves, free_holds, move_counters, note_capacity
from tether.store.outbox import places_in_outbox
from tether.store.rows import JobRow
from tether.store.schema import dispatches, holds, jobs


def hand_over(
    connection: Connection, rows: dict[JobId, JobRow], to: Mapping[JobId, tuple[PoolName, int]]
) -> None:
    """Give locked rows their next dispatch, in ``accepted``.

    Args:
      rows: The rows as they are locked.
      to: Of each job its new pool, and the time in milliseconds since the epoch.
    """
    if not to:
        return
    ordered = [(rows[job_id], *to[job_id]) for job_id in sorted(to)]
    changes = [
        {
            "job_id": row.job_id,
            "state": JobState.ACCEPTED.value,
            "dispatch": row.dispatch + 1,
            "pool": pool,
            "updated_at": now_ms,
        }
        for row, pool, now_ms in ordered
    ]
    new_holds = [
        {
            "job_id": row.job_id,
            "kind": CAPACITY,
            "name": pool,
            "dispatch": row.dispatch + 1,
            "amount": 1,
            "created_at": now_ms,
            "tenant_id": row.tenant_id,
        }
        for row, pool, now_ms in ordered
    ]
    update_rows(connection, jobs, "job_id", changes)
    delete_of_jobs(connection, dispatches, to)
    places = places_in_outbox(connection, sorted(to))
    outbox = [
        {
            "job_id": row.job_id,
            "dispatch": row.dispatch + 1,
            "pool": pool,
            "due_at": max(row.not_before, now_ms),
            "created_at": now_ms,
            **places[row.job_id],
        }
        for row, pool, now_ms in ordered
    ]
    insert_rows(connection, dispatches, outbox)
    moves: Moves = Counter()
    free_holds(connection, list(to), (CAPACITY,), moves)
    insert_rows(connection, holds, new_holds)
    for row, pool, _ in ordered:
        note_capacity(moves, pool, row.tenant_id)
    move_counters(connection, {counter: change for counter, change in moves.items() if change})
