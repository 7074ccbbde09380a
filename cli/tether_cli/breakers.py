"""`tether breakers`: the circuit breakers of models in regions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import click

from tether.clocks import wall_clock_ms
from tether_cli.acts import act_of_user, audited
from tether_cli.admin_store import admin_settings, open_store
from tether_cli.fleet.asking import asking_operator, timeout_option
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table, time_text
from tether_cli.verb_groups import VerbGroup

if TYPE_CHECKING:
    from tether.client.http.operator import OperatorClient

BreakerDoc: TypeAlias = Mapping[str, Any]
"""A document of the gateway's routes of breakers."""

COLUMNS = ("model", "region", "state", "opened", "next try", "trips", "ms/token")


class AsksBreakers(Protocol):
    """What the verbs ask for."""

    def list_breakers(self) -> BreakerDoc: ...

    def reset(self, model: str, region: str) -> BreakerDoc: ...


@click.group(cls=VerbGroup)
def breakers() -> None:
    """List the circuit breakers of models in regions, and reset them."""


@breakers.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def list_breakers(gateway: Connection | None, is_json: bool, within: float | None) -> None:
    """List the breakers of models that lately ran in a region, and all that are not closed.

    Where one is open, jobs go to other regions or wait, since the model fails or is slow there.
    """
    with _asking(gateway, within, is_json=is_json) as asked:
        found = asked.list_breakers()
    if is_json:
        print_json(found)
        return
    print_table(COLUMNS, [_row(one) for one in found["data"]])
    if not found["data"]:
        say_aside("No breakers: no attempt has ended lately, and none is open.")
    for one in found["data"]:
        if one["why"]:
            say_aside(one_line(f"{one['model']}@{one['version']} in {one['region']}: {one['why']}"))


@breakers.command()
@click.argument("model", metavar="MODEL")
@click.argument("region", metavar="REGION")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def reset(gateway: Connection | None, model: str, region: str, is_json: bool, within: float | None) -> None:
    """Close the breaker of a model in a region, and forget its normal speed.

    MODEL is name@version; a name alone is all its versions. What failed before does not open it again.
    """
    with _asking(gateway, within, is_json=is_json) as asked:
        document = asked.reset(model, region)
    if is_json:
        print_json(document)
        return
    for one in document["data"]:
        was = one["state"].replace("_", "-")
        say_aside(
            one_line(
                f"The breaker of {one['model']}@{one['version']} in {one['region']} is closed; it was {was}."
            )
        )


@contextlib.contextmanager
def _asking(gateway: Connection | None, within: float | None, *, is_json: bool) -> Iterator[AsksBreakers]:
    if gateway is None:
        with _breakers_here(within) as control:
            yield control
        return
    with asking_operator(gateway, within, is_json=is_json) as client:
        yield _BreakersOverHttp(client)


@contextlib.contextmanager
def _breakers_here(within: float | None) -> Iterator[AsksBreakers]:
    from tether.broker.pools.pools import Pools
    from tether.core.breaker_control import BreakerControl
    from tether.core.fleet_reading import open_fleet
    from tether.models.registry import Registry
    from tether.scheduling.known_breakers import breaker_rules
    from tether.scheduling.shared_breakers import SharedBreakers

    settings = admin_settings()
    with (
        open_fleet(settings, within=within) as reading,
        open_store(settings) as store,
        contextlib.closing(Pools(reading.client, reading.keys)) as pools,
    ):
        shared = SharedBreakers(pools, Registry.from_settings(settings), breaker_rules(settings.breaker))
        yield BreakerControl(
            shared,
            reading.client,
            audited(store),
            lambda action, target, details: act_of_user(action, target, **details),
            wall_clock_ms,
        )


class _BreakersOverHttp:
    """Asks a gateway, with an operator's API key."""

    def __init__(self, client: OperatorClient) -> None:
        self._client = client

    def list_breakers(self) -> BreakerDoc:
        return self._client.ask("GET", "breakers")

    def reset(self, model: str, region: str) -> BreakerDoc:
        return self._client.ask("POST", "breakers", "reset", values={"model": model, "region": region})


def _row(one: BreakerDoc) -> tuple[str, ...]:
    speed = one["ms_per_token"]
    return (
        one_line(f"{one['model']}@{one['version']}"),
        one_line(one["region"]),
        one["state"].replace("_", "-"),
        time_text(one["opened_at"]),
        time_text(one["next_probe_at"]),
        str(one["trips"]),
        "-" if speed is None else f"{speed:.3g}",
    )
