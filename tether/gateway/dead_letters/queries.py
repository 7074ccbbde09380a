"""Reads what requests for dead letters say: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tether.dead_letters import LetterFilter, check_letter_limit, place_of
from tether.errors import InvalidRequest
from tether.gateway.chosen_where import chosen_where
from tether.gateway.dead_letters.documents import LETTERS_PER_PAGE
from tether.gateway.jobs.queries import single
from tether.letter_filters import FILTER_NAMES, read_letter_filter

_NUMBERS = ("created_after", "created_before", "limit")
_WHOLE_NUMBER = re.compile(r"\d{1,15}", re.ASCII)


@dataclass(frozen=True)
class LetterQuery:
    """Which letters, and which page or batch of them."""

    letter_filter: LetterFilter
    cursor: str | None
    limit: int
    force: bool = False


def read_letter_query(items: Sequence[tuple[str, str]], *, is_paged: bool = True) -> LetterQuery:
    """What a list of dead letters is asked for with.

    Args:
      is_paged: Whether a page is asked for, and not all.

    Raises:
      InvalidRequest: Parameters are unknown or not possible.
    """
    paging = ("limit", "cursor") if is_paged else ()
    values: dict[str, Any] = dict(single(items, (*FILTER_NAMES, *paging)))
    for name in _NUMBERS:
        if name in values:
            if not _WHOLE_NUMBER.fullmatch(values[name]):
                raise InvalidRequest(f"{name}={values[name][:80]!r} is not an integer")
            values[name] = int(values[name])
    return _query(values, values.pop("limit", LETTERS_PER_PAGE), values.pop("cursor", None), False)


def read_letter_batch(values: Mapping[str, Any], *, may_force: bool) -> LetterQuery:
    """What a batch of retries or purges is asked for with.

    Raises:
      InvalidRequest: Fields are missing, unknown or not possible.
    """
    known = ("where", "limit", "cursor", *(("force",) if may_force else ()))
    if unknown := sorted(values.keys() - set(known)):
        raise InvalidRequest(f"unknown field {unknown[0][:80]!r}; available: {', '.join(known)}")
    where = chosen_where(values)
    limit = values.get("limit", LETTERS_PER_PAGE)
    # In JSON 3.0 is an integer.
    limit = int(limit) if isinstance(limit, float) and limit.is_integer() else limit
    return _query(where, limit, values.get("cursor"), read_force(values))


def read_retry(values: Mapping[str, Any]) -> tuple[str, bool]:
    """The token of a letter to retry, and whether by force.

    Raises:
      InvalidRequest: Fields are missing, unknown or not possible.
    """
    if not {"retry_token"} <= values.keys() <= {"retry_token", "force"}:
        raise InvalidRequest('the body must have "retry_token" and optionally "force", and nothing else')
    if not isinstance(values["retry_token"], str):
        raise InvalidRequest("retry_token must be a string")
    return values["retry_token"], read_force(values)


def read_force(values: Mapping[str, Any]) -> bool:
    force = values.get("force", False)
    if not isinstance(force, bool):
        raise InvalidRequest("force must be true or false")
    return force


def _query(where: Mapping[str, Any], limit: Any, cursor: Any, force: bool) -> LetterQuery:
    check_letter_limit(limit)
    place_of(cursor)
    numbers = {
        name: int(value)
        for name, value in where.items()
        if isinstance(value, float) and value.is_integer() and name in _NUMBERS
    }
    return LetterQuery(read_letter_filter({**where, **numbers}), cursor, limit, force)
