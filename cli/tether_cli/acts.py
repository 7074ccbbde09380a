"""What a verb changes by itself, in the audit log."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tether.clocks import wall_clock_ms
from tether_cli.admin_store import open_store
from tether_cli.terminal.asides import say_aside

if TYPE_CHECKING:
    from tether.config.settings import Settings
    from tether.ids import TenantId
    from tether.store import Store
    from tether.store.audit import Act, Audited

_Answer = TypeVar("_Answer")


def act_of_user(action: str, target: str, tenant_id: TenantId | None = None, **details: Any) -> Act:
    """An act of the operating system's user who called the verb, on this machine."""
    from tether.store.audit import Act, new_act_id

    return Act(
        act_id=new_act_id(),
        actor=f"cli:{_user()}",
        address=socket.gethostname(),
        action=action,
        target=target,
        tenant_id=tenant_id,
        details=details,
    )


def audited(store: Store) -> Audited:
    """Does acts on this database with their entries."""
    from tether.store.audit import Audited

    return Audited(store, wall_clock_ms)


@contextmanager
def audit_of(settings: Settings) -> Iterator[Audited | Unaudited]:
    """The audit log for an act that needs no database itself. Where no database is configured, and the file
    that would be used by default is not there, there is none to write to: that is said.

    Raises:
      StoreError: The database cannot be used.
    """
    from tether.store.addresses import database_url

    file = database_url(settings.database.url).database
    if settings.is_default("database.url") and not (file and os.path.exists(file)):
        say_aside("Not in the audit log: this machine has no database (see database.url).")
        yield Unaudited()
        return
    with open_store(settings) as store:
        yield audited(store)


class Unaudited:
    """Stands for the audit log where there is none."""

    def elsewhere(self, act: Act, function: Callable[[], _Answer]) -> _Answer:
        """Do the act."""
        return function()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
