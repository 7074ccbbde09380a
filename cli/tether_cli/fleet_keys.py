"""`tether fleet trust`, `revoke` and `keys`: which workers' keys count, in the database itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from tether.errors import InvalidRequest
from tether_cli.admin_store import admin_settings, open_store
from tether_cli.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.config import Settings
    from tether.store import Store
    from tether.store.fleet_keys import FleetKey
    from tether_cli.worker_keys import KnownKey

LONGEST_NAME = 100
"""Characters of the name of a key."""

REDIS_SECONDS = 3.0
"""What Redis may take to answer: telling it at once is only a help."""

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")


@click.command()
@click.argument("key", metavar="KEY_OR_FILE")
@click.option("--name", help="What to call the worker.")
@click.option("--again", is_flag=True, help="Trust a key again that was revoked.")
@as_json
def trust(key: str, name: str | None, again: bool, is_json: bool) -> None:
    """Let a worker's announcements count, by its public key.

    KEY_OR_FILE is the key, 64 characters of 0 to 9 and a to f, or the .pub file in the worker's identity
    folder that holds it. Workers under a `tether up` on this machine are enrolled by themselves.
    """
    from tether.store.fleet_keys import all_fleet_keys, enrol
    from tether_cli.worker_keys import public_key

    if name is not None and (len(name) > LONGEST_NAME or not name.isprintable()):
        raise InvalidRequest(f"the name of a key must be at most {LONGEST_NAME} printable characters")
    settings = admin_settings()
    with open_store(settings) as store:
        pub_key = public_key(key, _known(settings, store.read(all_fleet_keys)))
        enrolled = store.write_alone(enrol, pub_key, name, _now_ms(), lifts_revocation=again).result()
        if enrolled.revoked_at is not None:
            raise InvalidRequest(
                f"the key of worker {enrolled.worker_id} was revoked at {time_text(enrolled.revoked_at)}: "
                "--again trusts it all the same"
            )
        is_told = _tell_redis(settings, store)
    if is_json:
        print_json(_key_to_json(enrolled))
        return
    click.echo(f"Worker {_shown(enrolled)} counts. {_when(is_told)}", err=True)


@click.command()
@click.argument("worker", metavar="WORKER_OR_KEY")
@as_json
def revoke(worker: str, is_json: bool) -> None:
    """Let a worker's announcements count no longer, and give it no more jobs.

    WORKER_OR_KEY is the worker's id, its name where only one has it, its public key or its .pub file. What
    the worker runs goes on elsewhere, at the same token. This holds whatever else names the key: a
    configuration, or the identity folder. `tether fleet trust --again` takes it back.
    """
    from tether.store.fleet_keys import all_fleet_keys
    from tether.store.fleet_keys import revoke as revoke_key
    from tether_cli.worker_keys import meant_key

    settings = admin_settings()
    with open_store(settings) as store:
        known = _known(settings, store.read(all_fleet_keys))
        pub_key = meant_key(worker, known)
        revoked = store.write_alone(revoke_key, pub_key, _now_ms()).result()
        is_told = _tell_redis(settings, store)
    if is_json:
        print_json(_key_to_json(revoked))
        return
    is_known = any(one.pub_key == pub_key for one in known)
    note = "" if is_known else " It was not known here: check that it is the right key."
    at = time_text(revoked.revoked_at)
    click.echo(f"Worker {_shown(revoked)} was revoked at {at}.{note} {_when(is_told)}", err=True)


@click.command()
@click.option("--all", "is_all", is_flag=True, help="Those that were revoked, too.")
@as_json
def keys(is_all: bool, is_json: bool) -> None:
    """List the workers' keys that were enrolled, the oldest first."""
    from tether.store.fleet_keys import all_fleet_keys

    with open_store(admin_settings()) as store:
        found = [key for key in store.read(all_fleet_keys) if is_all or key.revoked_at is None]
    if is_json:
        print_json({"object": "list", "data": [_key_to_json(key) for key in found]})
        return
    print_table(
        ("worker", "name", "key", "added", "revoked"),
        [
            (key.worker_id, key.name or "-", key.pub_key, time_text(key.added_at), time_text(key.revoked_at))
            for key in found
        ],
    )


def _known(settings: Settings, enrolled: list[FleetKey]) -> list[KnownKey]:
    """Every key that this machine knows of, whatever names it."""
    from tether.discovery.trust.trusted_keys import keys_in
    from tether_cli.worker_keys import KnownKey

    names = dict.fromkeys(settings.presence.trusted_keys, "") | keys_in(settings.presence.identity_dir)
    names |= {key.pub_key: key.name or names.get(key.pub_key, "") for key in enrolled}
    return [KnownKey(pub_key, name) for pub_key, name in names.items()]


def _tell_redis(settings: Settings, store: Store) -> bool:
    """Write what the database has to Redis; the orchestrator does it too. Answers whether Redis took it."""
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
        return "All others know it within 2 seconds."
    return "Redis is away: all others know it within 2 seconds of its return, while an orchestrator runs."


def _shown(key: FleetKey) -> str:
    return f"{key.worker_id} ({key.name})" if key.name else key.worker_id


def _key_to_json(key: FleetKey) -> dict[str, Any]:
    return {"object": "fleet_key", **vars(key)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
