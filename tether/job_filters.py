"""Which jobs are asked for: filters, checked and made of a client's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tether.errors import InvalidRequest
from tether.ids import PoolName, TenantId
from tether.jobs import JobState
from tether.requests.checking import joined
from tether.requests.fields import TABLE
from tether.requests.options import moment_ms
from tether.requests.rules import Text, Whole, shown

MAX_FILTER_TIME_MS = 2**48 - 1
"""Latest time that a job's id can hold."""

MAX_FILTER_CHARACTERS = 256

_TEXT = Text(max_characters=MAX_FILTER_CHARACTERS, is_printable=True)
_TIME = Whole(0, MAX_FILTER_TIME_MS)


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """A filter of jobs. Empty fields and None match all.

    Attributes:
      states: Any of these states.
      labels: All of these labels.
      pool: The pool that has them, or had them last.
      tenant_id: Only this tenant's; for operators.
      created_after, created_before: Milliseconds since the epoch; the first inclusive, the second exclusive.
    """

    states: tuple[JobState, ...] = ()
    model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    pool: PoolName | None = None
    tenant_id: TenantId | None = None
    created_after: int | None = None
    created_before: int | None = None


EVERY_JOB = JobFilter()


def read_filter(values: Mapping[str, Any]) -> JobFilter:
    """Return a filter of plain values: ``state`` (a list), ``model``, ``labels``, ``pool``, ``tenant``,
    ``created_after`` and ``created_before``.

    Raises:
      InvalidRequest: Values are of wrong types or out of range. The message names all.
    """
    # What matches all is what was not given: an empty text or list in the place of labels is a mistake.
    labels = {} if values.get("labels") is None else values["labels"]
    problems = [*TABLE.fields["labels"].rule.problems("labels", labels)]
    states = [] if values.get("state") is None else values["state"]
    if not isinstance(states, list):
        problems.append(f"state={shown(states)} is not a state or a list of states")
        states = []
    for state in states:
        if state not in tuple(JobState):
            problems.append(f"state={shown(state)} is not one of {', '.join(JobState)}")
    if values.get("model") is not None:
        problems += TABLE.fields["model"].rule.problems("model", values["model"])
    for name in ("pool", "tenant"):
        if values.get(name) is not None:
            problems += _TEXT.problems(name, values[name])
    for name in ("created_after", "created_before"):
        value = values.get(name)
        if value is not None and list(_TIME.problems(name, value)):
            problems.append(f"{name}={shown(value)} is not a time in milliseconds since the epoch")
    if problems:
        raise InvalidRequest(joined(problems))
    return JobFilter(
        states=tuple(map(JobState, states)),
        model=values.get("model"),
        labels=dict(labels),
        pool=values.get("pool"),
        tenant_id=values.get("tenant"),
        created_after=values.get("created_after"),
        created_before=values.get("created_before"),
    )


def make_filter(
    state: str | Sequence[str] = (),
    model: str | None = None,
    labels: Mapping[str, str] | None = None,
    pool: str | None = None,
    tenant: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> JobFilter:
    """Return a filter of a client's arguments.

    Raises:
      InvalidRequest: Arguments are of wrong types or out of range.
    """
    states = (state,) if isinstance(state, str) else state
    values = {
        "state": list(states) if isinstance(states, Iterable) else states,
        "model": model,
        "labels": labels or {},
        "pool": pool,
        "tenant": tenant,
        "created_after": moment_ms("created_after", created_after),
        "created_before": moment_ms("created_before", created_before),
    }
    return read_filter(values)
