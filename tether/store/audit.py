"""The audit log: who did what to whom, and with which result. Rows are added and, when old, deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, delete, insert, select

from tether.errors import InvalidRequest, StoreError, TetherError
from tether.ids import TenantId
from tether.store.schema import audit_log
from tether.store.store import Store
from tether.telemetry.logs import get_logger

OK = "ok"
"""The result of an act that was done."""

BEGUN = "begun"
"""The result of an act elsewhere than in the database, before it is done; a second entry has its end."""

MAX_ENTRIES_PER_PAGE = 1_000

_WHOLE_NUMBER = re.compile(r"\d{1,15}", re.ASCII)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, kw_only=True)
class Act:
    """What somebody is about to do.

    Attributes:
      act_id: Which entries of the log are of this act.
      actor: The id of the API key that acts, or ``cli:`` and the name of the user of the operating system.
      address: From where: the address of the gateway's client, or the name of the machine of the command.
      action: What is done, as ``keys.create``.
      target: To what: the id of a key, tenant, job or worker.
      tenant_id: The tenant that it concerns; None where it concerns no single one.
      details: What else is to be known of it, as JSON. No secrets.
    """

    act_id: str
    actor: str
    address: str
    action: str
    target: str
    tenant_id: TenantId | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditEntry:
    """One entry of the log; see :class:`Act`.

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


def add_entry(connection: Connection, act: Act, result: str, now_ms: int) -> None:
    """Write an entry."""
    details = json.dumps(act.details, ensure_ascii=False, sort_keys=True)
    connection.execute(
        insert(audit_log).values(**{**vars(act), "details": details, "result": result, "at": now_ms})
    )


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
    if action is not None:
        is_part = audit_log.c.action.startswith(f"{action}.", autoescape=True)
        query = query.where((audit_log.c.action == action) | is_part)
    entries = [
        AuditEntry(**{**row._mapping, "details": json.loads(row.details)})
        for row in connection.execute(query)
    ]
    more = len(entries) > limit
    return AuditPage(entries[:limit], entries[limit - 1].entry_id if more else None)


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


def prune_audit(connection: Connection, older_than_ms: int, limit: int) -> int:
    """Delete at most ``limit`` entries from before ``older_than_ms``, the oldest first; return how many."""
    old = select(audit_log.c.entry_id).where(audit_log.c.at < older_than_ms).order_by(audit_log.c.at)
    return connection.execute(delete(audit_log).where(audit_log.c.entry_id.in_(old.limit(limit)))).rowcount


class Audited:
    """Does acts with their entries in the log. Blocks; safe to use from many threads."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch.
        """
        self._store = store
        self._now_ms = now_ms
        self._log = get_logger("tether.audit")

    def write(
        self,
        act: Act,
        function: Callable[[Connection], _Answer | TetherError],
        *,
        is_noted: Callable[[_Answer | TetherError], bool] = lambda _: True,
    ) -> _Answer:
        """Do an act that only writes to the database: it and its entry are one transaction.

        Args:
          function: Does it. It returns an error if it did nothing: that is noted as the act's result. It may
            run more than once.
          is_noted: Whether what it returned is worth an entry. All is that operators do; but whoever has any
            admin's key must not fill the log with what changes nothing.

        Raises:
          TetherError: The error that the function returned.
          StoreError: Nothing was written, neither the act nor its entry; of
            :class:`~tether.errors.CommitUnknown` that is not known.
        """

        def both(connection: Connection) -> _Answer | TetherError:
            answer = function(connection)
            if is_noted(answer):
                add_entry(connection, act, _result_of(answer), self._now_ms())
            return answer

        answer = self._store.write_alone(both).result()
        if isinstance(answer, TetherError):
            raise answer
        return answer

    def note_refusal(self, act: Act, error: TetherError) -> None:
        """Note that an act was refused with this error before anything was done.

        Raises:
          StoreError: It cannot be noted.
        """
        self._store.write_alone(add_entry, act, error.code, self._now_ms()).result()

    def elsewhere(self, act: Act, function: Callable[[], _Answer]) -> _Answer:
        """Do an act that does more than to write to the database. Its beginning is noted before, and its end
        after it: an act whose end is missing may have been done.

        Raises:
          StoreError: The beginning cannot be noted. Nothing was done.
        """
        self._store.write_alone(add_entry, act, BEGUN, self._now_ms()).result()
        result = TetherError.code
        try:
            answer = function()
            result = OK
        except TetherError as error:
            result = error.code
            raise
        finally:
            self._note_end(act, result)
        return answer

    def _note_end(self, act: Act, result: str) -> None:
        try:
            self._store.write_alone(add_entry, act, result, self._now_ms()).result()
        except StoreError as error:
            # It is done, and its beginning is in the log: to fail now would only hide that.
            self._log.error(
                "The end of an act could not be written to the audit log.",
                act=act.act_id,
                action=act.action,
                target=act.target,
                result=result,
                error=str(error),
            )


def _result_of(answer: object) -> str:
    return answer.code if isinstance(answer, TetherError) else OK
