"""The audit log: who did what to whom, and with which result. Rows are added and, when old, deleted."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, func, insert, select

from tether.errors import StoreError, TetherError
from tether.ids import TenantId
from tether.store.schema import audit_log
from tether.store.store import Store
from tether.telemetry.logs import get_logger

OK = "ok"
"""The result of an act that was done."""

BEGUN = "begun"
"""The result of an act elsewhere than in the database, before it is done; a second entry has its end."""

_ACT_ID_BYTES = 8
_Answer = TypeVar("_Answer")


ACTIONS = (
    "breakers.reset",
    *("dead_letters.purge", "dead_letters.retry", "dead_letters.retry_where"),
    *("dead_messages.purge", "dead_messages.retry"),
    *("fleet.cordon", "fleet.drain", "fleet.revoke", "fleet.trust", "fleet.uncordon"),
    *("jobs.cancel", "jobs.cancel_where", "jobs.reprioritise", "jobs.reprioritise_where"),
    *("keys.create", "keys.revoke", "tenants.create", "tenants.set"),
    *("admin.rebuild", "admin.reconcile"),
    *("policies.set", "pools.move", "pools.pause", "pools.purge", "pools.resume"),
)
"""All that can be done, as the log calls it."""

SUBJECTS = tuple(dict.fromkeys(action.partition(".")[0] for action in ACTIONS))
"""What it is done to: the part of an action before the dot."""


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


def new_act_id() -> str:
    """An id for an act, which no other has."""
    return secrets.token_hex(_ACT_ID_BYTES)


def add_entry(connection: Connection, act: Act, result: str, now_ms: int) -> None:
    """Write an entry."""
    details = json.dumps(act.details, ensure_ascii=False, sort_keys=True)
    connection.execute(
        insert(audit_log).values(**{**vars(act), "details": details, "result": result, "at": now_ms})
    )


def prune_audit(connection: Connection, older_than_ms: int, limit: int) -> int:
    """Delete at most ``limit`` entries from before ``older_than_ms``, the oldest first; return how many."""
    old = select(audit_log.c.entry_id).where(audit_log.c.at < older_than_ms).order_by(audit_log.c.at)
    return connection.execute(delete(audit_log).where(audit_log.c.entry_id.in_(old.limit(limit)))).rowcount


def count_audit(connection: Connection) -> int:
    """Return how many entries there are at most: ids that a transaction took and did not use count too."""
    first, last = connection.execute(
        select(
            select(func.min(audit_log.c.entry_id)).scalar_subquery(),
            select(func.max(audit_log.c.entry_id)).scalar_subquery(),
        )
    ).one()
    return 0 if first is None else int(last - first + 1)


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
