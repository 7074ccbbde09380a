"""The section `hooks`: functions of users' own that the orchestrator calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tether.config.types import Expected, Milliseconds, Section

MAX_HOOK_NAME = 200
"""Characters of a function's name, with its module."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


class HookSettings(Section):
    """Functions of your own that the orchestrator calls, and how long they may take."""

    on_dead: Annotated[
        str,
        Field(pattern=rf"^({_NAME}(\.{_NAME})*:{_NAME})?$", max_length=MAX_HOOK_NAME),
        Expected("a function's name as module:function, or nothing"),
    ] = ""
    """The function that is called with each new dead letter, as `module:function`; empty: none. See
    [dead letters](../guide/dead-letters.md#a-hook-that-hears-of-them)."""
    time_limit: Milliseconds = 10_000
    """Milliseconds after which a call is ended, and counts as failed."""
