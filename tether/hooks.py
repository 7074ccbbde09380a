"""Functions of users' own that are named in the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import TypeAlias

from tether.dead_letters import DeadLetter
from tether.errors import ConfigError

DeathHook: TypeAlias = Callable[[DeadLetter], object]
"""Hears of a dead letter. What it returns is of no interest; what it raises has it called again later."""


def load_death_hook(name: str) -> DeathHook:
    """The function that ``hooks.on_dead`` names. Its module is imported, which may take any time.

    Args:
      name: ``module:function``.

    Raises:
      ConfigError: There is none, or it cannot be called with a dead letter.
    """
    module, _, function = name.partition(":")
    try:
        hook = getattr(import_module(module), function)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(
            f"hooks.on_dead={name!r} cannot be imported: {type(error).__name__}: {error}; install its "
            "package where the orchestrator runs, or put its folder into PYTHONPATH"
        ) from error
    if not callable(hook) or inspect.iscoroutinefunction(hook):
        raise ConfigError(f"hooks.on_dead={name!r} must be a plain function that takes a dead letter")
    named: DeathHook = hook
    return named
