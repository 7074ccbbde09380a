"""What becomes of dead letters: each is closed once, by its retry, a purge or its age."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from tether.dead_letters import LetterPlace, LetterState
from tether.ids import JobId
from tether.store.schema import IS_OPEN_LETTER, dead_letters


class LetterClosing(NamedTuple):
    """A letter to be closed without a retry.

    Attributes:
      state: ``purged`` or ``expired``.
      now_ms: Milliseconds since the epoch.
    """

    job_id: JobId
    state: LetterState
    now_ms: int


def locked_letters(connection: Connection, job_ids: Collection[JobId]) -> dict[JobId, LetterState]:
    """The states of the letters of these jobs. Until the transaction ends nobody else closes one of them.

    They are locked in the order of their ids, as everywhere.
    """
    query = select(dead_letters.c.job_id, dead_letters.c.closed).where(dead_letters.c.job_id.in_(job_ids))
    rows = connection.execute(query.order_by(dead_letters.c.job_id).with_for_update())
    return {JobId(row.job_id): LetterState(row.closed or LetterState.OPEN) for row in rows}


def close_as_retried(connection: Connection, retries: Mapping[JobId, JobId], now_ms: int) -> None:
    """Note which job retries each of these dead ones. Their letters are locked and open."""
    for job_id in sorted(retries):
        closed = update(dead_letters).where(dead_letters.c.job_id == job_id, IS_OPEN_LETTER)
        connection.execute(
            closed.values(retried_as=retries[job_id], closed=LetterState.RETRIED.value, closed_at=now_ms)
        )


def close_letters(connection: Connection, closings: list[LetterClosing]) -> list[bool]:
    """Close letters whose attempts nobody needs any more. Their tokens stay known: whoever uses one is told.

    Returns:
      For each whether it was open.
    """
    closed: list[bool] = []
    # In the order of their ids: two transactions with the same letters wait for each other one way only.
    for each in sorted(closings):
        change = update(dead_letters).where(dead_letters.c.job_id == each.job_id, IS_OPEN_LETTER)
        values = {"closed": each.state.value, "closed_at": each.now_ms, "history": "[]", "evidence": "{}"}
        closed.append(connection.execute(change.values(values)).rowcount > 0)
    by_id = dict(zip((each.job_id for each in sorted(closings)), closed, strict=True))
    return [by_id[each.job_id] for each in closings]


def old_letters(connection: Connection, older_than_ms: int, limit: int, offset: int = 0) -> list[LetterPlace]:
    """The oldest open letters of jobs that died before ``older_than_ms`` (milliseconds since the epoch), but
    the first ``offset`` of them."""
    place = (dead_letters.c.created_at, dead_letters.c.job_id)
    query = select(*place).where(IS_OPEN_LETTER, dead_letters.c.created_at < older_than_ms)
    rows = connection.execute(query.order_by(*place).limit(limit).offset(offset))
    return [LetterPlace(row.created_at, JobId(row.job_id)) for row in rows]
