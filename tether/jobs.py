"""The vocabulary of jobs: states and their owners, errors, pieces of text.

Requests are defined in :mod:`tether.requests.fields`; programs import them from here.

All types here are frozen values; nothing here reads a clock, a random source or a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from tether.ids import JobId, TenantId
from tether.ids import first_id_at as first_id_at
from tether.ids import new_job_id as new_job_id
from tether.rate_limits import RateStanding
from tether.requests.fields import JobRequest as JobRequest
from tether.requests.fields import Priority as Priority
from tether.requests.fields import Sampling as Sampling
from tether.requests.fields import canonical_json as canonical_json
from tether.requests.rules import Message as Message

DEFAULT_TENANT = TenantId("default")
"""The tenant that every database has from the start: whose jobs are, where nothing else is said."""


class JobState(StrEnum):
    """The state of a job. :data:`NEXT` has its possible successors, :data:`OWNER` who decides."""

    ACCEPTED = "accepted"
    PARKED = "parked"
    PLACED = "placed"
    RUNNING = "running"
    WAITING_RETRY = "waiting_retry"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return not NEXT[self]


class Owner(StrEnum):
    """Which side decides what happens to a job next; the other side records it."""

    DATABASE = "database"
    REDIS = "redis"


_S = JobState

NEXT: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _S.ACCEPTED: frozenset({_S.PLACED, _S.PARKED, _S.DEAD, _S.CANCELLED, _S.EXPIRED}),
        _S.PARKED: frozenset({_S.PLACED, _S.DEAD, _S.CANCELLED, _S.EXPIRED}),
        _S.PLACED: frozenset({_S.RUNNING, _S.ACCEPTED, _S.CANCELLED, _S.EXPIRED}),
        _S.RUNNING: frozenset({_S.PLACED, _S.SUCCEEDED, _S.WAITING_RETRY, _S.DEAD, _S.CANCELLED, _S.EXPIRED}),
        _S.WAITING_RETRY: frozenset({_S.PLACED, _S.PARKED, _S.DEAD, _S.CANCELLED, _S.EXPIRED}),
        _S.SUCCEEDED: frozenset(),
        _S.DEAD: frozenset(),
        _S.CANCELLED: frozenset(),
        _S.EXPIRED: frozenset(),
    }
)
"""Each state's possible successors. Final states have none."""

OWNER: Mapping[JobState, Owner] = MappingProxyType(
    {state: Owner.REDIS if state in (_S.PLACED, _S.RUNNING) else Owner.DATABASE for state in JobState}
)
"""Who decides about a job in each state."""

FINAL_STATES = frozenset(state for state in JobState if state.is_final)


@dataclass(frozen=True)
class JobError:
    """Why an attempt or a job failed.

    Attributes:
      code: Stable name, as in :mod:`tether.errors`.
      message: What was wrong and what to do.
      retryable: Whether another attempt can succeed.
      retry_after_ms: Minimum wait before it; 0 if unknown.
    """

    code: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0


@dataclass(frozen=True)
class Piece:
    """Text of one token, and its id."""

    token_id: int
    text: str


@dataclass(frozen=True)
class Submitted:
    """A job that was accepted, now or when its keys were first used.

    Attributes:
      is_new: Whether this call created it.
      degraded_from: The version of a model that was asked for, as ``NAME@VERSION``, where the job runs on a
        lesser one, as the tenant's policy allows; else None.
      standings: How its tenant stands with its rate limits, where they were asked in this process.
    """

    job_id: JobId
    correlation_id: str
    retry_token: str
    state: JobState
    is_new: bool
    degraded_from: str | None = None
    standings: tuple[RateStanding, ...] = field(default=(), compare=False, repr=False)
