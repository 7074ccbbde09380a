"""How many tokens of a prompt a worker reads in a second, learned from the first tokens of its jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable

MIN_PROMPT_TOKENS = 64
"""What shorter prompts take is not their reading, but a step of the engine, however few tokens it reads."""

MIN_TOKENS = 256
"""So many must have been read until their rate says something."""

WINDOW_SECONDS = 60.0
"""Of reading: what is older counts for half, a quarter, and so on."""


class PrefillThroughput:
    """Measures how fast prompts are read, as a job sees it: with whatever the engine does beside. Safe to use
    from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = 0.0
        self._seconds = 0.0

    def add(self, tokens: int, *, first_seconds: float, step_seconds: float) -> None:
        """A job has got its first tokens.

        Args:
          tokens: What was read before them: its prompt, and what earlier attempts generated.
          first_seconds: How long they took to come.
          step_seconds: How long the next ones took: that much of the first is decoding.
        """
        if tokens < MIN_PROMPT_TOKENS:
            return
        with self._lock:
            self._tokens += tokens
            # Where it is less than nothing, that makes up for one where it was too much.
            self._seconds += first_seconds - step_seconds
            if self._seconds >= WINDOW_SECONDS:
                self._tokens /= 2
                self._seconds /= 2

    def tokens_per_second(self, most: float) -> float:
        """Read of one prompt, ``most`` at most; 0 where nothing is known."""
        with self._lock:
            if self._tokens < MIN_TOKENS:
                return 0.0
            return self._tokens / max(self._seconds, self._tokens / most)


class PromptTimer:
    """Times the first tokens of one job, from its making on. For one thread."""

    def __init__(self, throughput: PrefillThroughput, tokens: int, clock: Callable[[], float]) -> None:
        """
        Args:
          tokens: What the engine reads before it generates.
          clock: Seconds.
        """
        self._throughput = throughput
        self._tokens = tokens
        self._clock = clock
        self._begun = clock()
        self._first: float | None = None
        self._is_done = tokens < MIN_PROMPT_TOKENS

    def step(self) -> None:
        """The engine has generated tokens."""
        if self._is_done:
            return
        now = self._clock()
        if self._first is None:
            self._first = now
            return
        self._is_done = True
        first_seconds, step_seconds = self._first - self._begun, now - self._first
        self._throughput.add(self._tokens, first_seconds=first_seconds, step_seconds=step_seconds)
