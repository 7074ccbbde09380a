"""The buckets of tenants' rate limits in Redis, where all processes share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import without_retries
from tether.broker.redis.raw_connections import RawConnections
from tether.broker.scripts import Argument
from tether.ids import TenantId
from tether.rate_limits import RateLimits, RateVerdict, TakenUnits

PATIENCE_SECONDS = 1.0
"""How long an answer is waited for: a local bucket stands in where there is none."""


class BucketChange(StrEnum):
    """What is done to a tenant's buckets: see the functions of :mod:`tether.rate_limits`."""

    TAKE = "take"
    OWE = "owe"
    GIVE = "give"


@dataclass(frozen=True)
class ChargeGroup:
    """Requests of one tenant that are charged together, in their order.

    Attributes:
      costs: Tokens of each.
      taken_at_ms: When they were taken that are given back, by Redis's clock.
    """

    change: BucketChange
    tenant: TenantId
    limits: RateLimits
    costs: tuple[int, ...]
    taken_at_ms: int = 0


class ChargedGroup(NamedTuple):
    """What became of a group: its tenant's buckets, and the answer to each of its requests."""

    taken: TakenUnits
    verdicts: tuple[RateVerdict, ...]


class RateBuckets:
    """Runs the script ``charge``, on connections of its own, which :meth:`close` closes. Thread-safe."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        """
        Args:
          client: Whose server has the buckets.
        """
        patient = without_retries(
            client, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )
        self._lines = RawConnections.like(patient, keys.heartbeats)
        if patient is not client:
            patient.close()

    def close(self) -> None:
        """Close the connections."""
        self._lines.close()

    def charge(self, groups: Sequence[ChargeGroup]) -> list[ChargedGroup]:
        """Charge all groups in one round trip, each at once with nothing in between.

        Raises:
          OUTAGE_ERRORS: They may or may not have been charged.
          redis.ResponseError: The script failed.
        """
        arguments: list[Argument] = []
        for group in groups:
            limits = group.limits
            arguments += (group.change.value, group.tenant)
            arguments += (limits.requests_per_minute, limits.tokens_per_minute, limits.burst_ms)
            arguments += (group.taken_at_ms, len(group.costs), *group.costs)
        answer = map(int, self._lines.run("charge", *arguments).split())
        charged = []
        for group in groups:
            now_ms, requests, tokens = next(answer), next(answer), next(answer)
            waits = [next(answer) for _ in group.costs * 2] if group.change is BucketChange.TAKE else []
            verdicts = tuple(map(RateVerdict, waits[::2], waits[1::2]))
            charged.append(ChargedGroup(TakenUnits(requests, tokens, now_ms), verdicts))
        return charged
