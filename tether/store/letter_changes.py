"""What becomes of dead letters: each is closed once, by its retry, a purge or its age."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Update, bindparam, select, update

from tether.dead_letters import LetterPlace, LetterState
from tether.ids import JobId
from tether.store.bulk import is_among, is_postgres
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


def close_as_retried(connection: Connection, job_id: JobId, retried_as: JobId, now_ms: int) -> None:
    """Note which job retries a dead one. Its letter is locked; nothing happens if it is closed."""
    closed = update(dead_letters).where(dead_letters.c.job_id == job_id, IS_OPEN_LETTER)
    values = {"retried_as": retried_as, "closed": LetterState.RETRIED.value, "closed_at": now_ms}
    connection.execute(closed.values(values))


def close_letters(connection: Connection, closings: list[LetterClosing]) -> list[bool]:
    """Close letters whose attempts nobody needs any more. Their tokens stay known: whoever uses one is told.

    Returns:
      For each whether it was open.
    """
    postgres = is_postgres(connection)
    # Locked in the order of their ids, as everywhere: two transactions wait for each other one way only.
    ids = sorted({each.job_id for each in closings})
    left = set(connection.execute(_open_and_locked(postgres), {"ids": ids}).scalars())
    alike: dict[tuple[LetterState, int], list[JobId]] = {}
    closed: list[bool] = []
    for each in closings:
        closed.append(each.job_id in left)
        if each.job_id in left:
            left.remove(each.job_id)
            alike.setdefault((each.state, each.now_ms), []).append(each.job_id)
    for (state, now_ms), these in alike.items():
        connection.execute(_close(postgres), {"ids": these, "state": state.value, "now_ms": now_ms})
    return closed


def old_letters(connection: Connection, older_than_ms: int, limit: int, offset: int = 0) -> list[LetterPlace]:
    """The oldest open letters of jobs that died before ``older_than_ms`` (milliseconds since the epoch), but
    the first ``offset`` of them."""
    place = (dead_letters.c.created_at, dead_letters.c.job_id)
    query = select(*place).where(IS_OPEN_LETTER, dead_letters.c.created_at < older_than_ms)
    rows = connection.execute(query.order_by(*place).limit(limit).offset(offset))
    return [LetterPlace(row.created_at, JobId(row.job_id)) for row in rows]


@cache
def _open_and_locked(postgres: bool) -> Select[Any]:
    query = select(dead_letters.c.job_id).where(is_among(postgres, dead_letters.c.job_id), IS_OPEN_LETTER)
    return query.order_by(dead_letters.c.job_id).with_for_update()


@cache
def _close(postgres: bool) -> Update:
    change = update(dead_letters).where(is_among(postgres, dead_letters.c.job_id))
    return change.values(
        closed=bindparam("state"), closed_at=bindparam("now_ms"), history="[]", evidence="{}"
    )
