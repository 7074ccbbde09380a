"""Whether a worker process draws for its key, or another process that has the same key does."""

from __future__ import annotations

from collections.abc import Callable

from tether.ids import BootId


def _nobody() -> None:
    pass


def _stay(above: int) -> BootId | None:
    return None


class WorkerRank:
    """Of the processes with one key that of the greatest boot counter draws, of equal ones the first.

    Changed by the thread that draws; read by any.

    Attributes:
      is_outranked: Whether another one draws.
    """

    def __init__(self, rise: Callable[[int], BootId | None] = _stay) -> None:
        """
        Args:
          rise: Gives the worker a boot counter greater than the given one, and returns its new boot id; None
            where it keeps its own.
        """
        self.is_outranked = False
        self.rise_above = rise
        self._on_change: Callable[[], object] = _nobody

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which must be quick, when that changes."""
        self._on_change = callback

    def note(self, *, is_outranked: bool) -> None:
        """A draw has shown whether another process draws."""
        if is_outranked is not self.is_outranked:
            self.is_outranked = is_outranked
            self._on_change()
