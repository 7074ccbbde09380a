"""How a client asks for changes of many jobs: filters and what else there is as a body."""

from __future__ import annotations

from typing import Any

from tether.job_changes import check_change_limit
from tether.job_filters import JobFilter
from tether.jobs import Priority
from tether.statuses import check_page


def change_body(job_filter: JobFilter, cursor: str | None, limit: int, **values: Any) -> dict[str, Any]:
    """The body that changes a batch.

    Raises:
      InvalidRequest: Such a batch cannot be asked for.
    """
    check_change_limit(limit)
    check_page(cursor, limit)
    where = where_document(job_filter)
    return {"where": where, "limit": limit, **values, **({} if cursor is None else {"cursor": cursor})}


def reprioritise_body(priority: Priority, **values: Any) -> dict[str, Any]:
    """The body that gives a batch another priority.

    Raises:
      InvalidRequest: Such a batch cannot be asked for.
    """
    return {**change_body(**values), **priority_body(priority)}


def priority_body(priority: Priority) -> dict[str, Any]:
    """The body that gives one job another priority."""
    return {"priority": priority.value}


def where_document(job_filter: JobFilter) -> dict[str, Any]:
    """A filter as JSON has it; what matches all is left out."""
    values = {
        "state": [state.value for state in job_filter.states],
        "model": job_filter.model,
        "labels": dict(job_filter.labels),
        "pool": job_filter.pool,
        "tenant": job_filter.tenant_id,
        "created_after": job_filter.created_after,
        "created_before": job_filter.created_before,
    }
    return {name: value for name, value in values.items() if value not in (None, [], {})}
