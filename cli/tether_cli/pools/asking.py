"""How the verbs about pools ask: this machine's Redis and database, or a gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tether.clocks import monotonic_ms, wall_clock_ms
from tether_cli.acts import act_of_user
from tether_cli.admin_store import admin_settings, open_store
from tether_cli.fleet.asking import asking_operator
from tether_cli.options.connection import Connection

if TYPE_CHECKING:
    from tether.client.http.operator import OperatorClient
    from tether.core.pool_control import PoolControl


PoolDocuments: TypeAlias = Mapping[str, Any]


class AsksPools(Protocol):
    """What the verbs ask for: all answers are documents of the gateway's routes of pools."""

    def list_pools(self) -> PoolDocuments: ...

    def show(self, text: str) -> PoolDocuments: ...

    def pause(self, text: str, reason: str) -> PoolDocuments: ...

    def resume(self, text: str) -> PoolDocuments: ...

    def move(self, text: str, to: str | None, limit: int, *, parks: bool) -> PoolDocuments: ...

    def purge(self, text: str, limit: int) -> PoolDocuments: ...


@contextlib.contextmanager
def asking_pools(gateway: Connection | None, within: float | None, *, is_json: bool) -> Iterator[AsksPools]:
    """Where pools are asked for and changed.

    Args:
      gateway: The one that was named; None for this machine's Redis and database.
      within: Seconds for all of it; None where nobody said.

    Raises:
      BrokerUnavailable, StoreError: They do not respond.
    """
    if gateway is None:
        with _pools_here(within) as control:
            yield control
        return
    with asking_operator(gateway, within, is_json=is_json) as client:
        yield _PoolsOverHttp(client)


@contextlib.contextmanager
def _pools_here(within: float | None) -> Iterator[PoolControl]:
    from tether.broker.pools.pools import Pools
    from tether.core.fleet_reading import open_fleet
    from tether.core.pool_control import PoolControl, PoolSources
    from tether.models.registry import Registry
    from tether.scheduling.cancellation import Cancellation
    from tether.scheduling.known_breakers import breaker_rules
    from tether.scheduling.shared_breakers import SharedBreakers

    settings = admin_settings()
    with open_fleet(settings, within=within) as reading, open_store(settings) as store:
        pools = Pools(
            reading.client,
            reading.keys,
            watermark=settings.redis.watermark,
            lane_bytes=settings.redis.lane_bytes,
        )
        with contextlib.closing(pools):
            registry = Registry.from_settings(settings)
            breakers = SharedBreakers(pools, registry, breaker_rules(settings.breaker))
            sources = PoolSources(
                store=store,
                pools=pools,
                view=reading.view,
                registry=registry,
                ending=Cancellation(store, pools, settings.jobs.result_ttl),
                names=lambda: reading.names,
                now=monotonic_ms,
                now_ms=wall_clock_ms,
                shut=breakers.told,
            )
            yield PoolControl(sources, lambda action, target, details: act_of_user(action, target, **details))


class _PoolsOverHttp:
    """Asks a gateway, with an operator's API key."""

    def __init__(self, client: OperatorClient) -> None:
        self._client = client

    def list_pools(self) -> PoolDocuments:
        return self._ask("GET")

    def show(self, text: str) -> PoolDocuments:
        return self._ask("GET", text)

    def pause(self, text: str, reason: str) -> PoolDocuments:
        return self._ask("POST", text, "pause", values={"reason": reason})

    def resume(self, text: str) -> PoolDocuments:
        return self._ask("POST", text, "resume")

    def move(self, text: str, to: str | None, limit: int, *, parks: bool) -> PoolDocuments:
        return self._ask("POST", text, "move", values={"to": to, "park": parks, "limit": limit})

    def purge(self, text: str, limit: int) -> PoolDocuments:
        return self._ask("POST", text, "purge", values={"limit": limit})

    def _ask(self, method: str, *parts: str, values: Mapping[str, Any] | None = None) -> PoolDocuments:
        return self._client.ask(method, "pools", *parts, values=values)
