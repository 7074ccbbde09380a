"""How many requests and tokens a tenant may ask for a minute: token buckets, pure.

A bucket is kept as what was taken from it and has not flowed back yet: the continuous-state leaky bucket,
one of the two equivalent forms of the generic cell rate algorithm (ITU-T Recommendation I.371, annex A). In
any span of ``t`` milliseconds a tenant gets at most the capacity and ``rate * t`` more. All is counted in
whole numbers, so that the script ``charge``, which does the same in Redis, agrees to the last unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

UNITS = 60_000
"""Units of one request, or of one token: a rate of one a minute is one unit a millisecond."""

MAX_PER_MINUTE = 1_000_000_000
MAX_BURST_SECONDS = 3_600
"""With these, everything stays below 2^53: numbers in Lua are exact up to that."""

DEFAULT_BURST_SECONDS = 60

LEASE_MS, LEASES_PER_BURST = 200, 300
"""For so long a process may keep what it has taken ahead of time, or a 300th of the burst if that is less."""

MIN_REQUESTS_OF_LEASE, MIN_TOKENS_OF_LEASE = 10, 1_000
"""Requests and tokens that the rates must allow in that time: below, each is asked for by itself."""


@dataclass(frozen=True)
class RateLimits:
    """What one tenant may ask for.

    Attributes:
      requests_per_minute: Jobs a minute, in the long run; 0 is any number.
      tokens_per_minute: Tokens a minute, as estimated for each job when it is submitted; 0 is any number.
      burst_seconds: After a rest of so many seconds, or longer, so many seconds' worth can be asked for at
        once, one request at least: the capacity of both buckets, but for :attr:`burst_ms`.
    """

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    burst_seconds: int = DEFAULT_BURST_SECONDS

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return self.requests_per_minute > 0 or self.tokens_per_minute > 0

    @property
    def lease_ms(self) -> int:
        """For how long a process may keep what it has taken ahead of time; 0 where it may take nothing."""
        lease_ms = min(LEASE_MS, self.burst_seconds * 1_000 // LEASES_PER_BURST)
        is_high = all(
            not rate or rate * lease_ms >= least * UNITS
            for rate, least in (
                (self.requests_per_minute, MIN_REQUESTS_OF_LEASE),
                (self.tokens_per_minute, MIN_TOKENS_OF_LEASE),
            )
        )
        return lease_ms if is_high and self else 0

    @property
    def burst_ms(self) -> int:
        """Milliseconds in which an empty bucket fills. What is leased may be used as much later as a lease
        lasts: by that much of the rate the bucket is smaller, so that the bounds hold."""
        return self.burst_seconds * 1_000 - self.lease_ms

    @property
    def request_capacity(self) -> int:
        """Units of requests in a full bucket."""
        return max(self.requests_per_minute * self.burst_ms, UNITS)

    @property
    def token_capacity(self) -> int:
        """Units of tokens in a full bucket."""
        return max(self.tokens_per_minute * self.burst_ms, UNITS)

    @property
    def max_tokens(self) -> int | None:
        """Tokens that one job can have at most; None where they are not limited."""
        return self.token_capacity // UNITS if self.tokens_per_minute else None


class RateMeasure(StrEnum):
    """What is limited."""

    REQUESTS = "requests"
    TOKENS = "tokens"


class TakenUnits(NamedTuple):
    """What was taken from a tenant's two buckets and has not flowed back.

    Attributes:
      requests: In units.
      tokens: In units.
      at_ms: When that was so, in milliseconds of whatever clock is used.
    """

    requests: int = 0
    tokens: int = 0
    at_ms: int = 0


class RateVerdict(NamedTuple):
    """The answer to one request; it is admitted where neither has to be waited for.

    Attributes:
      requests_wait_ms: In how many milliseconds its tenant may ask for it, and for all that was refused in
        the same call before it, by the limit of requests.
      tokens_wait_ms: The same by the limit of tokens.
    """

    requests_wait_ms: int = 0
    tokens_wait_ms: int = 0

    @property
    def is_admitted(self) -> bool:
        return not (self.requests_wait_ms or self.tokens_wait_ms)


class RateJudgement(NamedTuple):
    """What became of some requests of one tenant, and of its buckets."""

    taken: TakenUnits
    verdicts: tuple[RateVerdict, ...]


def after_rest(taken: TakenUnits, limits: RateLimits, now_ms: int) -> TakenUnits:
    """What is left of it at ``now_ms``. A clock that was set back lets nothing flow, and costs nothing; what
    limits were lowered under is as much as they allow."""
    rested_ms = max(now_ms - taken.at_ms, 0)
    return TakenUnits(
        _flowed(taken.requests, limits.requests_per_minute, limits.request_capacity, rested_ms),
        _flowed(taken.tokens, limits.tokens_per_minute, limits.token_capacity, rested_ms),
        now_ms,
    )


def _flowed(units: int, rate: int, capacity: int, rested_ms: int) -> int:
    return min(max(units - rate * rested_ms, 0), capacity) if rate else 0


def take_from_buckets(
    taken: TakenUnits, limits: RateLimits, costs: Sequence[int], now_ms: int
) -> RateJudgement:
    """Judge requests of one tenant in their order, each by itself: what is refused takes nothing, and keeps
    no smaller one out that comes after it.

    Args:
      costs: Tokens of each.
    """
    now = after_rest(taken, limits, now_ms)
    requests, tokens = now.requests, now.tokens
    admitted: list[bool] = []
    for cost in costs:
        passes = (not limits.requests_per_minute or requests + UNITS <= limits.request_capacity) and (
            not limits.tokens_per_minute or tokens + cost * UNITS <= limits.token_capacity
        )
        admitted.append(passes)
        if passes:
            requests += UNITS if limits.requests_per_minute else 0
            tokens += cost * UNITS if limits.tokens_per_minute else 0
    verdicts: list[RateVerdict] = []
    wanted_requests, wanted_tokens = requests - limits.request_capacity, tokens - limits.token_capacity
    for cost, passes in zip(costs, admitted, strict=True):
        if passes:
            verdicts.append(RateVerdict())
            continue
        wanted_requests += UNITS
        wanted_tokens += cost * UNITS
        verdicts.append(
            RateVerdict(
                _time_to_flow(wanted_requests, limits.requests_per_minute),
                _time_to_flow(wanted_tokens, limits.tokens_per_minute),
            )
        )
    return RateJudgement(TakenUnits(requests, tokens, now_ms), tuple(verdicts))


def owe_to_buckets(taken: TakenUnits, limits: RateLimits, costs: Sequence[int], now_ms: int) -> TakenUnits:
    """Take for requests that are not refused, whatever is left: the buckets are empty then, and no more."""
    now = after_rest(taken, limits, now_ms)
    return now._replace(
        requests=min(now.requests + len(costs) * UNITS, limits.request_capacity)
        if limits.requests_per_minute
        else 0,
        tokens=min(now.tokens + sum(costs) * UNITS, limits.token_capacity) if limits.tokens_per_minute else 0,
    )


def give_back_to_buckets(
    taken: TakenUnits, limits: RateLimits, costs: Sequence[int], taken_at_ms: int, now_ms: int
) -> TakenUnits:
    """Put back what was taken at ``taken_at_ms`` for requests that became no jobs.

    What may have flowed back since is not given twice; after a clock was set back, nothing is.
    """
    now = after_rest(taken, limits, now_ms)
    since_ms = now_ms - taken_at_ms
    if since_ms < 0:
        return now
    return now._replace(
        requests=_less(now.requests, len(costs) * UNITS - limits.requests_per_minute * since_ms),
        tokens=_less(now.tokens, sum(costs) * UNITS - limits.tokens_per_minute * since_ms),
    )


def _less(units: int, back: int) -> int:
    return max(units - max(back, 0), 0)


def full_again_ms(taken: TakenUnits, limits: RateLimits) -> int:
    """In how many milliseconds nothing is left of it: what is known of such a tenant can be forgotten."""
    return max(
        _time_to_flow(taken.requests, limits.requests_per_minute),
        _time_to_flow(taken.tokens, limits.tokens_per_minute),
    )


def _time_to_flow(units: int, rate: int) -> int:
    """Milliseconds, rounded up; 0 where there is nothing to wait for."""
    return -(-max(units, 0) // rate) if rate else 0


class RateStanding(NamedTuple):
    """What is left of one of a tenant's limits.

    Attributes:
      measure: Of which.
      limit: Requests or tokens of a full bucket.
      per_minute: By how many it fills in a minute.
      remaining: What can be asked for at once.
      next_ms: In how many milliseconds there is one more; 0 where it is full.
      full_ms: In how many milliseconds it is full.
    """

    measure: RateMeasure
    limit: int
    per_minute: int
    remaining: int
    next_ms: int
    full_ms: int


def standings(taken: TakenUnits, limits: RateLimits) -> tuple[RateStanding, ...]:
    """How a tenant stands with each of its limits at the time of ``taken``."""
    found = []
    if limits.requests_per_minute:
        found.append(
            _standing(
                RateMeasure.REQUESTS, taken.requests, limits.request_capacity, limits.requests_per_minute
            )
        )
    if limits.tokens_per_minute:
        found.append(
            _standing(RateMeasure.TOKENS, taken.tokens, limits.token_capacity, limits.tokens_per_minute)
        )
    return tuple(found)


def _standing(measure: RateMeasure, units: int, capacity: int, rate: int) -> RateStanding:
    left = max(capacity - units, 0)
    remaining, limit = left // UNITS, capacity // UNITS
    next_ms = _time_to_flow((remaining + 1) * UNITS - left, rate) if remaining < limit else 0
    return RateStanding(measure, limit, rate, remaining, next_ms, _time_to_flow(units, rate))
