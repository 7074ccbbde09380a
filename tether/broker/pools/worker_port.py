"""The worker port: the interface between a worker and the pools, independent of its transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tether.broker.pools.carried_job import CarriedJob
from tether.broker.pools.draw_limits import NO_LIMITS, DrawLimits
from tether.ids import BootId, JobId, PoolName
from tether.jobs import JobError
from tether.outcomes import Fence

MAX_AVOID_MS = 10_000
"""No longer does a hint of :meth:`WorkerPort.release` count."""


class WriteStatus(StrEnum):
    """What became of a write.

    Values:
      OK: It was accepted.
      CANCELLED, EXPIRED: It was accepted, and the attempt must end with this kind.
      FENCED: Another attempt has the job; nothing was written, and later writes will be rejected too.
      OFFSET: The stream is at another offset; nothing was written.
      UNKNOWN: Redis does not have the job.
      INVALID: No attempt of this job can write this; nothing was written.
      UNREADABLE: What Redis holds of the job is damaged: it was handed back, and is placed anew.
    """

    OK = "ok"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FENCED = "fenced"
    OFFSET = "offset"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class DrawnJob(CarriedJob):
    """A job that a worker has drawn: its attempt has begun.

    Attributes:
      fence: The fencing token of this attempt's writes.
      run: The stream's run.
      offset: Number of tokens of earlier attempts; this one continues there.
      made: Those tokens: data of the stream's deltas, in order.
      alone: Whether the worker must run nothing beside it but what came with it in the same draw.
      proof: Milliseconds after which a job that runs alone has shown that it does not end its process: others
        may run beside it then. 0: when it has ended.
      lossy: Whether Redis may have lost tokens that clients have seen. An engine that is not deterministic
        starts a new run then.
      deaths: Number of workers that died while running it.
    """

    fence: Fence
    run: int = 0
    offset: int = 0
    made: tuple[bytes, ...] = ()
    alone: bool = False
    proof: int = 0
    lossy: bool = False
    deaths: int = 0


@dataclass(frozen=True)
class DrawResult:
    """Result of :meth:`WorkerPort.draw`.

    Attributes:
      jobs: The drawn jobs.
      again_in_ms: When to draw again without being woken; 0 if unknown.
      passed_over: How many tenants with waiting jobs were passed over for the limits of the draw: each counts
        once in each pool and priority in which it was come by.
    """

    jobs: tuple[DrawnJob, ...]
    again_in_ms: int = 0
    passed_over: int = 0


class PoolReadiness(StrEnum):
    """What a worker is for one of its pools.

    Values:
      WARM: It has loaded the model, and draws.
      LOADING: It is loading it.
      SLOW: The same, for so long that others may load it too.
      COLD: It could load it.
      ASKED: The same, and it was told to ask again.
      FAILING: It has just failed to load it, not for the first time.
      PAUSED: It failed to load it, and tries again later.
      AWAY: It takes no jobs now.
    """

    WARM = "warm"
    LOADING = "loading"
    SLOW = "slow"
    COLD = "cold"
    ASKED = "asked"
    FAILING = "failing"
    PAUSED = "paused"
    AWAY = "away"


class LoadAdvice(StrEnum):
    """What a worker should do about a pool that it has not loaded.

    Values:
      NONE: Nothing: no work waits there, or others take it.
      AGAIN: Ask again soon: work waits, and those that have loaded it may be about to take it.
      LOAD: Load it.
      TELL: Work waits, and nobody has loaded it: say of the jobs why they cannot be run.
    """

    NONE = "none"
    AGAIN = "again"
    LOAD = "load"
    TELL = "tell"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Tokens that an attempt generated since its last write.

    Attributes:
      job_id, fence: The job and attempt.
      run: The stream's run; a higher one than before if ``restarted``.
      offset: Offset of the first token.
      count: Number of tokens.
      data: The event's data, in JSON; empty if there are no tokens.
      restarted: Opens a new run at ``offset``, without tokens.
    """

    job_id: JobId
    fence: Fence
    run: int
    offset: int
    count: int = 0
    data: bytes = b"{}"
    restarted: bool = False


@dataclass(frozen=True)
class WriteResult:
    """Result of one write: its status, and the stream's offset."""

    answer: WriteStatus
    offset: int


@dataclass(frozen=True)
class Pulse:
    """One running attempt in a beat; ``renew`` if it stepped since the last one, or is loading."""

    job_id: JobId
    fence: Fence
    renew: bool


class WorkerPort(Protocol):
    """The calls of a worker. Thread-safe.

    Each raises ``OUTAGE_ERRORS`` if the server is unavailable (the write may have been executed: it can be
    retried), and :class:`~tether.errors.EpochChanged` if all attempts of this worker are void.
    """

    def hello(self) -> int:
        """Fetch the epoch, which all other calls carry from then on."""

    def draw(
        self,
        count: int,
        pools: Sequence[PoolName],
        *,
        busy: bool,
        wait_seconds: float = 0.0,
        limits: DrawLimits = NO_LIMITS,
    ) -> DrawResult:
        """Draw up to ``count`` jobs, after waiting for the bell if ``wait_seconds`` is not 0.

        Only one thread at a time may draw.

        Args:
          limits: How many of one tenant, as known before the wait. Tenants without any left are passed over,
            and nobody wakes this worker for their jobs.

        Raises:
          WorkerRevoked: The worker's key was revoked. Its current attempts go to other workers.
          WorkerOutranked: Another process draws with the worker's key.
        """

    def ring(self) -> None:
        """End the wait of a draw in another thread, or that of the next one."""

    def demand(self, pools: Sequence[tuple[PoolName, PoolReadiness]]) -> list[LoadAdvice]:
        """Say which pools this worker has loaded, and learn which it should load: one advice for each."""

    def append_many(self, growths: Sequence[Growth]) -> list[WriteResult]:
        """Append tokens to streams, and renew the attempts' leases."""

    def finish(self, growth: Growth, *, input_tokens: int, reason: str) -> WriteResult:
        """End an attempt successfully, with its last tokens."""

    def fail(self, growth: Growth, *, kind: str, error: JobError) -> WriteResult:
        """End an attempt unsuccessfully: ``failed``, ``cancelled`` or ``expired``."""

    def release(self, growth: Growth, *, to_tail: bool = False, avoid_ms: int | None = None) -> WriteResult:
        """Hand the job over to another worker, which continues at its offset.

        Args:
          to_tail: It waits behind its tenant's other jobs, not in front of them.
          avoid_ms: A hint: for so long this worker is not given it again, up to :data:`MAX_AVOID_MS`. None:
            for two seconds.
        """

    def beat(self, pulses: Sequence[Pulse]) -> list[WriteStatus]:
        """Renew leases, and return cancellations and expiries."""

    def gone(self, boot_id: BootId, process: str, how: str) -> bool:
        """Say for a process that has ended what it cannot say itself: its attempts are handed back at once.

        Args:
          boot_id: What it drew under.
          process: Its name in its draws, which nobody else knows.
          how: ``ended`` or ``host`` where no job can be the cause, ``signal <number>``, ``exit <status>``,
            ``oom``, ``memory`` or ``unknown``.

        Returns:
          Whether it was believed, now or before.
        """

    def submit(self, job_id: JobId, fence: Fence, token: str, request: bytes) -> WriteStatus:
        """Submit a new job for the tenant of a job that runs: a request in JSON. The same token is the same
        job."""
