"""Rows that belong to jobs, looked at from their own side: holds, counters, the outbox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, func, select, tuple_

from tether.ids import NO_JOB, JobId
from tether.jobs import JobState
from tether.orchestrator.fsck.invariants import Discrepancy, Invariant
from tether.store.bulk import is_among, is_postgres
from tether.store.holds import CAPACITY, counted_holds
from tether.store.schema import IS_FINAL, counters, dispatches, holds, jobs
from tether.store.store import Store

BATCH = 500


class HoldLook:
    """Holds without an open job, and outbox rows without an accepted one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pages(self) -> Iterator[list[str]]:
        """Ids of the jobs that have any."""
        for table in (holds, dispatches):
            after = NO_JOB
            while page := self._store.read(_owners, table.name, after, BATCH):
                after = page[-1]
                yield list(page)

    def look(self, subjects: Sequence[str]) -> list[Discrepancy]:
        """What these jobs have without a reason."""
        return self._store.read(_without_reason, [JobId(subject) for subject in subjects])


class CounterLook:
    """Counters beside the sums of their holds."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pages(self) -> Iterator[list[str]]:
        """All counters, as ``<kind> <name>``: there is one for each tenant and each pool."""
        names = self._store.read(_counters)
        for start in range(0, len(names), BATCH):
            yield names[start : start + BATCH]

    def look(self, subjects: Sequence[str]) -> list[Discrepancy]:
        """Those that are wrong: both are read in one statement, which sees one state."""
        return self._store.read(_wrong_counters, list(subjects))


def _owners(connection: Connection, table_name: str, after: JobId, limit: int) -> list[JobId]:
    table = {holds.name: holds, dispatches.name: dispatches}[table_name]
    query = select(table.c.job_id).where(table.c.job_id > after).distinct()
    return list(connection.execute(query.order_by(table.c.job_id).limit(limit)).scalars())


def _without_reason(connection: Connection, job_ids: list[JobId]) -> list[Discrepancy]:
    postgres, given = is_postgres(connection), {"ids": job_ids}
    told = []
    held = (
        select(holds.c.job_id, holds.c.kind, holds.c.dispatch, jobs.c.state)
        .outerjoin_from(holds, jobs, holds.c.job_id == jobs.c.job_id)
        .where(is_among(postgres, holds.c.job_id))
        .where(
            jobs.c.job_id.is_(None)
            | IS_FINAL
            | ((jobs.c.state == JobState.PARKED.value) & (holds.c.kind == CAPACITY))
        )
    )
    for row in connection.execute(held, given):
        detail = f"a hold of {row.kind}; the job is {row.state or 'gone'}"
        told.append(Discrepancy(Invariant.HOLD_LEAKED, row.job_id, detail, f"{row.dispatch}"))
    owed = (
        select(dispatches.c.job_id, dispatches.c.dispatch, jobs.c.state, jobs.c.dispatch.label("newest"))
        .outerjoin_from(dispatches, jobs, dispatches.c.job_id == jobs.c.job_id)
        .where(is_among(postgres, dispatches.c.job_id))
    )
    for row in connection.execute(owed, given):
        if row.state != JobState.ACCEPTED.value or row.dispatch != row.newest:
            state = "gone" if row.state is None else f"{row.state}, at dispatch {row.newest}"
            detail = f"dispatch {row.dispatch} is owed; the job is {state}"
            told.append(Discrepancy(Invariant.OUTBOX_EXTRA, row.job_id, detail, f"{row.dispatch}"))
    return told


def _counters(connection: Connection) -> list[str]:
    named = {(row.kind, row.name) for row in connection.execute(select(counters.c.kind, counters.c.name))}
    counted = counted_holds()
    named |= {tuple(row) for row in connection.execute(select(counted.c.kind, counted.c.name).distinct())}
    return [f"{kind} {name}" for kind, name in sorted(named)]


def _wrong_counters(connection: Connection, subjects: list[str]) -> list[Discrepancy]:
    wanted = [tuple(subject.split(" ", 1)) for subject in subjects]
    counted = counted_holds()
    held = (
        select(func.coalesce(func.sum(counted.c.amount), 0))
        .where(counted.c.kind == counters.c.kind, counted.c.name == counters.c.name)
        .scalar_subquery()
    )
    query = select(counters.c.kind, counters.c.name, counters.c.held, held.label("sum"))
    known, told = set(), []
    for row in connection.execute(query.where(tuple_(counters.c.kind, counters.c.name).in_(wanted))):
        known.add((row.kind, row.name))
        if row.held != row.sum:
            detail = f"it is {row.held}, and its holds are {row.sum}"
            told.append(Discrepancy(Invariant.COUNTER_WRONG, f"{row.kind} {row.name}", detail, detail))
    for kind, name in wanted:
        if (kind, name) not in known:
            detail = "there are holds, and no counter"
            told.append(Discrepancy(Invariant.COUNTER_WRONG, f"{kind} {name}", detail))
    return told
