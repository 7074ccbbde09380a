"""The words of a job: its states and who owns them, its fence, what a client asks for, how an attempt ends.

All types here are frozen values; nothing here reads a clock, a random source or a server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

VERSION = 1
"""Version of bodies, outcomes and stream entries. Readers accept this one and the one before."""


class JobState(StrEnum):
    """What is true of a job. :data:`NEXT` says what can follow, :data:`OWNER` who decides."""

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


class Priority(StrEnum):
    """In the order in which workers look for jobs."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


@dataclass(frozen=True, order=True)
class Fence:
    """What everything a worker writes must carry. A write counts only where it equals the current one.

    Attributes:
      dispatch: Numbered by the database, one for each hand-over of the job to Redis.
      attempt: Numbered by the draw script, one for each draw of a dispatch.
      draw_id: ``<worker's boot id>:<its own draw counter>``: two attempts with the same numbers, before and
        after a loss in Redis, are still two.
    """

    dispatch: int
    attempt: int
    draw_id: str


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen, and when to stop.

    Attributes:
      max_tokens: Most tokens to make.
      temperature: 0 is greedy.
      top_p: Least probability mass to choose from, in (0, 1].
      top_k: Most tokens to choose from; 0 is all.
      seed: With the token's absolute position the only source of chance.
      stop: Texts at which to end; they are not part of the result.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()


ROLES = ("system", "user", "assistant")
"""Who can have said a message."""


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
      role: One of :data:`ROLES`.
      content: Its text.
    """

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a client asks for: to go on from a prompt, or to answer messages; never both.

    Attributes:
      model: Name of a configured model.
      prompt: The text to go on from; empty where there are messages.
      messages: A conversation to answer, in the order in which it was held. The model's own chat template
        makes its prompt.
      sampling: How to go on.
      priority: Its class.
      adapter: Name of an adapter of the model, or empty.
      labels: The client's own marks, to find the job by.
      not_before: Milliseconds since the epoch before which it does not run; 0 is at once.
      deadline: Milliseconds since the epoch at which it expires, running or not; 0 is never.
      correlation_id: The client's name for what it does; made where empty.
      retry_token: With tenant and correlation id the idempotency key; made where empty.
      traceparent: W3C trace context of the submitter, or empty.
      delay_ms: The delay from which ``not_before`` was made; 0 where it was asked for as a time.
      time_limit_ms: The time limit from which ``deadline`` was made; 0 where it was asked for as a time.
    """

    model: str
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    priority: Priority = Priority.STANDARD
    adapter: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    not_before: int = 0
    deadline: int = 0
    correlation_id: str = ""
    retry_token: str = ""
    traceparent: str = ""
    delay_ms: int = 0
    time_limit_ms: int = 0

    @property
    def characters(self) -> int:
        """Characters of all that the model has to read."""
        return len(self.prompt) + sum(len(message.content) for message in self.messages)

    def canonical(self) -> dict[str, Any]:
        """What makes two requests the same: all but the keys they are known by and their trace.

        Times are as they were asked for: a delay counts as one, whenever it is sent again.
        """
        return {
            **({"messages": messages_to_json(self.messages)} if self.messages else {}),
            "v": VERSION,
            "model": self.model,
            "prompt": self.prompt,
            "sampling": sampling_to_json(self.sampling),
            "priority": self.priority.value,
            "adapter": self.adapter,
            "labels": dict(self.labels),
            "not_before": 0 if self.delay_ms else self.not_before,
            "deadline": 0 if self.time_limit_ms else self.deadline,
            "delay_ms": self.delay_ms,
            "time_limit_ms": self.time_limit_ms,
        }

    def digest(self) -> str:
        """SHA-256 of :meth:`canonical` as JSON with sorted keys, in hexadecimal."""
        return hashlib.sha256(canonical_json(self.canonical())).hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: object) -> bytes:
    """JSON without white space, keys sorted, as UTF-8."""
    return _CANONICAL.encode(value).encode()


def messages_to_json(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def sampling_to_json(sampling: Sampling) -> dict[str, Any]:
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
    }


def sampling_from_json(value: Mapping[str, Any]) -> Sampling:
    return Sampling(**{**value, "stop": tuple(value["stop"])})


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs are asked for. What is empty or None excludes none.

    Attributes:
      states: Any of these states.
      labels: All of these marks.
      created_after, created_before: Milliseconds since the epoch; from the first on, before the second.
    """

    states: tuple[JobState, ...] = ()
    model: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    created_after: int | None = None
    created_before: int | None = None


EVERY_JOB = JobFilter()


class OutcomeKind(StrEnum):
    """How a dispatch or an attempt ended, as the script that ended it wrote."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    POISONED = "poisoned"


@dataclass(frozen=True)
class JobError:
    """Why an attempt or a job failed.

    Attributes:
      code: Stable name, as in :mod:`tether.errors`.
      message: What was wrong and what to do.
      retryable: Whether another attempt can help.
      retry_after_ms: Least wait before it; 0 where nothing is known.
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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One entry of ``core:outcomes``: Redis hands a job back to the database.

    Attributes:
      job_id: Which job.
      kind: How it ended.
      fence: Of the attempt that ended; a dispatch that was never drawn has attempt 0 and no draw id.
      worker: The worker's boot id; empty where none had it.
      run: The stream's run.
      offset: Tokens made.
      error: Why, where it did not succeed.
      input_tokens: Tokens of the prompt, as the engine counted them; 0 where it did not come to that.
      finish_reason: ``stop`` or ``length``, where it succeeded.
      deaths: Workers that died while they ran it.
      ended_at: By Redis's clock, in milliseconds since the epoch.
      pieces: The tokens, where it is final for Redis; what the stream held when it was read.
    """

    job_id: str
    kind: OutcomeKind
    fence: Fence
    worker: str = ""
    run: int = 0
    offset: int = 0
    error: JobError | None = None
    input_tokens: int = 0
    finish_reason: str = ""
    deaths: int = 0
    ended_at: int = 0
    pieces: tuple[Piece, ...] = ()


def new_job_id(now_ms: int, randomness: bytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7): time-ordered, so that rows and keys made together lie together.

    Args:
      now_ms: Milliseconds since the epoch.
      randomness: At least 10 random bytes.
    """
    number = (now_ms & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(randomness[:10], "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id_at(now_ms: int) -> str:
    """No job that was made at this time, in milliseconds since the epoch, or later has a smaller id."""
    text = f"{now_ms & 0xFFFFFFFFFFFF:012x}"
    return f"{text[:8]}-{text[8:]}-0000-0000-000000000000"
