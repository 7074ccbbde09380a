"""How attempts ended, as the scripts note it: one record for each draw of a job, whatever became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tether.ids import BootId, DrawId, PoolName

MAX_COUNT = 2**31 - 1
"""Greatest number that a column of the database holds."""

MAX_TIME_MS = 2**53


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """The end of one attempt, in the log of its job's hash.

    Times are by Redis's clock, in milliseconds since the epoch.

    Attributes:
      dispatch, attempt, draw_id: Its fence.
      pool: Where it was drawn.
      run, offset: Where the stream stood when it ended.
      started_at, start_offset: When it was drawn, and where the stream stood then; 0 where an older version
        drew it.
      cause: Why it ended: ``succeeded``, ``failed``, ``cancelled``, ``expired``, ``lease_lost``,
        ``released``, ``revoked``, ``died`` (its process did), ``gone`` (its process ended, and no job was the
        cause), ``withdrawn``, ``superseded`` (a newer dispatch took its place), ``sealed``
        (the database ended the job by itself), ``unreadable`` (what Redis held of the job), or another word
        of a newer version.
      went: Where the job went: ``pool`` (it waited there again), ``database`` (which decided) or ``end``.
      evidence: What else is known of the cause.
    """

    dispatch: int
    attempt: int
    draw_id: DrawId
    pool: PoolName
    run: int
    offset: int
    started_at: int
    start_offset: int
    ended_at: int
    cause: str
    went: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for count in (self.dispatch, self.attempt, self.run, self.offset, self.start_offset):
            if not 0 <= count <= MAX_COUNT:
                raise ValueError(f"{count} is not from 0 to {MAX_COUNT}")
        for text in (self.draw_id, self.pool, self.cause, self.went):
            # A database takes neither these nor half of a surrogate pair.
            if "\0" in text or not text.isprintable():
                raise ValueError(f"{text!r} is not printable")
        for time_ms in (self.started_at, self.ended_at):
            if not 0 <= time_ms <= MAX_TIME_MS:
                raise ValueError(f"{time_ms} is not from 0 to {MAX_TIME_MS}")

    @property
    def worker(self) -> BootId:
        """Boot id of the worker that drew it."""
        return BootId(self.draw_id.rpartition(":")[0])
