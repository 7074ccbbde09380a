"""Pools as operators see and change them, for the gateway and for the command on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from sqlalchemy import Connection

from tether.broker.pools.pools import Pools
from tether.broker.redis.connections import OUTAGE_ERRORS, address_of
from tether.core.pool_backlogs import owed_jobs, waiting_by_class, waiting_jobs
from tether.core.pool_changes import MAX_JOBS_PER_CALL, PoolChanges
from tether.core.pool_documents import pause_to_json, pool_change_to_json, pool_to_json, whole_pool_to_json
from tether.core.pool_states import PoolFacts, is_worth_listing
from tether.core.pool_targets import meant_pool, move_target
from tether.discovery.fleet.fleet import Fleet, silent_in
from tether.discovery.fleet.fleet_view import FleetView
from tether.errors import BrokerUnavailable, InvalidRequest, PoolNotFound
from tether.ids import PoolName, WorkerId
from tether.models.registry import ModelVersion, Registry, is_pool_of
from tether.scheduling.breaker import Breaker, BreakerName
from tether.scheduling.breaker_words import why_shut
from tether.scheduling.cancellation import Cancellation
from tether.store.audit import Act, Audited
from tether.store.holds import depths
from tether.store.owed_counts import owed_by_class
from tether.store.pool_pauses import PoolPause, pause_pool, pool_pauses, resume_pool
from tether.store.store import Store

MakeAct = Callable[[str, str, Mapping[str, Any]], Act]
"""Makes the entry of the audit log of an act, by its name, what it is done to, and details."""


@dataclass(frozen=True, kw_only=True)
class PoolSources:
    """Where what is known of pools comes from.

    Attributes:
      names: What workers are called, by their ids.
      now: Milliseconds of the clock that the fleet's times are of.
      now_ms: Milliseconds since the epoch.
      shut: The circuit breakers that are not closed; it may raise what Redis's client does.
    """

    store: Store
    pools: Pools
    view: FleetView
    registry: Registry
    ending: Cancellation
    names: Callable[[], Mapping[WorkerId, str]]
    now: Callable[[], int]
    now_ms: Callable[[], int]
    shut: Callable[[], Mapping[BreakerName, Breaker]]


class PoolControl:
    """Lists pools, pauses and resumes them, and moves or cancels what waits there. Thread-safe.

    All methods raise StoreUnavailable where the database is away.
    """

    def __init__(self, sources: PoolSources, act: MakeAct) -> None:
        """
        Args:
          act: Says who does what: each change is in the audit log.
        """
        self._sources = sources
        self._act = act
        self._log = Audited(sources.store, sources.now_ms)

    def list_pools(self) -> dict[str, Any]:
        """All pools that workers announce, that have jobs or that are paused, by name."""
        found = self._facts()
        return {
            "object": "list",
            "data": [pool_to_json(found[name]) for name in sorted(found) if is_worth_listing(found[name])],
            "breakers": self._shut(),
        }

    def _shut(self) -> list[str]:
        """The breakers that are not closed, in words; none where Redis is away."""
        with contextlib.suppress(redis.RedisError):
            now = self._sources.now_ms()
            return [why_shut(name, breaker, now) for name, breaker in sorted(self._sources.shut().items())]
        return []

    def show(self, text: str) -> dict[str, Any]:
        """One pool, with its workers and what waits there of each class.

        Raises:
          PoolNotFound: There is none. The message has the nearest name.
        """
        found = self._facts()
        pool = meant_pool(text, found)
        sources = self._sources
        try:
            in_redis: Mapping[str, int] | None = waiting_by_class(
                sources.pools.client, sources.pools.keys, pool
            )
        except redis.RedisError:
            in_redis = None
        return whole_pool_to_json(
            found[pool],
            waiting=in_redis,
            owed=sources.store.read(owed_by_class, pool),
            fleet=sources.view.fleet,
            evidence=sources.view.evidence,
            names=sources.names(),
            now=sources.now(),
        )

    def pause(self, text: str, reason: str) -> dict[str, Any]:
        """Let a pool get no jobs, and workers draw none from it, until it is resumed.

        Args:
          reason: As :func:`~tether.store.pool_pauses.check_reason` returned it.

        Raises:
          PoolNotFound: There is none.
          InvalidRequest: As many pools are paused as may be.
        """
        details = {"reason": reason}
        pool = self._named(text, "pools.pause", details)

        def write(connection: Connection) -> tuple[PoolPause, bool] | InvalidRequest:
            return pause_pool(connection, pool, reason, self._sources.now_ms())

        pause, was_paused = self._log.write(self._act("pools.pause", pool, details), write)
        self._tell_redis()
        return pause_to_json(pool, pause, was_paused=was_paused)

    def resume(self, text: str) -> dict[str, Any]:
        """Let a pool get jobs again, and workers draw from it. One that is not paused stays as it is.

        Raises:
          PoolNotFound: There is none.
        """
        pool = self._named(text, "pools.resume", {})
        act = self._act("pools.resume", pool, {})
        was_paused = self._log.write(act, lambda connection: resume_pool(connection, pool))
        self._tell_redis()
        return pause_to_json(pool, None, was_paused=was_paused)

    def move(self, text: str, to: str | None, limit: int, *, parks: bool) -> dict[str, Any]:
        """Place some of what waits in a pool elsewhere; see
        :meth:`~tether.core.pool_changes.PoolChanges.move`.

        Args:
          to: The pool that is to get them; None for any other.
          parks: Whether they wait in the database where no other pool can serve them.

        Raises:
          PoolNotFound: There is no such pool.
          InvalidRequest: ``to`` cannot serve them, or they would only come back.
          NoOtherPool: No other pool can serve them, and they are not to be parked.
          BrokerUnavailable: Redis is away.
        """
        details = {"to": to, "limit": limit, "park": parks}

        def change(pool: PoolName, found: Mapping[PoolName, PoolFacts]) -> dict[str, Any]:
            target = move_target(found[pool], to, found, digest=self._digest_of(found[pool]), parks=parks)
            return pool_change_to_json(
                "pool_move", pool, self._changes().move(pool, target, _bounded(limit)), to=target
            )

        return self._carried_out("pools.move", text, details, change)

    def purge(self, text: str, limit: int) -> dict[str, Any]:
        """Cancel some of what waits in a pool; see
        :meth:`~tether.core.pool_changes.PoolChanges.purge`.

        Raises:
          PoolNotFound: There is no such pool.
          BrokerUnavailable: Redis is away.
        """

        def change(pool: PoolName, _: Mapping[PoolName, PoolFacts]) -> dict[str, Any]:
            return pool_change_to_json("pool_purge", pool, self._changes().purge(pool, _bounded(limit)))

        return self._carried_out("pools.purge", text, {"limit": limit}, change)

    def _changes(self) -> PoolChanges:
        sources = self._sources
        return PoolChanges(sources.store, sources.pools, sources.ending, sources.now_ms)

    def _carried_out(
        self,
        action: str,
        text: str,
        details: Mapping[str, Any],
        change: Callable[[PoolName, Mapping[PoolName, PoolFacts]], dict[str, Any]],
    ) -> dict[str, Any]:
        def carry_out() -> dict[str, Any]:
            found = self._facts()
            with self._redis():
                return change(meant_pool(text, found), found)

        return self._log.elsewhere(self._act(action, text, details), carry_out)

    def _named(self, text: str, action: str, details: Mapping[str, Any]) -> PoolName:
        try:
            return meant_pool(text, self._facts())
        except (PoolNotFound, InvalidRequest) as error:
            self._log.note_refusal(self._act(action, text, details), error)
            raise

    def _digest_of(self, facts: PoolFacts) -> str | None:
        if facts.view is not None:
            return facts.view.digest
        configured = self._configured(facts.name)
        return None if configured is None else configured.digest

    def _configured(self, pool: PoolName) -> ModelVersion | None:
        return next((model for model in self._sources.registry.models if is_pool_of(pool, model)), None)

    def _facts(self) -> dict[PoolName, PoolFacts]:
        """What is known of every pool, also of those that only had jobs once."""
        sources = self._sources
        views = {view.name: view for view in sources.view.pools()}
        pauses, held = sources.store.read(pool_pauses), sources.store.read(depths)
        try:
            waiting: Mapping[PoolName, int] | None = waiting_jobs(sources.pools.client, sources.pools.keys)
        except redis.RedisError:
            waiting = None
        busy = [name for name, jobs in held.items() if jobs > 0]
        owed = owed_jobs(sources.store, busy) if busy else {}
        rates = _tokens_per_second(sources.view.fleet)
        found = {}
        for name in {*views, *pauses, *held, *(waiting or ())}:
            view = views.get(name)
            configured = None if view is not None else self._configured(name)
            found[name] = PoolFacts(
                name=name,
                model=view.model if view else configured.name if configured else "",
                version=view.version if view else configured.version if configured else "",
                view=view,
                pause=pauses.get(name),
                jobs=max(0, held.get(name, 0)),
                waiting=None if waiting is None else waiting.get(name, 0),
                owed=owed.get(name, 0),
                tokens_per_second=rates.get(name, 0.0),
            )
        return found

    def _tell_redis(self) -> None:
        # Only sooner: the orchestrator's mirror writes it too, each second.
        with contextlib.suppress(redis.RedisError, *OUTAGE_ERRORS):
            self._sources.pools.set_paused(self._sources.store.read(pool_pauses))

    @contextlib.contextmanager
    def _redis(self) -> Iterator[None]:
        try:
            yield
        except OUTAGE_ERRORS as error:
            client = self._sources.pools.client
            raised = BrokerUnavailable(
                f"Redis at {address_of(client)} does not respond ({error}): some of the jobs may be done; "
                "try again once it is back"
            )
            raised.outward = "Redis does not respond: some of the jobs may be done; try again once it is back"
            raise raised from error


def _bounded(limit: int) -> int:
    return min(limit, MAX_JOBS_PER_CALL)


def _tokens_per_second(fleet: Fleet) -> Mapping[PoolName, float]:
    rates: dict[PoolName, float] = {}
    for member in fleet.members.values():
        silent = silent_in(member, fleet.silent)
        for name, _ in member.serves:
            if name not in silent:
                rates[name] = rates.get(name, 0.0) + member.presence.tokens_per_second
    return rates
