"""The control plane of every process with a database: store, Redis, fleet and scheduler, wired once."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Self

import redis
import structlog

from tether.broker import TetherBroker
from tether.broker.keys import Keys
from tether.broker.pools.pools import Pools
from tether.broker.rate_buckets import RateBuckets
from tether.broker.redis.clock import RedisClockFollower
from tether.broker.redis.connections import OUTAGE_ERRORS, connect
from tether.broker.redis.safety import RedisSafety
from tether.clocks import SharedClock
from tether.config.settings import Settings
from tether.core.list_reads import ListReads
from tether.discovery.discovery_sub import DiscoverySub
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.followed_models import FollowedModels
from tether.discovery.over_redis.mirror import REDIS
from tether.discovery.over_redis.queue_evidence import QueueEvidence
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.port import PresenceSource
from tether.discovery.topics import is_presence_topic, network_id
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.ids import BootId, PoolName, TenantId, worker_of
from tether.jobs import DEFAULT_TENANT
from tether.loops import Loop, Outage
from tether.models.registry import Registry
from tether.scheduling.cancellation import Cancellation
from tether.scheduling.known_breakers import FRESH_BREAKERS_SECONDS, KnownBreakers, breaker_rules
from tether.scheduling.pool_choice import PoolChoice
from tether.scheduling.rate_limiter import RateLimiter
from tether.scheduling.reprioritisation import Reprioritisation
from tether.scheduling.reservations import ReservationManager
from tether.scheduling.scheduler_middleware import SchedulerMiddleware
from tether.scheduling.shared_breakers import SharedBreakers
from tether.scheduling.shedding import Shedding
from tether.scheduling.tenants import Tenants
from tether.scheduling.waiting_placement import WaitingPlacement
from tether.store.fleet_keys import StoreEnrolment, enrol_new
from tether.store.store import Store
from tether.telemetry.logs import get_logger

SWARM = "swarm"
"""The name of the swarm among the sources of the fleet."""

FIRST_LOOK_SECONDS = 1.0
"""How long opening waits for the first look at the fleet. Without it, jobs are parked until it comes."""


class ControlPlane:
    """Opens and closes, in order, what submission and orchestration need.

    Attributes:
      broker: Whose queue ``infer`` goes to the scheduler. Its workers run plain actors only.
      store, pools: The database's side and Redis's side of jobs.
      trusted: Whose announcements count.
      swarm: The place in the swarm; None where there is none.
      followed_models: The models whose workers the fleet has; None is all.
      fleet, registry: Who can serve what, and what there is.
      scheduler, reservations, ending, priorities: What changes jobs.
      breakers, known_breakers: The breakers of models in regions, and which of them are not closed.
      waiting_placement: Which waiting jobs pools can take, and where they go.
      clock: By which all of them go: Redis's.
      redis_safety: Logs how Redis is set up, if that is unsafe.
    """

    def __init__(
        self, settings: Settings, *, tenant: TenantId = DEFAULT_TENANT, in_swarm: bool = False
    ) -> None:
        """
        Args:
          in_swarm: Whether to take part in the swarm, where the settings ask for it. Others read what those
            that do have mirrored to Redis.

        Raises:
          ConfigError: The settings ask for a swarm that cannot be, or to follow models that there are not.
        """
        self.settings = settings
        self.followed_models = FollowedModels.from_settings(settings)
        self.keys = Keys(settings.redis.namespace, settings.redis.hash_tag)
        self.client = connect(settings.redis.url)
        log = get_logger("tether.broker")
        self.redis_safety = RedisSafety(self.client, log)
        self.clock = SharedClock()
        self._clock_follower = RedisClockFollower(self.client, self.clock, log)
        self.store = Store(settings.database.url)
        self.list_reads = ListReads()
        self.pools = Pools(
            self.client,
            self.keys,
            watermark=settings.redis.watermark,
            lane_bytes=settings.redis.lane_bytes,
        )
        expiry_ms = settings.presence.expiry
        self.presence = RedisPresence(self.client, self.keys, expiry_ms=expiry_ms)
        self._evidence = QueueEvidence(self.client, self.keys)
        self.trusted = TrustedKeys.from_settings(settings, StoreEnrolment(self.store))
        self.swarm = (
            DiscoverySub.from_settings(
                settings, self.trusted, self.presence, self.client, self.followed_models
            )
            if in_swarm
            else None
        )
        heard_on = frozenset() if self.swarm is None else self.swarm.topics
        sources: dict[str, PresenceSource] = {REDIS: self.presence}
        if self.swarm is not None:
            sources[SWARM] = self.swarm.source
        self.fleet = FleetView(
            sources,
            self.trusted,
            interval_ms=settings.presence.interval,
            expiry_ms=expiry_ms,
            network=network_id(bytes.fromhex(settings.network.secret)),
            topics=lambda topic: is_presence_topic(topic) or topic in heard_on,
            models=self.followed_models,
            on_accepted=self.swarm.on_accepted if self.swarm else None,
            tell_distrust=self.presence.distrust,
            keys=self.trusted.snapshot,
            evidence=self._evidence.read,
            wall_clock=self.clock.now_ms,
        )
        self.reservations = ReservationManager(self.store, self.pools, result_ttl_ms=settings.jobs.result_ttl)
        self.ending = Cancellation(self.store, self.pools, settings.jobs.result_ttl)
        self.priorities = Reprioritisation(self.store, self.pools)
        self.registry = Registry.from_settings(settings)
        self.breakers = SharedBreakers(self.pools, self.registry, breaker_rules(settings.breaker))
        self.known_breakers = KnownBreakers(self.breakers, self.clock.now_ms)
        self._breaker_follower = Loop(
            "known-breakers",
            self.known_breakers,
            interval=FRESH_BREAKERS_SECONDS,
            outage=_unreadable_breakers(log),
        )
        choice = PoolChoice(
            self.fleet, self.registry, settings.scheduling, self.store, breakers=self.known_breakers
        )
        self.waiting_placement = WaitingPlacement(choice, self.clock.now_ms)
        self._limiter = RateLimiter(RateBuckets(self.client, self.keys))
        tenants = Tenants(self.store)
        self.scheduler = SchedulerMiddleware(
            choice,
            self.reservations,
            tenants,
            self._limiter,
            Shedding(
                choice,
                self.store,
                tenants,
                absence_seconds=settings.presence.interval / 1000,
                clock=time.monotonic,
            ),
            tenant=tenant,
            region=settings.worker.region,
            now_ms=self.clock.now_ms,
            randomness=os.urandom,
        )
        self.broker = TetherBroker.from_settings(settings)
        self.broker.add_middleware(self.scheduler)
        self._opened = contextlib.ExitStack()

    def open(self) -> Self:
        """Open the database, and follow the fleet.

        Raises:
          StoreError: The database cannot be used.
        """
        with contextlib.ExitStack() as stack:
            if self.swarm is not None:
                stack.callback(self.swarm.identity.close)
            stack.callback(self.client.close)
            self._clock_follower.start()
            stack.callback(self._clock_follower.stop)
            stack.callback(self.broker.close)
            stack.callback(self.pools.close)
            stack.callback(self._limiter.close)
            self._breaker_follower.start()
            stack.callback(self._breaker_follower.stop)
            self.store.open()
            stack.callback(self.store.close)
            stack.callback(self.trusted.close)
            self.trusted.start()
            stack.callback(self.presence.close)
            stack.callback(self._evidence.close)
            if self.swarm is not None:
                self.store.write_alone(enrol_new, self.swarm.own_key, self.clock.now_ms()).result()
                self.swarm.start()
                stack.callback(self.swarm.stop)
            self.fleet.start()
            stack.callback(self.fleet.stop)
            # What is submitted first shall not be parked only because nobody has looked yet.
            if self.fleet.wait_until_read(FIRST_LOOK_SECONDS):
                # Nor go to workers that draw nothing, or fail all.
                with contextlib.suppress(redis.RedisError):
                    self.fleet.judge()
            self._opened = stack.pop_all()
        return self

    def distrust_loser(self, boot_id: BootId) -> None:
        """Make a worker that lost an attempt unroutable for all until its next announcement, also one that
        the fleet is not to know."""
        self.fleet.distrust_boot(boot_id)
        if self.followed_models is not None and worker_of(boot_id) not in self.fleet.fleet.members:
            self.presence.distrust_newest(boot_id)

    def watches(self, pool: PoolName) -> bool:
        """Whether the fleet has all workers of a pool, and not only those of other models."""
        return self.followed_models is None or self.followed_models.watches(pool)

    def close(self) -> None:
        """Close everything that :meth:`open` opened."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()


def _unreadable_breakers(log: structlog.stdlib.BoundLogger) -> Outage:
    return Outage(
        OUTAGE_ERRORS,
        log,
        begins="Redis does not tell which circuit breakers are open. All count as closed after a while.",
        ends="Redis tells again which circuit breakers are open.",
    )
