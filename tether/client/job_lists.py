"""How a client asks for lists of jobs: filter and page as the query of an address."""

from __future__ import annotations

from tether.errors import InvalidRequest
from tether.job_filters import JobFilter
from tether.statuses import check_page


def page_query(job_filter: JobFilter, cursor: str | None, limit: int) -> list[tuple[str, str]]:
    """The query for one page of the jobs that a filter lets through.

    Raises:
      InvalidRequest: Such a page cannot be asked for.
    """
    check_page(cursor, limit)
    query = [*_query_of(job_filter), ("limit", str(limit))]
    if cursor is not None:
        query.append(("cursor", cursor))
    return query


def _query_of(job_filter: JobFilter) -> list[tuple[str, str]]:
    query = [("state", state.value) for state in job_filter.states]
    if job_filter.model is not None:
        query.append(("model", job_filter.model))
    for name, value in job_filter.labels.items():
        if "=" in name:
            raise InvalidRequest(
                f"a gateway cannot filter by the label {name[:100]!r}: the name of a label must "
                "not contain an "
                "equals sign"
            )
        query.append(("label", f"{name}={value}"))
    for name, moment in (
        ("created_after", job_filter.created_after),
        ("created_before", job_filter.created_before),
    ):
        if moment is not None:
            query.append((name, str(moment)))
    return query
