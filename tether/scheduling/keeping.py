"""For how long a worker keeps itself free for jobs that must run alone, or apart, while others wait for it.

Such jobs begin in a process that runs nothing. A worker that runs something draws nothing more until that has
ended: a stream may take minutes, and its other slots stand empty. So others wait only so long, and then they
come first for several times as long; the next time it may take longer, so that the turn comes in the end.
A worker that did so for one of its pools keeps itself free for no other until the time of others is over.
The script ``draw`` decides this in one step with what it writes; tests compare it with this module.
``docs/decisions/blame.md`` says why it is so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_PATIENCE_MS, MAX_PATIENCE_MS = 5_000, 300_000
"""So long do others wait for a worker at first, and at most."""

OTHERS_SHARE = 3
"""For so many times as long as they waited others come first then."""

PATIENCE_MEMORY_MS = 3_600_000
"""So long after that it is known how long they waited."""


@dataclass(frozen=True)
class Keeping:
    """What a pool's jobs have lost to a worker that keeps itself free.

    Attributes:
      lost_ms: For how long it has drawn nothing while others waited.
      patience_ms: For how long it may, where the last time is not long ago.
      open_until_ms: Until then none keeps itself free.
    """

    lost_ms: int = 0
    patience_ms: int = FIRST_PATIENCE_MS
    open_until_ms: int = 0

    def after_draw(self, waited_ms: int, now_ms: int) -> tuple[Keeping, bool]:
        """It draws, others having waited for so long since it last did. Returns what is known then, and
        whether it keeps itself free."""
        lost = self.lost_ms + waited_ms
        if self.open_until_ms > now_ms:
            return self, False
        is_known = self.open_until_ms + PATIENCE_MEMORY_MS > now_ms
        patience = self.patience_ms if is_known else FIRST_PATIENCE_MS
        if lost >= patience:
            return _stopped(lost, 2 * patience, now_ms), False
        return replace(self, lost_ms=lost), True

    def after_beginning(self, now_ms: int) -> Keeping:
        """A turn begins for which one kept itself free: the next may take as long."""
        return _stopped(self.lost_ms, self.lost_ms, now_ms)


def _stopped(lost_ms: int, patience_ms: int, now_ms: int) -> Keeping:
    patience = min(MAX_PATIENCE_MS, max(FIRST_PATIENCE_MS, patience_ms))
    return Keeping(0, patience, now_ms + OTHERS_SHARE * lost_ms)
