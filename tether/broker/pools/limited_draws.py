"""The limits of one consumer's draws: what the next one is told, and how long it may wait for its bell."""

from __future__ import annotations

import contextlib

from tether.broker.pools.draw_limits import NO_LIMITS, DrawLimiter, DrawLimits
from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import DrawResult, WorkerPort
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.ids import DrawId, TenantId
from tether.telemetry import metrics


class LimitedDraws:
    """Sees to it that no tenant waits for a slot that it may have: nobody wakes a worker for jobs that it
    passes over, and a draw that waits for its bell knows the limits of before.

    :meth:`next` and :meth:`note` are for the thread that draws, :meth:`free` for any.
    """

    def __init__(self, port: WorkerPort, slots: Slots, limiter: DrawLimiter | None) -> None:
        """
        Args:
          port: Whose draws these are.
          slots: Whose jobs count.
          limiter: How many slots one tenant may fill; None: all.
        """
        self._port = port
        self._slots = slots
        self._limiter = limiter
        self._passed_over: frozenset[TenantId] = frozenset()
        self._may_wait = False
        if limiter is not None:
            limiter.on_tightened(self._end_wait)

    def next(self, wait_seconds: float) -> tuple[DrawLimits, float]:
        """The limits of the next draw, and for how many seconds, so many at most, it may wait."""
        if self._limiter is None:
            return NO_LIMITS, wait_seconds
        former, self._may_wait = self._passed_over, True
        while True:
            running = self._slots.running()
            limits = self._limiter.limits(running)
            self._passed_over = limits.passed_over
            # From here on who frees a slot of such a tenant rings. What was freed before is seen here.
            if running == self._slots.running():
                break
        if former - limits.passed_over:
            # Jobs may wait that it may have now.
            return limits, 0.0
        if limits.again_in_seconds is not None:
            return limits, min(wait_seconds, limits.again_in_seconds)
        return limits, wait_seconds

    def note(self, limits: DrawLimits, draw: DrawResult) -> None:
        """A draw with these limits was answered."""
        self._may_wait = False
        self._passed_over = limits.after(drawn.tenant for drawn in draw.jobs).passed_over
        if draw.passed_over:
            metrics.TENANT_SHARES.labels(action="passed_over").inc(draw.passed_over)

    def free(self, draw_id: DrawId) -> None:
        """Free the slot of a job that has ended. A draw that waits while this tenant is passed over waits no
        longer."""
        drawn = self._slots.find(draw_id)
        self._slots.clear(draw_id)
        if drawn is not None and drawn.tenant in self._passed_over:
            self._end_wait()

    def _end_wait(self) -> None:
        """Let a draw that waits come to its end: the next one has the limits of now."""
        if self._may_wait:
            # In an outage none waits for its bell.
            with contextlib.suppress(*OUTAGE_ERRORS):
                self._port.ring()
