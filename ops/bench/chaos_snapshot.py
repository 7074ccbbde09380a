"""What a Tether has when all is quiet again after a chaos run: frozen values, which the checker judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Pieces = tuple[tuple[int, str], ...]
"""Tokens, as (token id, text)."""


@dataclass(frozen=True)
class ChaosJob:
    """A job's row.

    Attributes:
      key: Its idempotency key.
      state: By name.
      has_deadline: Whether it had to be over, or begun, by some time.
      pieces: Its result's tokens; None where it has no result.
      finish_reason: Of its result.
      output_tokens: What it was charged for.
      wins: Of its settled attempts those that succeeded.
      won_at: When the first of them did, in seconds of the monotonic clock; 0 where none did.
    """

    job_id: str
    tenant: str
    key: str
    state: str
    has_deadline: bool
    pieces: Pieces | None
    finish_reason: str
    output_tokens: int
    wins: int
    won_at: float = 0.0


@dataclass(frozen=True)
class ChaosSnapshot:
    """All that is looked at.

    Attributes:
      jobs: By job id.
      letters: How many dead letters each job has.
      outbox: Jobs that wait to be placed.
      holds: Jobs of which something is held.
      counters: What is held by kind and name, where it is not 0.
      redis: Keys of Redis that have no owner any more, and why not.
      attempts_lost: Attempts that ended because their worker was lost.
    """

    jobs: Mapping[str, ChaosJob]
    letters: Mapping[str, int] = field(default_factory=dict)
    outbox: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    redis: Mapping[str, str] = field(default_factory=dict)
    attempts_lost: int = 0


@dataclass(frozen=True)
class Undisturbed:
    """What a job makes where nothing disturbs it."""

    pieces: Pieces
    finish_reason: str


def pieces_difference(made: Pieces, expected: Pieces) -> str:
    """Where tokens that were made first differ from those that were to be, in words."""
    for place, (one, other) in enumerate(zip(made, expected, strict=False)):
        if one != other:
            return f"token {place} is {one}, undisturbed it is {other}"
    return f"{len(made)} tokens, undisturbed there are {len(expected)}"
