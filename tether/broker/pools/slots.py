"""Slots: what a worker process can run at once, and which drawn jobs fill it."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from tether.broker.pools.worker_port import DrawnJob
from tether.ids import DrawId, TenantId


class Slots:
    """Counts free slots, and keeps the drawn jobs that no thread has begun. Safe to use from many threads.

    It lives as long as the worker: consumers come and go with connections.
    """

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
          count: How many jobs can run at once.
          clock: Monotonic seconds.
        """
        self.count = count
        self._clock = clock
        self._proved_at: dict[DrawId, float] = {}
        self._changed = threading.Condition()
        self._held: dict[DrawId, DrawnJob] = {}
        self._waiting: deque[DrawnJob] = deque()
        self._is_stopped = False
        self._is_paused = False

    @property
    def outstanding(self) -> int:
        """How many slots are filled."""
        with self._changed:
            return len(self._held)

    @property
    def free(self) -> int:
        """How many more jobs may be drawn: none beside one that must run alone still, none at rest."""
        with self._changed:
            return self._free()

    def _free(self) -> int:
        now = self._clock()
        if self._rests() or any(at > now for at in self._proved_at.values()):
            return 0
        return max(self.count - len(self._held), 0)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing is ever drawn again."""
        return self._is_stopped

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing shall be drawn now: stopped or paused."""
        return self._rests()

    def _rests(self) -> bool:
        return self._is_stopped or self._is_paused

    def fill(self, jobs: Sequence[DrawnJob]) -> bool:
        """Give each job a slot, to be handed out. At rest, do nothing and return False."""
        with self._changed:
            if self._rests():
                return False
            self._held.update((drawn.fence.draw_id, drawn) for drawn in jobs)
            now = self._clock()
            self._proved_at.update(
                (drawn.fence.draw_id, now + drawn.proof / 1000 if drawn.proof else math.inf)
                for drawn in jobs
                if drawn.alone
            )
            self._waiting.extend(jobs)
            return True

    def hand_out(self) -> DrawnJob | None:
        """The next job that was not handed out."""
        with self._changed:
            return self._waiting.popleft() if self._waiting and not self._rests() else None

    def running(self) -> dict[TenantId, int]:
        """How many slots each tenant fills."""
        with self._changed:
            return Counter(drawn.tenant for drawn in self._held.values())

    def position(self, draw_id: DrawId) -> int:
        """How many slots the tenant of a draw filled when it got this one: so many are of earlier draws."""
        with self._changed:
            earlier = itertools.takewhile(lambda each: each != draw_id, self._held)
            its = self._held.get(draw_id)
            return sum(its is not None and self._held[each].tenant == its.tenant for each in earlier)

    def find(self, draw_id: DrawId) -> DrawnJob | None:
        """The job of a draw, while it fills a slot."""
        with self._changed:
            return self._held.get(draw_id)

    def clear(self, draw_id: DrawId) -> None:
        """Free the slot of a job that has ended. A second call does nothing."""
        with self._changed:
            self._drop(draw_id)
            self._changed.notify_all()

    def _drop(self, draw_id: DrawId) -> None:
        self._held.pop(draw_id, None)
        self._proved_at.pop(draw_id, None)

    def take_back(self) -> tuple[DrawnJob, ...]:
        """All jobs that were not handed out; their slots are freed."""
        with self._changed:
            jobs = tuple(self._waiting)
            self._waiting.clear()
            for drawn in jobs:
                self._drop(drawn.fence.draw_id)
            self._changed.notify_all()
            return jobs

    def wait_for_free(self, timeout: float) -> bool:
        """Wait up to so many seconds for a free slot. At rest, return False immediately."""
        with self._changed:
            self._changed.wait_for(lambda: self._rests() or self._free() > 0, timeout)
            return self._free() > 0

    def wait_for_rest(self, timeout: float) -> bool:
        """Wait up to so many seconds until nothing shall be drawn: stopped or paused."""
        with self._changed:
            return self._changed.wait_for(self._rests, timeout)

    def wait_while_paused(self, timeout: float) -> bool:
        """Wait up to so many seconds while drawing is paused, and return whether it may continue."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or not self._is_paused, timeout)
            return not self._rests()

    def pause(self) -> None:
        """Draw and hand out nothing until :meth:`resume`. What was handed out goes on."""
        self._set_paused(True)

    def resume(self) -> None:
        """Draw again. Once stopped, this changes nothing."""
        self._set_paused(False)

    def _set_paused(self, is_paused: bool) -> None:
        with self._changed:
            self._is_paused = is_paused
            self._changed.notify_all()

    def stop_drawing(self) -> None:
        """Draw and hand out nothing more, for good."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
