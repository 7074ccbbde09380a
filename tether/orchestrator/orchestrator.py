"""The orchestrator: all loops of one process."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import redis

from tether.broker.outcomes import Outcomes
from tether.control import ControlPlane
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.orchestrator.deadlines import EndOverdue
from tether.orchestrator.lease_keeper import KeepLeases
from tether.orchestrator.loop import PASSING_ERRORS, Loop, Step
from tether.orchestrator.outbox import RelayOutbox
from tether.orchestrator.outcomes import SettleOutcomes
from tether.orchestrator.pruning import Prune
from tether.orchestrator.reconcile import Reconcile
from tether.orchestrator.submits import AdmitSubmits
from tether.orchestrator.ticks import TickLeases
from tether.orchestrator.trust_mirror import MirrorTrust
from tether.orchestrator.waiting import PlaceWaiting
from tether.scheduling.retry_policy import RetryPolicy
from tether.scheduling.scheduler_middleware import now_ms

LOOK_SECONDS = 1.0
"""How often the database is asked for what is due, where nothing else says so."""


class Orchestrator:
    """Carries jobs between the database and Redis until they end. Any number of them may run.

    It owns one thread for each loop, named after it, and its Redis connections.
    """

    def __init__(self, plane: ControlPlane) -> None:
        """
        Args:
          plane: What it works on; opened and closed by whoever made it.
        """
        settings, jobs = plane.settings, plane.settings.jobs
        holder = secrets.token_hex(8)
        # Blocking reads have a connection of their own, without a time limit.
        self._client = redis.Redis.from_url(settings.redis.url)
        self._outcomes = Outcomes(self._client, plane.keys, holder)
        self._trimming = Outcomes(self._client, plane.keys, holder)
        outbox_interval = settings.orchestrator.outbox_interval / 1000
        waiting = PlaceWaiting(
            plane.store, plane.scheduler, plane.reservations, interval=outbox_interval, now_ms=now_ms
        )
        # Needs no lease: several at once do no harm, and it goes on while the database is away.
        ticks = TickLeases(
            plane.pools,
            lease_ms=jobs.lease,
            interval=settings.orchestrator.lease_interval / 1000,
            on_lost=plane.fleet.distrust_boot,
        )
        steps: list[Step] = [
            RelayOutbox(plane.store, plane.pools, plane.ending, interval=outbox_interval, now_ms=now_ms),
            EndOverdue(plane.store, plane.ending, interval=LOOK_SECONDS, now_ms=now_ms),
            Reconcile(
                plane.store,
                plane.pools,
                interval=settings.orchestrator.reconcile_interval / 1000,
                life_ms=jobs.result_ttl,
                now_ms=now_ms,
            ),
            Prune(plane.store, self._trimming, retention_ms=jobs.retention, now_ms=now_ms),
            MirrorTrust(plane.store, RedisEnrolment(plane.pools.client, plane.keys), plane.pools),
            waiting,
        ]
        self._keeper = KeepLeases(plane.store, [step.name for step in steps], holder, now_ms=now_ms)
        self._waiting = Loop(waiting, may_run=lambda: self._keeper.holds(waiting.name))
        self._waiting_step = waiting
        settle = SettleOutcomes(
            plane.store,
            plane.pools,
            self._outcomes,
            policy=RetryPolicy(jobs.max_attempts, jobs.retry_base, jobs.retry_cap),
            life_ms=jobs.result_ttl,
            now_ms=now_ms,
            on_waiting=self._waiting.wake,
            randomness=random.Random(),
        )
        self._submits = AdmitSubmits(self._client, plane.keys, holder, plane.scheduler, plane.broker)
        self._loops = [
            Loop(self._keeper),
            Loop(settle),
            Loop(self._submits),
            Loop(ticks),
            self._waiting,
            *(self._held(step) for step in steps if step is not waiting),
        ]
        self._served: Mapping[str, int] = {}
        self._unwatch = plane.fleet.on_change(lambda fleet: self._on_fleet_change(fleet.served))

    def _held(self, step: Step) -> Loop:
        return Loop(step, may_run=lambda: self._keeper.holds(step.name))

    def _on_fleet_change(self, served: Mapping[str, int]) -> None:
        # Most changes are heartbeats: the mapping is the same, and there is nothing to do.
        former, self._served = self._served, served
        if served is not former and served.keys() - former.keys():
            self._waiting_step.recall()
            self._waiting.wake()

    def start(self) -> Self:
        """Start all loops."""
        for loop in self._loops:
            loop.start()
        return self

    def stop(self) -> None:
        """End all loops after their step under way, and free their leases for others."""
        self._unwatch()
        for loop in self._loops:
            loop.ask_to_stop()
        for loop in self._loops:
            loop.stop()
        # Where that fails, they run out by themselves.
        with contextlib.suppress(*PASSING_ERRORS):
            self._keeper.give_up()
        self._outcomes.close()
        self._trimming.close()
        self._submits.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
