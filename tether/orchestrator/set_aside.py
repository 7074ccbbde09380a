"""What a loop does with an entry that it cannot handle: it comes again after a pause that grows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from tether.telemetry import metrics

FIRST_PAUSE_MS = 1_000
MAX_PAUSE_MS = 300_000
MAX_ENTRIES = 10_000
"""So many are remembered. What is forgotten is tried sooner, and nothing else."""

FORGOTTEN_AFTER_MS = 2 * MAX_PAUSE_MS
"""What did not come again for so long after its pause has ended otherwise."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class SetAside:
    """An entry that failed.

    Attributes:
      failures: How often, one after another.
      due_at: When it is tried again, in milliseconds since the epoch.
    """

    failures: int
    due_at: int


def after_failure(former: SetAside | None, now_ms: int) -> SetAside:
    """What follows a failure: a pause that doubles with each one, up to :data:`MAX_PAUSE_MS`.

    Args:
      former: What followed the failure before; None where the entry had not failed.
      now_ms: Milliseconds since the epoch.
    """
    failures = 1 if former is None else former.failures + 1
    pause_ms = min(FIRST_PAUSE_MS << min(failures - 1, 30), MAX_PAUSE_MS)
    return SetAside(failures, now_ms + pause_ms)


class FailedEntries(Generic[Key]):
    """The entries that one loop has set aside. One thread uses it; its memory is bounded.

    Each is logged once, and once more when it is handled after all. Every failure is counted.
    """

    def __init__(
        self, loop: str, log: structlog.stdlib.BoundLogger, *, max_entries: int = MAX_ENTRIES
    ) -> None:
        """
        Args:
          loop: Whose; the label of its metrics.
          log: Where failures are told.
        """
        self._loop = loop
        self._log = log
        self._max_entries = max_entries
        # In the order in which they last failed.
        self._entries: OrderedDict[Key, SetAside] = OrderedDict()
        self._failures = metrics.ENTRIES_FAILED.labels(loop=loop)
        self._count = metrics.ENTRIES_SET_ASIDE.labels(loop=loop)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> SetAside | None:
        """What is known of an entry; None where it has not failed."""
        return self._entries.get(key)

    def is_due(self, key: Key, now_ms: int) -> bool:
        """Whether an entry may be tried now: it has not failed, or its pause is over."""
        self.forget_old(now_ms)
        entry = self._entries.get(key)
        return entry is None or entry.due_at <= now_ms

    def fail(self, key: Key, error: Exception | str, now_ms: int, **about: object) -> SetAside:
        """Set an entry aside that cannot be handled.

        Args:
          about: What the log says of it besides the error.
        """
        former = self._entries.pop(key, None)
        entry = self._entries[key] = after_failure(former, now_ms)
        self._failures.inc()
        if former is None:
            self._log.error(
                "An entry cannot be handled. It is set aside and tried again.",
                loop=self._loop,
                **about,
                error=str(error),
            )
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        self.forget_old(now_ms)
        self._count.set(len(self._entries))
        return entry

    def forget_old(self, now_ms: int) -> None:
        """Forget entries that have not come again long after they were due: they ended another way."""
        while self._is_forgotten(now_ms):
            self._entries.popitem(last=False)
            self._count.set(len(self._entries))

    def _is_forgotten(self, now_ms: int) -> bool:
        oldest = next(iter(self._entries.values()), None)
        return oldest is not None and oldest.due_at + FORGOTTEN_AFTER_MS < now_ms

    def succeed(self, key: Key, **about: object) -> None:
        """An entry was handled, or is no more."""
        if self._entries and (entry := self._entries.pop(key, None)) is not None:
            self._log.info(
                "An entry that was set aside was handled.",
                loop=self._loop,
                **about,
                failures=entry.failures,
            )
            self._count.set(len(self._entries))
