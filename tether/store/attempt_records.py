"""Attempts as clients see them, from rows of the table ``attempts`` or what dead letters keep of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tether.codec import value_from_json, value_to_json
from tether.histories import AttemptRecord
from tether.ids import BootId
from tether.jobs import JobError
from tether.store.rows import error_from_text, value_from_text

_Value = TypeVar("_Value")


def record_of_row(row: Mapping[str, Any]) -> AttemptRecord:
    """The record of a row."""
    evidence = _readable(value_from_text, row["evidence"]) if row["evidence"] else None
    return _record(row, _readable(error_from_text, row["error"]), evidence)


def record_of_kept(columns: object) -> AttemptRecord:
    """The record of an attempt that a dead letter keeps: the columns of its row, the evidence as a value.

    Raises:
      ValueError: It is none.
    """
    if not isinstance(columns, dict) or not isinstance(columns.get("worker"), str):
        raise ValueError("no attempt")
    error = columns.get("error")
    try:
        record = _record(
            columns,
            _readable(error_from_text, error) if isinstance(error, str) else None,
            columns.get("evidence"),
        )
    except KeyError as error:
        raise ValueError(f"an attempt without {error}") from None
    return value_from_json(AttemptRecord, value_to_json(record))


def _record(row: Mapping[str, Any], error: JobError | None, evidence: object) -> AttemptRecord:
    # Letters of older versions keep fewer columns.
    started_at = row.get("started_at") or None
    return AttemptRecord(
        dispatch=row["dispatch"],
        attempt=row["attempt"],
        worker=BootId(row["worker"]),
        pool=row.get("pool"),
        started_at=started_at,
        start_offset=row.get("start_offset") if started_at else None,
        ended_at=row["ended_at"],
        offset=row["offset"],
        cause=row.get("cause"),
        went=row.get("went"),
        outcome=row["kind"] or None,
        error=error,
        evidence=evidence if isinstance(evidence, dict) else {},
    )


def _readable(read: Callable[[Any], _Value], text: str | None) -> _Value | None:
    # What cannot be read of one attempt must not hide the others.
    try:
        return read(text)
    except ValueError:
        return None
