"""That a process was asked to stop, told by a handler of signals to the thread that the signal interrupts."""

from __future__ import annotations

import contextlib
import queue


class StopRequest:
    """Set once, by whoever asks; waited for by the main thread.

    A ``threading.Event`` will not do: its lock is held for a moment by who begins to wait, and a handler that
    sets it in that moment, in that thread, waits for the lock for ever. A ``SimpleQueue`` may be put to from
    there (https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put).
    """

    def __init__(self) -> None:
        self._is_set = False
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Ask. From any thread, and from handlers of signals; again it changes nothing."""
        self._is_set = True
        self._news.put(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is asked for, for so many seconds at most; return whether it was."""
        if not self._is_set:
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=timeout)
        return self._is_set
