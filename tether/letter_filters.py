"""Which dead letters are asked for, checked and made of plain values or a client's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tether.dead_letters import LISTED_STATES, LetterFilter, LetterState
from tether.errors import InvalidRequest
from tether.ids import TenantId
from tether.job_filters import MAX_FILTER_CHARACTERS, MAX_FILTER_TIME_MS
from tether.requests.checking import joined
from tether.requests.options import moment_ms
from tether.requests.rules import Text, Whole, shown

FILTER_NAMES = ("state", "reason", "model", "pool", "tenant", "created_after", "created_before")
"""What dead letters can be filtered by."""

_TEXT = Text(max_characters=MAX_FILTER_CHARACTERS, is_printable=True)
_TIME = Whole(0, MAX_FILTER_TIME_MS)


def read_letter_filter(values: Mapping[str, Any]) -> LetterFilter:
    """Return a filter of plain values, by :data:`FILTER_NAMES`. None is as if it were not given.

    Raises:
      InvalidRequest: Values are unknown, of wrong types or out of range. The message names all.
    """
    given = {name: value for name, value in values.items() if value is not None}
    problems = [f"unknown filter {str(name)[:80]!r}" for name in given if name not in FILTER_NAMES]
    if given.get("state", LetterState.OPEN.value) not in LISTED_STATES:
        problems.append(f"state={shown(given['state'])} is not one of {', '.join(LISTED_STATES)}")
    for name in ("reason", "model", "pool", "tenant"):
        if name in given:
            problems += _TEXT.problems(name, given[name])
    for name in ("created_after", "created_before"):
        if name in given and list(_TIME.problems(name, given[name])):
            problems.append(f"{name}={shown(given[name])} is not a time in milliseconds since the epoch")
    if problems:
        raise InvalidRequest(joined(problems))
    tenant = given.pop("tenant", None)
    return LetterFilter(tenant_id=None if tenant is None else TenantId(tenant), **given)


def check_open(letter_filter: LetterFilter) -> None:
    """Check that a filter is one of open letters: no others can be retried or purged by filter.

    Raises:
      InvalidRequest: It is not.
    """
    if letter_filter.state != LetterState.OPEN:
        raise InvalidRequest(
            f"state={shown(letter_filter.state)} is invalid here: only open dead letters can be retried or "
            "purged"
        )


def make_letter_filter(
    state: str = LetterState.OPEN.value,
    reason: str | None = None,
    model: str | None = None,
    pool: str | None = None,
    tenant: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> LetterFilter:
    """Return a filter of a client's arguments.

    Raises:
      InvalidRequest: Arguments are of wrong types or out of range.
    """
    return read_letter_filter(
        {
            "state": state,
            "reason": reason,
            "model": model,
            "pool": pool,
            "tenant": tenant,
            "created_after": moment_ms("created_after", created_after),
            "created_before": moment_ms("created_before", created_before),
        }
    )
