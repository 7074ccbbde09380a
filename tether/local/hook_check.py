"""The check of `tether doctor` of the hooks that the settings name: that they can be imported, and hear."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tether.errors import ConfigError, StoreError
from tether.local.doctor import Check, CheckStatus
from tether.processes.hook_process import try_death_hook
from tether.store import Store
from tether.store.addresses import database_url
from tether.store.letter_hooks import HookBacklog, hook_backlog

NAME = "hook on_dead"

LATE_MS = 300_000
"""A letter should not be due for longer. A hook that fails is called again after shorter pauses."""

MAX_COUNTED = 10_000
"""So many letters are counted at most."""


def check_death_hook(name: str, backlog: Callable[[], HookBacklog | None] = lambda: None) -> Check:
    """Check that the hook of dead letters can be imported here, and has heard of them.

    Args:
      name: ``hooks.on_dead`` of the settings.
      backlog: Reads of what it has not heard; None where that is not known.
    """
    if not name:
        return Check(NAME, CheckStatus.OK, "none is set")
    try:
        try_death_hook(name)
    except ConfigError as error:
        found, _, mend = str(error).partition("; ")
        return Check(NAME, CheckStatus.FAIL, found, mend or "correct hooks.on_dead")
    unheard = backlog()
    if unheard is not None and unheard.failing:
        return Check(
            NAME,
            CheckStatus.WARN,
            f"{name} can be imported here, and failed again and again at {_letters(unheard.failing)}",
            "the orchestrator's log says why (The hook on_dead failed); it is called again by itself",
        )
    if unheard is not None and unheard.late:
        minutes = LATE_MS // 60_000
        return Check(
            NAME,
            CheckStatus.WARN,
            f"{name} has not been called with {_letters(unheard.late)} for more than {minutes} minutes",
            "see that an orchestrator runs, with this setting, and that its log tells of no failed call",
        )
    return Check(NAME, CheckStatus.OK, f"{name} can be imported")


def backlog_at(url: str) -> HookBacklog | None:
    """What the hook has not heard of by this database; None where it cannot be asked."""
    file = database_url(url).database
    if url.startswith("sqlite") and not (file and os.path.exists(file)):
        return None
    try:
        with Store(url).open(migrate=False) as store:
            return store.read(hook_backlog, time.time_ns() // 1_000_000 - LATE_MS, MAX_COUNTED)
    except StoreError:
        return None


def _letters(count: int) -> str:
    return "a dead letter" if count == 1 else f"{count} dead letters"
