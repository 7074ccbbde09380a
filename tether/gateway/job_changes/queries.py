"""Reads what requests for changes of jobs say: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tether.errors import InvalidRequest
from tether.gateway.chosen_where import ALL, chosen_where
from tether.gateway.job_changes.documents import CHANGES_PER_CALL
from tether.job_changes import check_change_limit, read_priority
from tether.job_filters import JobFilter, read_filter
from tether.jobs import Priority
from tether.statuses import check_page

_FILTERS = ("state", "model", "labels", "pool", "tenant", "created_after", "created_before")


@dataclass(frozen=True)
class ChangeQuery:
    """Which jobs, and which batch of them."""

    job_filter: JobFilter
    dry_run: bool
    cursor: str | None
    limit: int


@dataclass(frozen=True)
class PriorityQuery:
    """Which jobs, and the priority that they are to get."""

    change: ChangeQuery
    priority: Priority


def read_reprioritisation(values: Mapping[str, Any]) -> PriorityQuery:
    """What a batch of other priorities is asked for with.

    Raises:
      InvalidRequest: Fields are missing, unknown or not possible.
    """
    change = read_change(values, also=("priority",))
    return PriorityQuery(change, _priority(values))


def read_new_priority(values: Mapping[str, Any]) -> Priority:
    """The priority that one job is to get.

    Raises:
      InvalidRequest: Fields are missing, unknown or not possible.
    """
    if unknown := sorted(values.keys() - {"priority"}):
        raise InvalidRequest(f"unknown field {unknown[0][:80]!r}; what can be changed of a job is priority")
    return _priority(values)


def _priority(values: Mapping[str, Any]) -> Priority:
    if "priority" not in values:
        raise InvalidRequest('the body must have "priority"')
    return read_priority(values["priority"])


def read_change(values: Mapping[str, Any], *, also: tuple[str, ...] = ()) -> ChangeQuery:
    """What a batch of changes is asked for with.

    Args:
      also: Further fields that may be there, and are not read.

    Raises:
      InvalidRequest: Fields are missing, unknown or not possible.
    """
    known = ("where", *also, "dry_run", "limit", "cursor")
    if unknown := sorted(values.keys() - set(known)):
        raise InvalidRequest(f"unknown field {unknown[0][:80]!r}; available: {', '.join(known)}")
    where = chosen_where(values)
    if unknown := sorted(where.keys() - set(_FILTERS)):
        raise InvalidRequest(f"unknown filter {unknown[0][:80]!r}; available: {', '.join((*_FILTERS, ALL))}")
    dry_run = values.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise InvalidRequest("dry_run must be true or false")
    limit, cursor = _whole(values.get("limit", CHANGES_PER_CALL)), values.get("cursor")
    check_change_limit(limit)
    check_page(cursor, limit)
    return ChangeQuery(
        read_filter({name: _whole(value) for name, value in where.items()}), dry_run, cursor, limit
    )


def _whole(value: Any) -> Any:
    # In JSON 3.0 is an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value
