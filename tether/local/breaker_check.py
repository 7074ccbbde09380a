"""The check of `tether doctor` of open circuit breakers: models that fail, or are slow, in a region."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from tether.broker.keys import Keys
from tether.broker.pools.pools import Pools
from tether.config.settings import Settings
from tether.local.doctor import Check, CheckStatus
from tether.local.redis_check import checked_client
from tether.local.running import Running
from tether.models.registry import Registry
from tether.scheduling.breaker import Breaker, BreakerName
from tether.scheduling.breaker_words import why_shut
from tether.scheduling.known_breakers import breaker_rules
from tether.scheduling.shared_breakers import SharedBreakers

NAME = "breakers"

MAX_TOLD = 3
"""Breakers that are named."""


def check_breakers(shut: Mapping[BreakerName, Breaker] | None, now_ms: int) -> Check:
    """Check that no breaker is open, or tell which are.

    Args:
      shut: Those that are not closed; None where they are not known.
      now_ms: Milliseconds since the epoch.
    """
    if shut is None:
        return Check(NAME, CheckStatus.OK, "not known: Redis cannot be asked")
    if not shut:
        return Check(NAME, CheckStatus.OK, "all closed")
    told = [why_shut(name, breaker, now_ms) for name, breaker in sorted(shut.items())]
    if len(told) > MAX_TOLD:
        told[MAX_TOLD:] = [f"and {len(told) - MAX_TOLD} more"]
    return Check(NAME, CheckStatus.WARN, ". ".join(told), "tether breakers list")


def shut_breakers(
    settings: Settings, running: Running | None, *, is_apart: bool = False
) -> Mapping[BreakerName, Breaker] | None:
    """The breakers that are not closed; None where Redis cannot be asked.

    Args:
      running, is_apart: As for :func:`~tether.local.redis_check.check_redis`.
    """
    client = checked_client(settings, running, is_apart=is_apart)
    if client is None:
        return {}
    with client:
        pools = Pools(client, Keys(settings.redis.namespace, settings.redis.hash_tag))
        try:
            return SharedBreakers(
                pools, Registry.from_settings(settings), breaker_rules(settings.breaker)
            ).told()
        except redis.RedisError:
            return None
        finally:
            pools.close()
