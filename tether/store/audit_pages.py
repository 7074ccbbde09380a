"""The audit log as it is read: filtered, by pages, newest first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from tether.errors import InvalidRequest
from tether.ids import TenantId
from tether.store.audit import ACTIONS, SUBJECTS
from tether.store.schema import audit_log

MAX_ENTRIES_PER_PAGE = 1_000

_WHOLE_NUMBER = re.compile(r"\d{1,15}", re.ASCII)


@dataclass(frozen=True)
class AuditEntry:
    """One entry of the log; see :class:`~tether.store.audit.Act`.

    Attributes:
      entry_id: Ascending, in the order in which entries were begun to be written.
      at: Milliseconds since the epoch.
      result: ``ok``, ``begun``, or the code of the error with which it failed.
    """

    entry_id: int
    at: int
    act_id: str
    actor: str
    address: str
    action: str
    target: str
    tenant_id: TenantId | None
    details: Mapping[str, Any]
    result: str


class AuditPage(NamedTuple):
    """Some entries, newest first, and the id behind which the log goes on; None at its end."""

    entries: list[AuditEntry]
    after: int | None


def audit_page(
    connection: Connection,
    *,
    before: int | None = None,
    limit: int = 50,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    tenant_id: TenantId | None = None,
) -> AuditPage:
    """Return the newest entries that match all that is given.

    Args:
      before: Only entries with ids below this one.
      action: Its name, or the first part of it: ``keys`` is every act on API keys.
    """
    query = select(audit_log).order_by(audit_log.c.entry_id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(audit_log.c.entry_id < before)
    for column, wanted in (
        (audit_log.c.actor, actor),
        (audit_log.c.target, target),
        (audit_log.c.tenant_id, tenant_id),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if action is None:
        rows = list(connection.execute(query))
    else:
        # One by one: each has an index that is in order. Of several at once all entries would be sorted.
        of_each = (
            connection.execute(query.where(audit_log.c.action == name))
            for name in _actions(connection)
            if name == action or name.startswith(f"{action}.")
        )
        rows = list(chain.from_iterable(of_each))
        rows.sort(key=lambda row: -row.entry_id)
    entries = [AuditEntry(**{**row._mapping, "details": json.loads(row.details)}) for row in rows[:limit]]
    return AuditPage(entries, entries[-1].entry_id if len(rows) > limit else None)


def _actions(connection: Connection) -> Iterator[str]:
    """The names of actions in the log: as many as Tether has. One look into the index finds each."""
    least = select(func.min(audit_log.c.action))
    name = connection.scalar(least)
    while name is not None:
        yield name
        name = connection.scalar(least.where(audit_log.c.action > name))


def check_action(action: str) -> None:
    """Check a filter by what was done: one of :data:`ACTIONS`, or what several of them are done to.

    Raises:
      InvalidRequest: It is neither.
    """
    if action not in (*ACTIONS, *SUBJECTS):
        raise InvalidRequest(
            f"action={action[:80]!r} is not in any audit log: use one of {', '.join(ACTIONS)}, or only what "
            "comes before the dot"
        )


def read_audit_place(limit: str, cursor: str | None) -> tuple[int, int | None]:
    """How many entries are asked for, and before which one.

    Raises:
      InvalidRequest: They are not possible.
    """
    if not _WHOLE_NUMBER.fullmatch(limit) or not 1 <= int(limit) <= MAX_ENTRIES_PER_PAGE:
        raise InvalidRequest(f"limit={limit[:80]!r} is not an integer from 1 to {MAX_ENTRIES_PER_PAGE}")
    if cursor is None:
        return int(limit), None
    if not _WHOLE_NUMBER.fullmatch(cursor):
        raise InvalidRequest(f"cursor={cursor[:80]!r} was not returned by a previous page")
    return int(limit), int(cursor)


def audit_page_to_json(page: AuditPage) -> dict[str, Any]:
    """A page as a document."""
    return {
        "object": "list",
        "data": [{"object": "audit_entry", **vars(entry)} for entry in page.entries],
        "next_cursor": None if page.after is None else str(page.after),
    }
