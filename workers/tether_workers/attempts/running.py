"""The attempts of this process that have not ended: kept from draw to end."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tether.broker.pools.worker_port import DrawnJob
from tether.ids import DrawId, TenantId
from tether_workers.attempts.attempt import Attempt, AttemptEnding, AttemptPhase
from tether_workers.presence.throughput import DecodeThroughput


class Attempts:
    """Keeps them from the draw to the end. Safe to use from many threads.

    Attributes:
      throughput: Of all of them together.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        on_unwritten: Callable[[Attempt], None],
        on_began: Callable[[Attempt], None] = lambda attempt: None,
        on_generated: Callable[[TenantId, int], None] | None = None,
    ) -> None:
        """
        Args:
          clock: Seconds.
          on_unwritten: Called where an attempt has something to write.
          on_began: Called once an attempt is kept.
          on_generated: Told how many tokens a tenant's engine has generated, as they come.
        """
        self.throughput = DecodeThroughput(clock)
        self._clock = clock
        self._on_unwritten = on_unwritten
        self._on_began = on_began
        self._on_generated = on_generated
        self._changed = threading.Condition()
        self._running: dict[DrawId, Attempt] = {}

    def began(self, drawn: DrawnJob) -> None:
        """Keep a job that was drawn."""
        attempt = Attempt(
            drawn,
            clock=self._clock,
            on_unwritten=self._on_unwritten,
            throughput=self.throughput,
            on_generated=self._on_generated,
        )
        with self._changed:
            self._running[drawn.fence.draw_id] = attempt
        self._on_began(attempt)

    def gave_back(self, drawn: DrawnJob) -> None:
        """Forget a job that is no longer this worker's."""
        self.forget(drawn.fence.draw_id)

    def all_void(self) -> None:
        """Redis has lost what all attempts until now stand on."""
        self.end_all(AttemptEnding.DROP)

    def find(self, draw_id: DrawId) -> Attempt | None:
        with self._changed:
            return self._running.get(draw_id)

    def all(self) -> tuple[Attempt, ...]:
        with self._changed:
            return tuple(self._running.values())

    def end_all(self, ending: AttemptEnding) -> None:
        """Let all attempts end."""
        for attempt in self.all():
            attempt.end(ending)

    def forget(self, draw_id: DrawId) -> None:
        """An attempt has ended. A second call does nothing."""
        with self._changed:
            ended = self._running.pop(draw_id, None)
            self._changed.notify_all()
        if ended is not None:
            ended.enter(AttemptPhase.ENDING)

    def wait_until_none(self, timeout: float) -> bool:
        """Wait up to so many seconds until all have ended."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)
