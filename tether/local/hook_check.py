"""The check of `tether doctor` that imports the hooks that the settings name."""

from __future__ import annotations

from tether.errors import ConfigError
from tether.local.doctor import Check, CheckStatus
from tether.processes.hook_process import try_death_hook


def check_death_hook(name: str) -> Check:
    """Check that the hook of dead letters can be imported here.

    Args:
      name: ``hooks.on_dead`` of the settings.
    """
    if not name:
        return Check("hook on_dead", CheckStatus.OK, "none is set")
    try:
        try_death_hook(name)
    except ConfigError as error:
        found, _, mend = str(error).partition("; ")
        return Check("hook on_dead", CheckStatus.FAIL, found, mend or "correct hooks.on_dead")
    return Check("hook on_dead", CheckStatus.OK, f"{name} can be imported")
