"""How a client asks for dead letters: filters as the query of an address, and as a body."""

from __future__ import annotations

from typing import Any

from tether.dead_letters import LetterFilter, check_letter_limit, place_of


def letter_query(letter_filter: LetterFilter, cursor: str | None, limit: int) -> list[tuple[str, str]]:
    """The query for one page of the letters that a filter lets through.

    Raises:
      InvalidRequest: Such a page cannot be asked for.
    """
    check_letter_limit(limit)
    place_of(cursor)
    query = [(name, str(value)) for name, value in filter_document(letter_filter).items()]
    query.append(("limit", str(limit)))
    return query if cursor is None else [*query, ("cursor", cursor)]


def letter_retry_body(retry_token: str, force: bool = False) -> dict[str, Any]:
    """The body that retries one letter."""
    return {"retry_token": retry_token, "force": force}


def letter_batch_body(
    letter_filter: LetterFilter, cursor: str | None, limit: int, **values: Any
) -> dict[str, Any]:
    """The body that retries or purges a batch.

    Raises:
      InvalidRequest: Such a batch cannot be asked for.
    """
    check_letter_limit(limit)
    place_of(cursor)
    where = filter_document(letter_filter)
    return {"where": where, "limit": limit, **values, **({} if cursor is None else {"cursor": cursor})}


def filter_document(letter_filter: LetterFilter) -> dict[str, Any]:
    """A filter as both have it: each field under its name, and the tenant as ``tenant``."""
    values = {name: value for name, value in vars(letter_filter).items() if value is not None}
    if "tenant_id" in values:
        values["tenant"] = values.pop("tenant_id")
    return values
