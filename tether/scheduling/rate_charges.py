"""What is charged to rate limits for the requests of one call, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tether.errors import InvalidRequest, RateLimited
from tether.ids import TenantId
from tether.rate_limits import RateLimits, RateStanding


class WantedCharge(NamedTuple):
    """A request that is to be charged.

    Attributes:
      tokens: Of its prompt and of its answer at most, as estimated.
      is_owed: Whether it counts, and is not refused.
    """

    tenant: TenantId
    limits: RateLimits
    tokens: int
    is_owed: bool = False


@dataclass(frozen=True)
class RateCharge:
    """What was taken for one request.

    Attributes:
      at_ms: When, by the clock of those buckets.
      is_local: Whether from those of this process.
      standings: How its tenant stands after this call.
    """

    wanted: WantedCharge
    at_ms: int
    is_local: bool
    standings: tuple[RateStanding, ...]


class ChargedRequests:
    """The requests of one call.

    Attributes:
      answers: What was taken for each, or why it is refused; None where nobody limits it.
    """

    def __init__(self, answers: Sequence[RateCharge | RateLimited | InvalidRequest | None]) -> None:
        self.answers = answers
        self._kept: set[int] = set()

    def keep(self, number: int) -> None:
        """The request, counted from 0, became a job: what was taken for it stays."""
        self._kept.add(number)

    def unused(self) -> list[RateCharge]:
        """What was taken for the others."""
        return [
            answer
            for number, answer in enumerate(self.answers)
            if isinstance(answer, RateCharge) and number not in self._kept
        ]
