"""The worker port: all that a worker says about pool jobs, whatever carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tether.jobs import Fence, JobError


class Answer(StrEnum):
    """What became of a write.

    Values:
      OK: It counts.
      CANCELLED, EXPIRED: It counts, and the attempt shall end with this kind.
      FENCED: The attempt is another's by now; nothing was written, and nothing more will be.
      OFFSET: The stream stands elsewhere; nothing was written.
      UNKNOWN: Redis knows no such job.
    """

    OK = "ok"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FENCED = "fenced"
    OFFSET = "offset"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A job that a worker has drawn: its attempt has begun.

    Attributes:
      job_id: Which job.
      fence: What every write of this attempt carries.
      run: The stream's run.
      offset: Tokens that former attempts made; this one goes on there.
      made: Those tokens: data of the stream's deltas, in order.
      pool: Where it was drawn.
      tenant: Whose it is.
      deadline: Milliseconds since the epoch by Redis's clock; 0 is none.
      alone: Whether the worker runs nothing else meanwhile.
      lossy: Whether Redis may have lost tokens that were seen. An engine that does not promise to make the
        same ones again starts a new run.
      deaths: Workers that died while they ran it.
      body: What is to be done, in JSON.
    """

    job_id: str
    fence: Fence
    run: int = 0
    offset: int = 0
    made: tuple[bytes, ...] = ()
    pool: str = ""
    tenant: str = ""
    deadline: int = 0
    alone: bool = False
    lossy: bool = False
    deaths: int = 0
    body: bytes = b"{}"


@dataclass(frozen=True)
class Draw:
    """Answer to :meth:`WorkerPort.draw`.

    Attributes:
      jobs: What was drawn.
      again_in_ms: When to draw again without being woken; 0 where nothing is known.
    """

    jobs: tuple[Drawn, ...]
    again_in_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Tokens that an attempt made since its last write.

    Attributes:
      job_id, fence: Whose.
      run: The stream's run; a higher one than before where ``restarted``.
      offset: Where the tokens begin.
      count: How many they are.
      data: The event's data, in JSON; empty where there are none.
      restarted: Opens a new run at ``offset``, without tokens.
    """

    job_id: str
    fence: Fence
    run: int
    offset: int
    count: int = 0
    data: bytes = b"{}"
    restarted: bool = False


@dataclass(frozen=True)
class Written:
    """Answer to one write: what became of it, and where the stream stands."""

    answer: Answer
    offset: int


@dataclass(frozen=True)
class Pulse:
    """One running attempt in a beat; ``renew`` where it stepped since the last one, or may be silent yet."""

    job_id: str
    fence: Fence
    renew: bool


class WorkerPort(Protocol):
    """Eight verbs, and nothing else. Safe to use from many threads.

    Each raises ``OUTAGE_ERRORS`` where nobody answers (the write may have been carried out: it can be sent
    again), and :class:`~tether.errors.EpochChanged` where all attempts of this worker are void.
    """

    def hello(self) -> int:
        """Learn the epoch, which all other verbs carry from then on."""

    def draw(self, count: int, pools: Sequence[str], *, busy: bool, wait_seconds: float = 0.0) -> Draw:
        """Take up to ``count`` jobs, after the bell rang where ``wait_seconds`` is not 0.

        Only one thread at a time may draw.

        Raises:
          WorkerRevoked: The worker's key was revoked. Its attempts until now are others' soon.
        """

    def append_many(self, growths: Sequence[Growth]) -> list[Written]:
        """Add tokens to streams, and renew the attempts' leases."""

    def finish(self, growth: Growth, *, input_tokens: int, reason: str) -> Written:
        """End an attempt with success, with its last tokens."""

    def fail(self, growth: Growth, *, kind: str, error: JobError) -> Written:
        """End an attempt without success: ``failed``, ``cancelled`` or ``expired``."""

    def release(self, growth: Growth) -> Written:
        """Hand the job over to another worker, which goes on where it stands."""

    def beat(self, pulses: Sequence[Pulse]) -> list[Answer]:
        """Renew leases and learn what shall end."""

    def submit(self, token: str, request: bytes) -> None:
        """Ask for a new job: a request in JSON. The same token twice is the same job."""
