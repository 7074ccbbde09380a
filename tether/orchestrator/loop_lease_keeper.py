"""Holds the leases of the loops of one process: of several orchestrators, one runs each loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from tether.loops import IDLE
from tether.store.loop_leases import give_up_lease, take_lease
from tether.store.store import Store

LIFE_MS = 3_000
"""How long a dead orchestrator's loops stand still, at most."""

RENEWAL_SECONDS = 0.75
"""How often a lease is renewed."""

SAFETY_SECONDS = 0.5
"""A lease counts as lost here so long before it is another's: clocks of two hosts differ a little."""


class KeepLeases:
    """Takes and renews leases. It is itself the step of a loop, which needs none."""

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        holder: str,
        *,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          names: Of the loops.
          holder: Of this process: a name that no other has.
        """
        self._store = store
        self._names = tuple(names)
        self._holder = holder
        self._now_ms = now_ms
        self._clock = clock
        self._held_until = dict.fromkeys(names, 0.0)

    def __call__(self) -> float:
        asked_at = self._clock()
        held = self._store.write_alone(_take_all, self._names, self._holder, self._now_ms()).result()
        for name in self._names:
            until = asked_at + LIFE_MS / 1000 - SAFETY_SECONDS
            self._held_until[name] = until if name in held else 0.0
        return IDLE

    def holds(self, name: str) -> bool:
        """Whether this process may run the loop now."""
        return self._clock() < self._held_until[name]

    def give_up(self) -> None:
        """Free all leases for the next."""
        self._held_until = dict.fromkeys(self._names, 0.0)
        self._store.write_alone(_give_up_all, self._names, self._holder).result()


def _take_all(connection: Connection, names: Sequence[str], holder: str, now_ms: int) -> set[str]:
    return {name for name in sorted(names) if take_lease(connection, name, holder, now_ms, LIFE_MS)}


def _give_up_all(connection: Connection, names: Sequence[str], holder: str) -> None:
    for name in sorted(names):
        give_up_lease(connection, name, holder)
