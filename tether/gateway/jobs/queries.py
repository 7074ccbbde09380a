"""Reads the queries of addresses: what is asked for, once each where it can be only once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tether.errors import InvalidRequest
from tether.job_filters import JobFilter, read_filter
from tether.statuses import check_page

JOBS_PER_PAGE = 50
"""Jobs of a page where nobody says how many."""

_REPEATED = ("state", "label")
_NUMBERS = ("created_after", "created_before", "limit")
_WHOLE_NUMBER = re.compile(r"\d{1,15}", re.ASCII)


@dataclass(frozen=True)
class ListQuery:
    """Which jobs, and which page of them."""

    job_filter: JobFilter
    cursor: str | None
    limit: int


def single(
    items: Iterable[tuple[str, str]], known: Sequence[str], repeated: Sequence[str] = ()
) -> Mapping[str, str]:
    """The parameters that may stand once.

    Raises:
      InvalidRequest: One is not known, or stands twice and may not.
    """
    found: dict[str, str] = {}
    for name, value in items:
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.6)
            meant = f"did you mean {near[0]}?" if near else f"available: {', '.join(known)}"
            raise InvalidRequest(f"unknown parameter {name[:80]!r}; {meant}")
        if name in found and name not in repeated:
            raise InvalidRequest(f"duplicate parameter {name}: give it once")
        found[name] = value
    return found


def read_list_query(items: Sequence[tuple[str, str]], *, also: Sequence[str] = ()) -> ListQuery:
    """What a list of jobs is asked for with.

    Args:
      also: Parameters that may stand once beside, and are not read.

    Raises:
      InvalidRequest: Parameters are unknown or not possible.
    """
    known = (*also, *_REPEATED, "model", *_NUMBERS, "cursor")
    once = single(items, known, _REPEATED)
    labels: dict[str, str] = {}
    for text in (value for name, value in items if name == "label"):
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest(f"label {text[:100]!r} has no value: write it as key=value")
        if labels.setdefault(key, value) != value:
            raise InvalidRequest(
                f"label {key[:100]!r} is given with two different values, which no job can have"
            )
    numbers: dict[str, Any] = {}
    for name in _NUMBERS:
        if name in once:
            if not _WHOLE_NUMBER.fullmatch(once[name]):
                raise InvalidRequest(f"{name}={once[name][:80]!r} is not an integer")
            numbers[name] = int(once[name])
    limit, cursor = numbers.pop("limit", JOBS_PER_PAGE), once.get("cursor")
    check_page(cursor, limit)
    states = [value for name, value in items if name == "state"]
    values = {"state": states, "model": once.get("model"), "labels": labels, **numbers}
    return ListQuery(read_filter(values), cursor, limit)
