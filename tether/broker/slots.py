"""Slots: what a worker process can run at once, and which drawn jobs fill it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from tether.broker.worker_port import Drawn


class Slots:
    """Counts free slots, and keeps the drawn jobs that no thread has begun. Safe to use from many threads.

    It lives as long as the worker: consumers come and go with connections.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._changed = threading.Condition()
        self._held: dict[str, Drawn] = {}
        self._waiting: deque[Drawn] = deque()
        self._is_stopped = False

    @property
    def outstanding(self) -> int:
        """How many slots are filled."""
        with self._changed:
            return len(self._held)

    @property
    def free(self) -> int:
        """How many more jobs may be drawn: none beside one that must run alone, none once stopped."""
        with self._changed:
            return self._free()

    def _free(self) -> int:
        if self._is_stopped or any(drawn.alone for drawn in self._held.values()):
            return 0
        return max(self.count - len(self._held), 0)

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped

    def fill(self, jobs: Sequence[Drawn]) -> bool:
        """Give each job a slot, to be handed out. Answers False, and does nothing, once stopped."""
        with self._changed:
            if self._is_stopped:
                return False
            self._held.update((drawn.fence.draw_id, drawn) for drawn in jobs)
            self._waiting.extend(jobs)
            return True

    def hand_out(self) -> Drawn | None:
        """The next job that was not handed out."""
        with self._changed:
            return self._waiting.popleft() if self._waiting and not self._is_stopped else None

    def find(self, draw_id: str) -> Drawn | None:
        """The job of a draw, while it fills a slot."""
        with self._changed:
            return self._held.get(draw_id)

    def clear(self, draw_id: str) -> None:
        """Free the slot of a job that has ended. A second call does nothing."""
        with self._changed:
            self._held.pop(draw_id, None)
            self._changed.notify_all()

    def take_back(self) -> tuple[Drawn, ...]:
        """All jobs that were not handed out; their slots are freed."""
        with self._changed:
            jobs = tuple(self._waiting)
            self._waiting.clear()
            for drawn in jobs:
                self._held.pop(drawn.fence.draw_id, None)
            self._changed.notify_all()
            return jobs

    def wait_for_free(self, timeout: float) -> bool:
        """Wait up to so many seconds for a free slot. Answers at once, with False, once stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._free() > 0, timeout)
            return self._free() > 0

    def wait_for_stop(self, timeout: float) -> bool:
        """Wait up to so many seconds until nothing shall be drawn any more."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopped, timeout)

    def stop_drawing(self) -> None:
        """Draw and hand out nothing more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
