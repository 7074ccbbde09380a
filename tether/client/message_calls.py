"""How a client asks for dead messages of plain actors: queries of an address, and bodies."""

from __future__ import annotations

from typing import Any

from tether.dead_messages import check_message_limit, message_place_of


def message_query(cursor: str | None, limit: int, payloads: bool = False) -> list[tuple[str, str]]:
    """The query for one page.

    Raises:
      InvalidRequest: Such a page cannot be asked for.
    """
    check_message_limit(limit)
    message_place_of(cursor)
    query = [("limit", str(limit)), *([("payloads", "true")] if payloads else [])]
    return query if cursor is None else [*query, ("cursor", cursor)]


def message_retry_body(queue: str, retry_token: str, force: bool = False) -> dict[str, Any]:
    """The body that retries one."""
    return {"queue": queue, "retry_token": retry_token, "force": force}


def message_purge_body(
    queue: str, retry_token: str | None, died_before: int | None, limit: int
) -> dict[str, Any]:
    """The body that purges one, or a batch.

    Raises:
      InvalidRequest: Such a batch cannot be asked for.
    """
    check_message_limit(limit)
    values = {"queue": queue, "retry_token": retry_token, "died_before": died_before, "limit": limit}
    return {name: value for name, value in values.items() if value is not None}
