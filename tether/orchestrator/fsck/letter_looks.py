"""Dead letters, the jobs that their tokens made, and their copies, each looked at from its own side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis
from sqlalchemy import ColumnElement, Connection, Select, select

from tether.broker.keys import Keys
from tether.broker.letter_copies import LetterCopies
from tether.broker.redis.connections import is_wrong_type
from tether.dead_letters import OPEN_LETTERS, LetterState
from tether.ids import NO_JOB, JobId, job_id_in
from tether.orchestrator.fsck.invariants import Discrepancy, Invariant
from tether.orchestrator.letter_copying import MAX_COPIES, MAX_PRESENT
from tether.store.bulk import is_among, is_postgres
from tether.store.dead_letters import scan_letters
from tether.store.rows import AnyRow
from tether.store.schema import dead_letters, jobs
from tether.store.store import Store

BATCH = 250

COPYING_MS = 60_000
"""After so long the orchestrator has made or removed a copy, however busy it is."""

_retry = jobs.alias("retry")


class LetterLook:
    """Dead letters by their jobs' ids, and jobs that retry dead ones by their own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pages(self) -> Iterator[list[str]]:
        """Ids of the dead jobs that have letters, then of the jobs that retry one."""
        for column, wanted in ((dead_letters.c.job_id, None), (jobs.c.job_id, jobs.c.retry_of.is_not(None))):
            after = NO_JOB
            while page := self._store.read(_ids_after, column, wanted, after):
                after = page[-1]
                yield list(page)

    def look(self, subjects: Sequence[str]) -> list[Discrepancy]:
        """What is wrong with these."""
        found, errors = self._store.read_each(_letters_and_retries, [JobId(subject) for subject in subjects])
        return [
            *(Discrepancy(check, job_id, detail, detail) for check, job_id, detail in found),
            *(
                Discrepancy(Invariant.ROW_UNREADABLE, job_id, type(error).__name__)
                for job_id, error in errors.items()
            ),
        ]


class CopyLook:
    """Copies of dead letters, by the ids of their jobs."""

    def __init__(self, store: Store, client: redis.Redis, keys: Keys) -> None:
        self._store = store
        self._client: Any = client
        self._copies = LetterCopies(client, keys)

    def pages(self) -> Iterator[list[str]]:
        """The newest open letters, and all that has a copy."""
        copied = {job_id for name in self._present() if (job_id := job_id_in(name)) is not None}
        names: list[str] = sorted(copied.union(place.job_id for place in self._wanted()))
        for start in range(0, len(names), BATCH):
            yield names[start : start + BATCH]

    def look(self, subjects: Sequence[str]) -> list[Discrepancy]:
        """Which of these have a copy that must not be there, or none."""
        seconds, _ = self._client.time()
        before_ms = seconds * 1000 - COPYING_MS
        halves = dict(zip(subjects, self._copies.halves_of(subjects), strict=True))
        missing = {
            place.job_id
            for place in self._wanted()
            if place.created_at < before_ms and halves.get(place.job_id, 2) < 2
        }
        copied = [JobId(name) for name, count in halves.items() if count]
        may_have = self._store.read(_open_after, copied, before_ms)
        return [
            *(Discrepancy(Invariant.COPY_MISSING, job_id, "it is open") for job_id in sorted(missing)),
            *(
                Discrepancy(Invariant.COPY_EXTRA, job_id, "its letter is closed or gone")
                for job_id in copied
                if job_id not in may_have
            ),
        ]

    def _present(self) -> set[bytes]:
        try:
            whole, halves = self._copies.present(MAX_PRESENT)
        except redis.ResponseError as error:
            # A key of another type than Dramatiq's: the copies are missing.
            if not is_wrong_type(error):
                raise
            return set()
        return whole | halves

    def _wanted(self) -> list[Any]:
        return list(self._store.read(scan_letters, OPEN_LETTERS, None, MAX_COPIES).places)


def _ids_after(
    connection: Connection, column: ColumnElement[str], wanted: ColumnElement[bool] | None, after: JobId
) -> list[JobId]:
    query: Select[Any] = select(column).where(column > after)
    if wanted is not None:
        query = query.where(wanted)
    return list(connection.execute(query.order_by(column).limit(BATCH)).scalars())


def _open_after(connection: Connection, job_ids: list[JobId], before_ms: int) -> set[JobId]:
    """Those whose letters are open, or were until lately."""
    query = select(dead_letters.c.job_id).where(is_among(is_postgres(connection), dead_letters.c.job_id))
    query = query.where(dead_letters.c.closed_at.is_(None) | (dead_letters.c.closed_at >= before_ms))
    return set(connection.execute(query, {"ids": job_ids}).scalars())


def _letters_and_retries(connection: Connection, job_ids: list[JobId]) -> list[tuple[Invariant, JobId, str]]:
    postgres, given = is_postgres(connection), {"ids": job_ids}
    letter = dead_letters.c
    of_letters = (
        select(
            *(letter.job_id, letter.tenant_id, letter.closed, letter.closed_at, letter.retried_as),
            jobs.c.tenant_id.label("tenant_of_job"),
            _retry.c.job_id.is_(None).label("is_retry_gone"),
            (_retry.c.retry_of == letter.job_id).label("is_of_it"),
            (_retry.c.retry_token == letter.retry_token).label("has_token"),
        )
        .outerjoin_from(dead_letters, jobs, jobs.c.job_id == letter.job_id)
        .outerjoin(_retry, _retry.c.job_id == letter.retried_as)
        .where(is_among(postgres, letter.job_id))
    )
    told = [
        (check, JobId(row.job_id), detail)
        for row in connection.execute(of_letters, given)
        for check, detail in _of_letter(row)
    ]
    of_retries = (
        select(jobs.c.job_id, jobs.c.retry_of, letter.retried_as)
        .join_from(jobs, dead_letters, letter.job_id == jobs.c.retry_of)
        .where(is_among(postgres, jobs.c.job_id))
    )
    for row in connection.execute(of_retries, given):
        if row.retried_as != row.job_id:
            detail = f"it retries job {row.retry_of}, whose letter says {row.retried_as or 'nothing'}"
            told.append((Invariant.RETRY_UNLINKED, JobId(row.job_id), detail))
    return told


def _of_letter(row: AnyRow) -> Iterator[tuple[Invariant, str]]:
    if row.tenant_of_job is None:
        yield Invariant.LETTER_EXTRA, "its job is gone"
    elif row.tenant_of_job != row.tenant_id:
        yield Invariant.LETTER_WRONG, f"it is of tenant {row.tenant_id}, its job of {row.tenant_of_job}"
    is_retried = row.closed == LetterState.RETRIED
    if (row.closed is None) != (row.closed_at is None) or is_retried != (row.retried_as is not None):
        detail = f"closed as {row.closed}, at {row.closed_at}, retried as {row.retried_as}"
        yield Invariant.LETTER_WRONG, detail
    # The job that it made may have been deleted since.
    if not row.is_retry_gone and not (row.is_of_it and row.has_token):
        yield Invariant.RETRY_UNLINKED, f"job {row.retried_as} is no retry by its token"
