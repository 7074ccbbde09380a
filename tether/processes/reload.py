"""A reload: children are restarted one by one, and the next one only when the last is as good as before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from tether.processes.children import ChildProcess

MAX_RETIRED = 2
"""Former processes of a child that may still be leaving when the next one is started beside it: each has its
memory, and its connections to the database."""


class Reload:
    """Says whose turn it is. It owns nothing."""

    def __init__(self) -> None:
        self._queue: deque[str] = deque()
        self._name: str | None = None
        self._former: ChildProcess | None = None
        self._was_ready = self._had_loaded = False

    def begin(self, names: Iterable[str], working: Mapping[str, ChildProcess]) -> None:
        """Restart these, in order. A reload under way is begun anew, and waits no longer for a child that has
        failed, or that has not loaded what it is to load.

        Args:
          working: The processes that do the work, by name.
        """
        self._queue = deque(names)
        self._had_loaded = False
        if self._name not in working:
            self._was_ready = False

    def next(
        self,
        working: Mapping[str, ChildProcess],
        successors: Mapping[str, ChildProcess],
        retired: Sequence[ChildProcess],
    ) -> str | None:
        """Return the child to restart now; None where one is to be waited for, or all were restarted.

        The one before it is waited for until its new process is ready and has loaded what it is to load, as
        far as its former one was and had: a program that cannot run takes no second child down, and a child
        that could not run before holds up no other. Of the former processes of one child, only
        :data:`MAX_RETIRED` may be leaving at that.

        Args:
          working: The processes that do the work, by name.
          successors: Those that shall take their places.
          retired: Those that have left their places to others, and not ended yet.
        """
        if not self._queue or self._is_waiting(working, successors):
            return None
        if sum(one.child.name == self._queue[0] for one in retired) >= MAX_RETIRED:
            return None
        self._name = self._queue.popleft()
        self._former = former = working.get(self._name)
        self._was_ready = former is not None and former.is_ready
        self._had_loaded = former is not None and former.has_loaded
        return self._name

    def _is_waiting(
        self, working: Mapping[str, ChildProcess], successors: Mapping[str, ChildProcess]
    ) -> bool:
        if self._name is None:
            return False
        if self._name in successors:
            return True
        running = working.get(self._name)
        if running is None or not running.is_ready:
            # One that is asked to stop has its limit; until then nothing new can be there.
            return self._was_ready or (running is not None and running is self._former)
        return self._had_loaded and not running.has_loaded
