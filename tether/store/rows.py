"""Rows as values, and values as they are written into columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from sqlalchemy import Row

from tether.codec import value_from_json, value_to_json
from tether.ids import JobId, TenantId
from tether.jobs import JobError, JobState, Piece, Priority
from tether.statuses import JobRecord
from tether.store.schema import jobs
from tether.streams.pieces import pieces_to_json

AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
"""A row of any columns."""


@dataclass(frozen=True, kw_only=True)
class JobRow(JobRecord):
    """What the database knows of one job, but its payload and result. Times are milliseconds since the epoch.

    Attributes:
      model_version: Settled when the job was accepted.
      not_before: 0 is at once.
      deadline: 0 is never.
      expires_at, expires_in_ms: See :class:`~tether.envelopes.Placeable`.
      cost: Estimated input tokens.
      max_tokens: Tokens that it may generate; 0 where an older version accepted it.
      requested: The end that somebody asked for, whether or not it has come.
      due_at: From when it may be placed again, where it waits.
      max_attempts, retry_base_ms, retry_on, failed_on: See :class:`~tether.envelopes.Placeable`.
    """

    tenant_id: TenantId
    digest: str
    model_version: str
    weight: float
    not_before: int
    deadline: int
    cost: int
    max_tokens: int
    updated_at: int
    requested: JobState | None
    requested_at: int | None
    due_at: int
    max_attempts: int = 0
    retry_base_ms: int = 0
    retry_on: str = ""
    failed_on: str = ""
    expires_at: int = 0
    expires_in_ms: int = 0


@dataclass(frozen=True)
class UnreadableRow:
    """A row with values that this version cannot read.

    Attributes:
      dispatch: Its hand-over.
      reason: What cannot be read.
    """

    job_id: JobId
    dispatch: int
    reason: str


ROW_COLUMNS = tuple(jobs.c[field.name] for field in fields(JobRow))
"""What a :class:`JobRow` is made from. Payload and result may be large, and are read by themselves."""


def text_or_none(value: object) -> str | None:
    """The text of a column that only informs; None where there is none, or what is none."""
    return value if isinstance(value, str) else None


def job_row(row: AnyRow) -> JobRow:
    """The value of a row of :data:`ROW_COLUMNS`.

    Raises:
      ValueError: It has a value that this version cannot read. Labels that are JSON of another kind are no
        reason: nothing that changes a job looks at them.
    """
    return _job_row(row, value_from_text(row.labels))


def _job_row(row: AnyRow, labels: Any) -> JobRow:
    values = dict(row._mapping)
    values["priority"] = Priority(row.priority)
    values["labels"] = labels
    values["state"] = JobState(row.state)
    values["requested"] = optional_state(row.requested)
    values["error"] = error_from_text(row.error)
    return JobRow(**values)


def readable_job_row(row: AnyRow) -> JobRow:
    """Like :func:`job_row`, for lists: what cannot be read of one job must not hide the others. Where labels
    cannot be read there are none, where the priority cannot be it is ``standard``, and so on."""
    try:
        return _job_row(row, labels_from_text(row.labels))
    except ValueError:
        values = dict(row._mapping)
        return JobRow(
            **values
            | {
                "priority": _value_or(Priority.STANDARD, Priority, row.priority),
                "labels": _value_or({}, labels_from_text, row.labels),
                "state": JobState(row.state),
                "requested": _value_or(None, optional_state, row.requested),
                "error": _value_or(_UNREADABLE_ERROR, error_from_text, row.error),
            }
        )


_UNREADABLE_ERROR = JobError("internal", "the job's error cannot be read")


def _value_or(fallback: Any, read: Callable[[Any], Any], value: object) -> Any:
    try:
        return read(value)
    except ValueError:
        return fallback


def labels_from_text(text: str) -> dict[str, str]:
    """The labels of a job, as its row has them.

    Raises:
      ValueError: They are anything but an object of texts.
    """
    labels = value_from_text(text)
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise ValueError("labels are no object of texts")
    return labels


def value_from_text(text: str) -> Any:
    """The value that JSON holds.

    Raises:
      ValueError: It is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except TypeError:
        raise ValueError(f"JSON is text, not {type(text).__name__}") from None


def optional_state(text: str | None) -> JobState | None:
    return None if text is None else JobState(text)


def error_from_text(text: str | None) -> JobError | None:
    return None if text is None else value_from_json(JobError, value_from_text(text))


def error_to_text(error: JobError | None) -> str | None:
    return None if error is None else compact_json(value_to_json(error))


def result_to_text(pieces: Sequence[Piece], run: int, finish_reason: str = "") -> str:
    """The tokens of a job as they are kept, so that its stream can be served from any offset."""
    return compact_json({**pieces_to_json(pieces), "run": run, "finish_reason": finish_reason})


def compact_json(value: object) -> str:
    """JSON without white space, fit for a text column whatever strings it holds."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which no database takes as text.
        text = json.dumps(value, separators=(",", ":"))
    return text
