"""Dead letters as they are read: pages, single ones, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select, tuple_

from tether.dead_letters import (
    DeadLetter,
    LetterFilter,
    LetterPlace,
    LetterState,
    why_dead,
)
from tether.envelopes import options_from_text
from tether.histories import AttemptRecord
from tether.ids import JobId, PoolName, TenantId
from tether.store.attempt_records import record_of_kept
from tether.store.bad_rows import read_each
from tether.store.rows import AnyRow, error_from_text, value_from_text
from tether.store.schema import IS_OPEN_LETTER, dead_letters, jobs
from tether.telemetry.trace_context import TRACEPARENT, read_trace_context

MAX_LETTERS_SCANNED = 2_000
"""Letters that one call looks at, where no index finds those that are asked for."""

_PLACE = (dead_letters.c.created_at, dead_letters.c.job_id)
_NEWEST_FIRST = (dead_letters.c.created_at.desc(), dead_letters.c.job_id.desc())
_FILTERED = ("reason", "model", "pool")
_OF_JOB = (jobs.c.correlation_id, jobs.c.retry_of, jobs.c.error, jobs.c.options)


class LetterPlaces(NamedTuple):
    """Where some letters stand, newest first, and the place behind which they go on; None at the end."""

    places: list[LetterPlace]
    after: LetterPlace | None


def scan_letters(
    connection: Connection, wanted: LetterFilter, after: LetterPlace | None = None, limit: int = 50
) -> LetterPlaces:
    """Find letters, newest first, without a look into them: one that cannot be read is found too.

    Args:
      after: Where the part before ended.
      limit: Maximum number of letters to find.
    """
    scope, others = _scope(wanted)
    if after is not None:
        scope.append(tuple_(*_PLACE) < tuple_(*after))
    in_order = select(*_PLACE).where(*scope).order_by(*_NEWEST_FIRST)
    if not others:
        found = _places(connection, in_order.limit(limit + 1))
        return LetterPlaces(found[:limit], found[limit - 1] if len(found) > limit else None)
    columns = (*_PLACE, *(dead_letters.c[name] for name in _FILTERED), dead_letters.c.closed)
    scanned = select(*columns).where(*scope).order_by(*_NEWEST_FIRST).limit(MAX_LETTERS_SCANNED).subquery()
    conditions = [_is(scanned.c, name, value) for name, value in others.items()]
    matching = select(scanned.c.created_at, scanned.c.job_id).where(*conditions)
    matching = matching.order_by(scanned.c.created_at.desc(), scanned.c.job_id.desc())
    found = _places(connection, matching.limit(limit + 1))
    if len(found) > limit:
        return LetterPlaces(found[:limit], found[limit - 1])
    last = _places(connection, in_order.offset(MAX_LETTERS_SCANNED - 1).limit(1))
    return LetterPlaces(found, last[0] if last else None)


def _scope(wanted: LetterFilter) -> tuple[list[ColumnElement[bool]], dict[str, str]]:
    """What an index answers, and what is looked for among what that finds."""
    columns = dead_letters.c
    scope: list[ColumnElement[bool]] = []
    others = {name: value for name in _FILTERED if (value := getattr(wanted, name)) is not None}
    if wanted.state == LetterState.OPEN:
        scope.append(IS_OPEN_LETTER)
    else:
        others["state"] = wanted.state
    if wanted.tenant_id is not None:
        scope.append(columns.tenant_id == wanted.tenant_id)
        by_index = next(iter(others), None) if wanted.state == LetterState.OPEN else None
        if by_index is not None:
            scope.append(columns[by_index] == others.pop(by_index))
    if wanted.created_after is not None:
        scope.append(columns.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        scope.append(columns.created_at < wanted.created_before)
    return scope, others


def _is(columns: Any, name: str, value: str) -> ColumnElement[bool]:
    if name != "state":
        condition: ColumnElement[bool] = columns[name] == value
    elif value == LetterState.RETRIED:
        condition = columns.closed == LetterState.RETRIED.value
    else:
        # A state that this version does not know is listed, with what is wrong.
        unlisted = [LetterState.PURGED.value, LetterState.EXPIRED.value]
        condition = func.coalesce(columns.closed, "").not_in(unlisted)
    return condition


def _places(connection: Connection, query: Select[Any]) -> list[LetterPlace]:
    return [LetterPlace(row.created_at, JobId(row.job_id)) for row in connection.execute(query)]


def letters_at(connection: Connection, places: Sequence[LetterPlace]) -> list[DeadLetter]:
    """The letters at these places, in their order. Of one that cannot be fetched there is no more than its
    place and what is wrong."""

    def read(some: list[JobId]) -> list[DeadLetter]:
        return [_letter(row) for row in connection.execute(_letters().where(dead_letters.c.job_id.in_(some)))]

    found, errors = read_each(read, [place.job_id for place in places])
    by_id = {letter.job_id: letter for letter in found}
    for place in places:
        if place.job_id in errors:
            by_id[place.job_id] = _unreadable(place.job_id, place.created_at)
    return [by_id[place.job_id] for place in places if place.job_id in by_id]


def places_of(connection: Connection, job_ids: list[JobId]) -> list[LetterPlace]:
    """The places of the letters of these jobs, as far as there are any."""
    return _places(connection, select(*_PLACE).where(dead_letters.c.job_id.in_(job_ids)))


def dead_letter(
    connection: Connection, job_id: JobId, tenant_id: TenantId | None = None
) -> DeadLetter | None:
    """The dead letter of one job; None if there is none, or not of this tenant."""
    query = select(*_PLACE).where(dead_letters.c.job_id == job_id)
    if tenant_id is not None:
        query = query.where(dead_letters.c.tenant_id == tenant_id)
    return next(iter(letters_at(connection, _places(connection, query))), None)


def _letters() -> Select[Any]:
    # A letter whose job somebody deleted is still told.
    return select(dead_letters, *_OF_JOB).join_from(
        dead_letters, jobs, jobs.c.job_id == dead_letters.c.job_id, isouter=True
    )


def _letter(row: AnyRow) -> DeadLetter:
    if row.correlation_id is None:
        return _unreadable(row.job_id, row.created_at, "its job is gone")
    try:
        return _readable_letter(row)
    except (ValueError, TypeError):
        return _unreadable(row.job_id, row.created_at)


def _readable_letter(row: AnyRow) -> DeadLetter:
    problems: list[str] = []
    attempts, dropped = _value(row.history, _attempts, ((), 0), "its attempts", problems)
    state = LetterState(row.closed or LetterState.OPEN)
    context = read_trace_context(options_from_text(row.options).get(TRACEPARENT))
    return DeadLetter(
        job_id=JobId(row.job_id),
        tenant_id=TenantId(_text(row.tenant_id)),
        correlation_id=_text(row.correlation_id),
        model=_text(row.model),
        pool=None if row.pool is None else PoolName(_text(row.pool)),
        reason=_text(row.reason),
        why=why_dead(_text(row.reason)),
        retryable=bool(row.retryable),
        error=_value(row.error, error_from_text, None, "its error", problems),
        evidence=_value(row.evidence, _object, {}, "its evidence", problems),
        attempts=attempts,
        dropped=dropped,
        trace_id=None if context is None else f"{context.trace_id:032x}",
        retry_token=_text(row.retry_token) if state in (LetterState.OPEN, LetterState.RETRIED) else "",
        state=state,
        retry_of=None if row.retry_of is None else JobId(_text(row.retry_of)),
        retried_as=None if row.retried_as is None else JobId(_text(row.retried_as)),
        created_at=row.created_at,
        closed_at=row.closed_at,
        problem=f"{', '.join(problems)} cannot be read" if problems else None,
    )


def _unreadable(job_id: JobId, created_at: int, problem: str = "its row cannot be read") -> DeadLetter:
    return DeadLetter(job_id=job_id, tenant_id=TenantId(""), created_at=created_at, problem=problem)


def _text(value: object) -> str:
    # SQLite keeps what it is given, bytes too.
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _value(text: Any, read: Any, fallback: Any, what: str, problems: list[str]) -> Any:
    try:
        return read(text)
    except ValueError:
        problems.append(what)
        return fallback


def _object(text: str) -> dict[str, Any]:
    value = value_from_text(text)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _attempts(text: str) -> tuple[tuple[AttemptRecord, ...], int]:
    """The attempts that a letter keeps, and the number of further ones."""
    value = value_from_text(text)
    if not isinstance(value, list):
        raise ValueError("no list")
    records = tuple(map(record_of_kept, value))
    dropped = sum(count for each in value if type(count := each.get("dropped")) is int)
    # A dispatch that was never drawn has an outcome, and no attempt.
    return tuple(record for record in records if record.attempt > 0), dropped


def open_letters(
    connection: Connection, tenant_id: TenantId | None, limit: int
) -> tuple[int, LetterPlace | None]:
    """Number of open letters, counted up to ``limit``, and the place of the oldest."""
    scope = [IS_OPEN_LETTER]
    if tenant_id is not None:
        scope.append(dead_letters.c.tenant_id == tenant_id)
    some = select(dead_letters.c.job_id).where(*scope).limit(limit).subquery()
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    oldest = _places(connection, select(*_PLACE).where(*scope).order_by(*_PLACE).limit(1))
    return count, oldest[0] if oldest else None


def with_expiry(letter: DeadLetter, retention_ms: int | None) -> DeadLetter:
    """The same letter, with when it expires."""
    if retention_ms is None or letter.state is not LetterState.OPEN:
        return letter
    return replace(letter, expires_at=letter.created_at + retention_ms)
