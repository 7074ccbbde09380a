"""`tether fleet trust`, `revoke` and `keys`: which workers' keys count, in the database or at a gateway."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tether.clocks import wall_clock_ms
from tether.errors import InvalidRequest, TetherError
from tether_cli.acts import act_of_user, audited
from tether_cli.admin_store import admin_settings, open_store
from tether_cli.fleet.asking import asking_operator, timeout_option
from tether_cli.fleet.last_workers import confirm_last, yes_option
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from sqlalchemy import Connection as DatabaseConnection

    from tether.config.settings import Settings
    from tether.core.last_workers import LastWorkerPool
    from tether.discovery.trust.worker_keys import KnownKey
    from tether.store import Store
    from tether.store.fleet_keys import FleetKey
    from tether_cli.fleet.texts import Document


REDIS_SECONDS = 3.0
"""What Redis may take to answer: telling it at once is only a help."""

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")


@click.command()
@click.argument("key", metavar="KEY_OR_FILE")
@click.option("--name", help="Name for the worker.")
@click.option("--again", is_flag=True, help="Trust a revoked key again.")
@as_json
@gateway_options
def trust(gateway: Connection | None, key: str, name: str | None, again: bool, is_json: bool) -> None:
    """Trust a worker's key, so that its announcements are accepted.

    KEY_OR_FILE is the public key (64 hexadecimal digits), or the .pub file in the worker's identity folder
    that contains it. Workers of a `tether up` on this machine are enrolled automatically.
    """
    if gateway is None:
        trusted, is_told = _trust_here(key, name, is_again=again)
    else:
        from tether_cli.fleet.over_http import trust_over_http

        with asking_operator(gateway, None, is_json=is_json) as client:
            trusted = client.understood(_known_key, trust_over_http(client, key, name, is_again=again))
            is_told = True
    if is_json:
        print_json(trusted)
        return
    say_aside(f"Worker {_shown(trusted)} is trusted. {_when(is_told)}")


def _trust_here(key: str, name: str | None, *, is_again: bool) -> tuple[Document, bool]:
    """The key, and whether Redis was told."""
    from tether.discovery.announcements.presence import worker_id
    from tether.discovery.trust.worker_keys import public_key
    from tether.store.fleet_keys import all_fleet_keys, check_worker_name, enrol

    check_worker_name(name)
    settings = admin_settings()
    with open_store(settings) as store:
        pub_key = public_key(key, _known(settings, store.read(all_fleet_keys)))

        def trust_it(connection: DatabaseConnection) -> FleetKey | TetherError:
            enrolled = enrol(connection, pub_key, name, wall_clock_ms(), lifts_revocation=is_again)
            if enrolled.revoked_at is None:
                return enrolled
            return InvalidRequest(
                f"the key of worker {enrolled.worker_id} was revoked at {time_text(enrolled.revoked_at)}: "
                "use --again to trust it again"
            )

        act = act_of_user("fleet.trust", worker_id(pub_key), pub_key=pub_key, name=name, again=is_again)
        enrolled = audited(store).write(act, trust_it)
        return _key_to_json(enrolled), _tell_redis(settings, store)


@click.command()
@click.argument("worker", metavar="WORKER_OR_KEY")
@as_json
@yes_option
@gateway_options
def revoke(gateway: Connection | None, worker: str, is_json: bool, is_sure: bool) -> None:
    """Revoke a worker's key: reject its announcements, and assign it no more jobs.

    WORKER_OR_KEY is a worker id, a name if only one worker has it, a public key or a .pub file. Jobs that
    the worker runs continue on another one, at the same token. Revocation overrides any other place that
    names the key: configuration and identity folders. `tether fleet trust --again` undoes it. Where it is the
    last worker of a pool, that is said first, with what becomes of the jobs that wait there; a terminal is
    asked.
    """
    if gateway is None:
        revoked, is_known, is_told = _revoke_here(worker, is_json=is_json, is_sure=is_sure)
    else:
        from tether_cli.fleet.over_http import revoke_over_http

        with gateway.open_operator() as client:
            found, is_known = revoke_over_http(
                client, worker, lambda last: confirm_last(last, None, is_sure=is_sure, is_silent=is_json)
            )
            revoked, is_told = client.understood(_known_key, found), True
    if is_json:
        print_json(revoked)
        return
    note = "" if is_known else " It was never enrolled here: check that it is the right key."
    at = time_text(revoked["revoked_at"])
    say_aside(f"Worker {_shown(revoked)} was revoked at {at}.{note} {_when(is_told)}")


def _revoke_here(worker: str, *, is_json: bool, is_sure: bool) -> tuple[Document, bool, bool]:
    """The key, whether this machine knew it, and whether Redis was told."""
    from tether.discovery.announcements.presence import worker_id
    from tether.discovery.trust.worker_keys import meant_key
    from tether.store.fleet_keys import all_fleet_keys
    from tether.store.fleet_keys import revoke as revoke_key

    settings = admin_settings()
    with open_store(settings) as store:
        known = _known(settings, store.read(all_fleet_keys))
        pub_key = meant_key(worker, known)
        confirm_last(_last_of(settings, pub_key), settings, is_sure=is_sure, is_silent=is_json)
        act = act_of_user("fleet.revoke", worker_id(pub_key), pub_key=pub_key)
        revoked = audited(store).write(
            act, lambda connection: revoke_key(connection, pub_key, wall_clock_ms())
        )
        is_known = any(one.pub_key == pub_key for one in known)
        return _key_to_json(revoked), is_known, _tell_redis(settings, store)


@click.command()
@click.option("--all", "is_all", is_flag=True, help="Include revoked keys.")
@as_json
@timeout_option
@gateway_options
def keys(gateway: Connection | None, is_all: bool, is_json: bool, within: float | None) -> None:
    """List the enrolled worker keys, oldest first."""
    if gateway is None:
        from tether.store.fleet_keys import all_fleet_keys

        with open_store(admin_settings()) as store:
            found: list[Document] = [_key_to_json(key) for key in store.read(all_fleet_keys)]
    else:
        with asking_operator(gateway, within, is_json=is_json) as client:
            listed = client.ask("GET", "worker-keys")
            found = client.understood(lambda value: [_known_key(key) for key in value["data"]], listed)
    shown = [key for key in found if is_all or key["revoked_at"] is None]
    if is_json:
        print_json({"object": "list", "data": shown})
        return
    print_table(
        ("worker", "name", "key", "added", "revoked"),
        [
            (
                *(key["worker_id"], one_line(key["name"]) or "-", key["pub_key"]),
                *(time_text(key["added_at"]), time_text(key["revoked_at"])),
            )
            for key in shown
        ],
    )


def _last_of(settings: Settings, pub_key: str) -> Sequence[LastWorkerPool]:
    """The pools whose last worker has this key; none where Redis does not tell: a key is revoked anyway."""
    from tether.core.fleet_reading import open_fleet
    from tether.core.pool_backlogs import last_worker_of, owed_where_known
    from tether.discovery.announcements.presence import worker_id
    from tether.errors import BrokerUnavailable

    try:
        with open_fleet(settings) as reading:
            owed = functools.partial(owed_where_known, settings)
            return last_worker_of(reading, worker_id(pub_key), owed)
    except BrokerUnavailable:
        return ()


def _known(settings: Settings, enrolled: list[FleetKey]) -> list[KnownKey]:
    from tether.discovery.trust.worker_keys import known_keys

    return known_keys(settings, {key.pub_key: key.name for key in enrolled})


def _tell_redis(settings: Settings, store: Store) -> bool:
    """Copy the keys from the database to Redis, as the orchestrator does. Return whether that succeeded."""
    import redis

    from tether.broker.keys import Keys
    from tether.discovery.trust.enrolment import RedisEnrolment
    from tether.store.fleet_keys import current_trust

    client = redis.Redis.from_url(
        settings.redis.url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
    )
    redis_keys = Keys(settings.redis.namespace, settings.redis.hash_tag)
    try:
        with client:
            RedisEnrolment(client, redis_keys).write(store.read(current_trust))
    except redis.RedisError:
        return False
    return True


def _when(is_told: bool) -> str:
    if is_told:
        return "This takes effect within 2 seconds."
    return (
        "Redis is unavailable: this takes effect within 2 seconds of its return, if an "
        "orchestrator is running."
    )


def _shown(key: Document) -> str:
    name = one_line(key["name"])
    return f"{key['worker_id']} ({name})" if name else str(key["worker_id"])


def _key_to_json(key: FleetKey) -> dict[str, Any]:
    return {"object": "fleet_key", **vars(key)}


def _known_key(found: Document) -> Document:
    """A key as a gateway tells of it, with all that is shown of one."""
    for name in ("worker_id", "name", "pub_key", "added_at", "revoked_at"):
        found[name]
    return found
