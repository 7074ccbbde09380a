"""Dead letters of which the operators' hook has not heard: a row each, from the transaction that writes the
letter until the hook has returned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from tether.ids import JobId
from tether.store.bulk import insert_absent_rows
from tether.store.schema import letter_hooks


class OwedHook(NamedTuple):
    """A call of the hook that is owed for a dead letter.

    Attributes:
      failures: How often it failed, one after another.
    """

    job_id: JobId
    failures: int


class HookAnswer(NamedTuple):
    """What came of a call.

    Attributes:
      due_at: When it is made again, in milliseconds since the epoch; None if never.
      failures: How often it failed until now.
    """

    job_id: JobId
    due_at: int | None = None
    failures: int = 0


def owe_hooks(connection: Connection, job_ids: Sequence[JobId], now_ms: int) -> None:
    """Note that the hook is to hear of the dead letters of these jobs."""
    rows = [{"job_id": job_id, "due_at": now_ms, "failures": 0} for job_id in job_ids]
    insert_absent_rows(connection, letter_hooks, rows)


def owed_hooks(
    connection: Connection, now_ms: int, limit: int, but: Collection[JobId] = ()
) -> list[OwedHook]:
    """Calls that are due, those first that have been for longest; none for the jobs in ``but``."""
    columns = letter_hooks.c
    query = select(columns.job_id, columns.failures).where(columns.due_at <= now_ms)
    if but:
        query = query.where(columns.job_id.not_in(but))
    rows = connection.execute(query.order_by(columns.due_at, columns.job_id).limit(limit))
    return [OwedHook(JobId(row.job_id), row.failures) for row in rows]


def next_hook_at(connection: Connection, but: Collection[JobId] = ()) -> int | None:
    """When the next call is due, in milliseconds since the epoch; None if none is owed. Calls for the jobs in
    ``but`` do not count."""
    query = select(letter_hooks.c.due_at)
    if but:
        query = query.where(letter_hooks.c.job_id.not_in(but))
    return connection.execute(query.order_by(letter_hooks.c.due_at).limit(1)).scalar_one_or_none()


class HookBacklog(NamedTuple):
    """Letters of which the hook has not heard, each number counted up to a limit.

    Attributes:
      failing: Those at which the hook has failed more than once, one after another.
      late: The others that are due for longer than they should be.
    """

    failing: int
    late: int


def hook_backlog(connection: Connection, due_before: int, limit: int) -> HookBacklog:
    """What the hook has not heard of.

    Args:
      due_before: What was due then, in milliseconds since the epoch, is late.
    """
    columns = letter_hooks.c
    wanted = columns.failures > 1, (columns.failures <= 1) & (columns.due_at < due_before)
    some = (select(columns.job_id).where(each).limit(limit).subquery() for each in wanted)
    counts = (connection.execute(select(func.count()).select_from(each)).scalar_one() for each in some)
    return HookBacklog(*counts)


def note_hook_answers(connection: Connection, answers: list[HookAnswer]) -> list[None]:
    """Note what came of calls."""
    # In the order of their ids, as everywhere.
    for answer in sorted(answers, key=lambda answer: answer.job_id):
        is_it = letter_hooks.c.job_id == answer.job_id
        if answer.due_at is None:
            connection.execute(delete(letter_hooks).where(is_it))
        else:
            values = {"due_at": answer.due_at, "failures": answer.failures}
            connection.execute(update(letter_hooks).where(is_it).values(values))
    return [None] * len(answers)
