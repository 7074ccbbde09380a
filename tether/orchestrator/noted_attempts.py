"""Tells breakers of the attempts that ended."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import redis

from tether.ids import TenantId
from tether.outcomes import Outcome
from tether.scheduling.known_breakers import KnownBreakers
from tether.scheduling.shared_breakers import SharedBreakers


class NoteAttempts:
    """Called with outcomes once they are settled. Thread-safe."""

    def __init__(self, shared: SharedBreakers, known: KnownBreakers) -> None:
        self._shared = shared
        self._known = known

    def __call__(self, ended: Sequence[tuple[Outcome, TenantId]]) -> None:
        """Note them. Where Redis is away, these attempts say nothing: missing data never blocks."""
        if not self._shared.rules.is_enabled:
            return
        with contextlib.suppress(redis.RedisError):
            # A probe's end frees the way for the next one, also where it says nothing of the model.
            self._shared.note(ended, silent_too=bool(self._known.shut()))
