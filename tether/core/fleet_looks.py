"""Looks at a fleet again and again: what changes meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tether.core.fleet_changes import Change, changes, first_look, look_at
from tether.core.fleet_reading import FleetReading

LOOK_SECONDS = 0.2
"""How often the fleet is looked at that is watched."""

AWAY_AFTER_INTERVALS = 1.5
"""Intervals of presence without an answer of Redis after which whoever watches is told."""


class FleetNews(NamedTuple):
    """What is new since the last look.

    Attributes:
      is_away: Whether Redis does not respond, so that the view may be stale; None where that is as it was.
      changes: Of workers.
    """

    is_away: bool | None
    changes: Sequence[Change]


class FleetLooks:
    """Looks at a fleet that is kept up to date. For one thread."""

    def __init__(self, reading: FleetReading) -> None:
        self._reading = reading
        self._max_silence_ms = reading.settings.presence.interval * AWAY_AFTER_INTERVALS
        self._is_away = False
        self._last = look_at(reading.view.fleet, reading.now)

    def present(self) -> FleetNews:
        """All that there is, for somebody who begins to watch: the workers of the last look."""
        return FleetNews(True if self._is_away else None, first_look(self._last))

    def look(self) -> FleetNews:
        """What changed since the last look."""
        reading = self._reading
        is_away = (reading.view.staleness_ms() or 0) > self._max_silence_ms
        has_turned, self._is_away = is_away != self._is_away, is_away
        # Asked before the clock: whom silence has removed must be seen to have been silent for too long.
        fleet, now = reading.view.fleet, reading.now
        before, self._last = self._last, look_at(fleet, now)
        return FleetNews(is_away if has_turned else None, changes(before, self._last, now))
