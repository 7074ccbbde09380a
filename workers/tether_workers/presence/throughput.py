"""How many tokens a second a worker can generate with all its slots busy, learned from its time at work."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
"""Of decoding, however many slots: what is older counts for half, a quarter, and so on."""

MIN_SECONDS = 1.0
"""For so long so many slots must have decoded together until their rate says something."""


@dataclass
class _Measured:
    """What was decoded while so many slots were busy: tokens, and seconds of each slot added up."""

    tokens: float = 0.0
    seconds: float = 0.0

    def age(self, share: float) -> None:
        self.tokens *= share
        self.seconds *= share


class DecodeThroughput:
    """Measures the rate of one slot by how many slots decode beside it, since a batch slows each of its jobs.

    A job's first tokens count for nothing, as it is prefill that takes their time. Safe to use from many
    threads.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
          clock: Seconds, of a clock that only goes on.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._measured: defaultdict[int, _Measured] = defaultdict(_Measured)
        self._decoding = 0
        self._since = clock()
        self._age = 0.0

    def begin(self) -> None:
        """One more job is being decoded."""
        with self._lock:
            self._pass_time()
            self._decoding += 1

    def end(self) -> None:
        """One job fewer is being decoded."""
        with self._lock:
            self._pass_time()
            self._decoding -= 1

    def add(self, tokens: int) -> None:
        """A job that is being decoded has got so many tokens."""
        with self._lock:
            self._measured[self._decoding].tokens += tokens

    def tokens_per_second(self, slots: int) -> float:
        """Of so many slots that are all busy: their number times the rate of one, as it was measured with the
        most of them busy. 0 where nothing is known."""
        with self._lock:
            self._pass_time()
            known = [
                busy for busy, each in self._measured.items() if busy and each.seconds >= MIN_SECONDS * busy
            ]
            if not known:
                return 0.0
            fullest = self._measured[max(known)]
            return slots * fullest.tokens / fullest.seconds

    def _pass_time(self) -> None:
        now = self._clock()
        passed, self._since = now - self._since, now
        if not self._decoding:
            return
        self._measured[self._decoding].seconds += passed * self._decoding
        self._age += passed
        if self._age >= WINDOW_SECONDS:
            # All alike: what was measured with more slots busy is of an engine that may be another by now.
            for each in self._measured.values():
                each.age(0.5 ** (self._age / WINDOW_SECONDS))
            self._age = 0.0
