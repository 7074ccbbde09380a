"""Rows as values, and values as they are written into columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from sqlalchemy import Row

from tether.jobs import JobError, JobState, Priority
from tether.store.schema import jobs

AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
"""A row of any columns."""

ROW_COLUMNS = tuple(column for column in jobs.c if column.name not in ("body", "result"))
"""What a :class:`JobRow` is made from, in its order. Prompt and result may be large, and are read by
themselves."""


@dataclass(frozen=True)
class JobRow:
    """What the database knows of one job, but its prompt and result. Times are milliseconds since the epoch.

    Attributes:
      dispatch: The newest hand-over to Redis; 0 where there was none yet.
      pool: Where the newest hand-over went or goes; None where there was none yet.
      not_before: 0 is at once.
      deadline: 0 is never.
      cost: Estimated input tokens.
      attempts: Attempts that failed so far.
      requested: The end that somebody asked for, whether or not it has come.
      due_at: From when it may be placed again, where it waits.
    """

    job_id: str
    tenant_id: str
    correlation_id: str
    retry_token: str
    retry_of: str | None
    digest: str
    model: str
    priority: Priority
    labels: Mapping[str, str]
    state: JobState
    dispatch: int
    pool: str | None
    weight: float
    not_before: int
    deadline: int
    cost: int
    attempts: int
    created_at: int
    updated_at: int
    finished_at: int | None
    requested: JobState | None
    requested_at: int | None
    error: JobError | None
    input_tokens: int
    output_tokens: int
    due_at: int


def job_row(row: AnyRow) -> JobRow:
    """The value of a row of :data:`ROW_COLUMNS`."""
    values = dict(row._mapping)
    values["priority"] = Priority(row.priority)
    values["labels"] = json.loads(row.labels)
    values["state"] = JobState(row.state)
    values["requested"] = optional_state(row.requested)
    values["error"] = error_from_text(row.error)
    return JobRow(**values)


def optional_state(text: str | None) -> JobState | None:
    return None if text is None else JobState(text)


def error_from_text(text: str | None) -> JobError | None:
    return None if text is None else JobError(**json.loads(text))


def error_to_text(error: JobError | None) -> str | None:
    return None if error is None else compact_json(asdict(error))


def compact_json(value: object) -> str:
    """JSON without white space, fit for a text column whatever strings it holds."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which no database takes as text.
        text = json.dumps(value, separators=(",", ":"))
    return text
