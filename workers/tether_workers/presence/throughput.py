"""How many tokens a worker makes a second while it is at work."""

from __future__ import annotations

import threading

WEIGHT_OF_NEWEST = 0.2


class Throughput:
    """A smoothed rate: each interval counts for a fifth, those without tokens not at all.

    ``rate = 0.2 * tokens / seconds + 0.8 * rate``, an exponentially weighted moving average. Safe to use
    from many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rate = 0.0
        self._last: tuple[float, int] | None = None

    @property
    def tokens_per_second(self) -> float:
        """0 where nothing is known."""
        return self._rate

    def sample(self, now: float, tokens: int) -> None:
        """Record how many tokens were generated so far.

        Args:
          now: Seconds by a monotonic clock.
          tokens: Number of tokens generated since the worker started.
        """
        with self._lock:
            last, self._last = self._last, (now, tokens)
            if last is None or tokens == last[1] or now <= last[0]:
                return
            newest = (tokens - last[1]) / (now - last[0])
            old = self._rate or newest
            self._rate = WEIGHT_OF_NEWEST * newest + (1 - WEIGHT_OF_NEWEST) * old
