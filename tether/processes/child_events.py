"""What a supervisor tells of its children."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChildStarted:
    """A process was started."""

    name: str
    pid: int


@dataclass(frozen=True)
class ChildReady:
    """A child said that it does its work."""

    name: str
    pid: int


@dataclass(frozen=True)
class ChildStopping:
    """A child was asked to stop."""

    name: str
    pid: int


@dataclass(frozen=True)
class ChildEnded:
    """A process ended, or could not be started.

    Attributes:
      pid: None where it could not be started.
      how: Its end, in words.
      end: Its end, in the words of :mod:`tether.deaths`; empty where it could not be started.
      restart_in: Seconds until it is started again; 0 where it was asked to end for that; None where it is
        not.
      is_final: Whether it could never run as it is set up, and everything stops for that.
    """

    name: str
    pid: int | None
    how: str
    restart_in: float | None
    is_final: bool = False
    end: str = ""

    @property
    def is_for_reload(self) -> bool:
        """Whether it was asked to end, to be started anew."""
        return self.restart_in == 0


@dataclass(frozen=True)
class ChildReplaced:
    """Another process of a child is ready and does its work; the former one ends in its own time.

    Attributes:
      pid: The new one's. Of the former one no further event tells.
    """

    name: str
    pid: int


ChildEvent = ChildStarted | ChildReady | ChildStopping | ChildEnded | ChildReplaced
