"""The check of `tether doctor` that imports the hooks that the settings name."""

from __future__ import annotations

from tether.errors import ConfigError
from tether.hooks import load_death_hook
from tether.local.doctor import Check, CheckStatus


def check_death_hook(name: str) -> Check:
    """Check that the hook of dead letters can be imported here.

    Args:
      name: ``hooks.on_dead`` of the settings.
    """
    if not name:
        return Check("hook on_dead", CheckStatus.OK, "none is set")
    try:
        load_death_hook(name)
    except ConfigError as error:
        found, _, mend = str(error).partition("; ")
        return Check("hook on_dead", CheckStatus.FAIL, found, mend or "correct hooks.on_dead")
    return Check("hook on_dead", CheckStatus.OK, f"{name} can be imported")
