"""Enrols the workers of this machine, so that they are listed and can be revoked like any others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tether.discovery.trust.trusted_keys import keys_in
from tether.store.fleet_keys import enrol_new
from tether.store.store import Store
from tether.telemetry.logs import get_logger

INTERVAL_SECONDS = 1.0
WRITE_SECONDS = 60.0


class EnrolLocalKeys:
    """The step of a loop: enrols the keys in a folder, each under its file's name, once each.

    A key that was revoked stays so.
    """

    def __init__(self, store: Store, folder: Path, *, now_ms: Callable[[], int]) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch.
        """
        self._store = store
        self._folder = folder
        self._now_ms = now_ms
        self._known: set[str] = set()
        self._log = get_logger("tether.local")

    def __call__(self) -> float:
        found = keys_in(self._folder)
        unknown = {key: name for key, name in found.items() if key not in self._known}
        if unknown:
            added = self._store.write_alone(enrol_new, unknown, self._now_ms()).result(WRITE_SECONDS)
            self._known |= unknown.keys()
            if added:
                self._log.info("Workers of this machine were enrolled.", count=added)
        return INTERVAL_SECONDS
