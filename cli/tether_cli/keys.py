"""`tether keys`: make, list and revoke API keys, in the database itself."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click

from tether.clocks import wall_clock_ms
from tether.errors import InvalidRequest, KeyNotFound
from tether.ids import TenantId
from tether.jobs import DEFAULT_TENANT
from tether_cli.acts import act_of_user, audited
from tether_cli.admin_store import admin_store, tenant_of
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tether.gateway.keys.api_keys import Scope
    from tether.store.api_keys import ApiKey

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    These verbs work directly on the database, so that a first key can be created: the database given by
    database.url or, if that is not set, that of the `tether up` running on this machine, else of the state
    folder that TETHER_DIR names.
    """


@keys.command()
@click.option(
    "--tenant", "tenant_id", default=DEFAULT_TENANT, show_default=True, help="Tenant that owns the key."
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    default=("submit", "read"),
    help="Scope of the key: submit, read, admin or operator (repeatable).  [default: submit and read]",
)
@click.option("--name", default="", help="Name of the key, to recognize it by.")
@as_json
def create(tenant_id: str, scopes: tuple[str, ...], name: str, is_json: bool) -> None:
    """Create an API key, and print it.

    The key is shown only once. All other output goes to standard error, so this exports a new key:

        export TETHER_API_KEY=$(tether keys create)
    """
    from tether.gateway.keys.api_keys import key_to_json, make_key
    from tether.store.api_keys import add_key

    known = [_scope(text) for text in scopes]
    tenant = TenantId(tenant_id)
    key, kept = make_key(tenant, known, now_ms=wall_clock_ms(), randomness=secrets.token_bytes, name=name)
    with admin_store() as store:
        tenant_of(store, tenant)
        act = act_of_user("keys.create", kept.key_id, tenant, name=name, scopes=list(kept.scopes))
        audited(store).write(act, lambda connection: add_key(connection, kept))
        place = store.place
    if is_json:
        print_json({**key_to_json(kept), "key": key})
        return
    say_aside(
        f"Created API key {kept.key_id} of tenant {tenant_id} with scopes "
        f"{', '.join(kept.scopes)} in {place}. "
        "It is shown only once:"
    )
    click.echo(key)


@keys.command("list")
@click.option("--tenant", "tenant_id", help="Only this tenant's keys.")
@click.option("--all", "is_all", is_flag=True, help="Include revoked keys.")
@as_json
def list_keys(tenant_id: str | None, is_all: bool, is_json: bool) -> None:
    """List API keys, oldest first. Of the keys themselves only the prefix is kept in clear."""
    from tether.gateway.keys.api_keys import key_to_json
    from tether.store.api_keys import keys_of

    with admin_store() as store:
        tenant = None if tenant_id is None else tenant_of(store, TenantId(tenant_id)).tenant_id
        known, place = store.read(keys_of, tenant), store.place
    shown = [key for key in known if is_all or key.revoked_at is None]
    if is_json:
        print_json({"object": "list", "data": [key_to_json(key) for key in shown]})
        return
    columns = ("key_id", "tenant", "name", "scopes", "prefix", "created", "revoked")
    print_table(
        columns,
        [
            (
                key.key_id,
                key.tenant_id,
                key.name or "-",
                ",".join(key.scopes),
                key.prefix,
                time_text(key.created_at),
                time_text(key.revoked_at),
            )
            for key in shown
        ],
    )
    if not shown:
        more = ", except revoked ones: --all shows them" if known else ""
        say_aside(f"No API keys in {place}{more}.")


@keys.command()
@click.argument("key_id")
@as_json
def revoke(key_id: str, is_json: bool) -> None:
    """Revoke an API key by its id. This cannot be undone.

    Gateways reject the key within two seconds and end its open streams. Revoking it again changes nothing.
    Jobs that were submitted with it continue.
    """
    from tether.config.types import suggestion
    from tether.gateway.keys.api_keys import key_to_json
    from tether.store.api_keys import keys_of, revoke_key

    # What is given may be a key, or most of one. A key is a secret, so neither message repeats it.
    if "tk_" in key_id:
        raise KeyNotFound(
            "this is an API key, not the id of one: `tether keys list` shows the id of each "
            "key with its prefix"
        )
    with admin_store() as store:
        known = {key.key_id: key.tenant_id for key in store.read(keys_of, None)}
        likely = suggestion(key_id, known) or "; `tether keys list --all` lists all keys"
        unknown = KeyNotFound(f"there is no API key with this id{likely}")
        if key_id not in known:
            raise unknown

        # One that was revoked long ago may have been forgotten since.
        def revoke_it(connection: Connection) -> ApiKey | KeyNotFound:
            return revoke_key(connection, key_id, None, wall_clock_ms()) or unknown

        revoked = audited(store).write(act_of_user("keys.revoke", key_id, known[key_id]), revoke_it)
    if is_json:
        print_json(key_to_json(revoked))
        return
    say_aside(f"{revoked.key_id} was revoked at {time_text(revoked.revoked_at)}.")


def _scope(text: str) -> Scope:
    from tether.config.types import suggestion
    from tether.gateway.keys.api_keys import Scope

    if text not in list(Scope):
        meant = suggestion(text, Scope) or f"; use {', '.join(Scope)}"
        raise InvalidRequest(f"there is no scope {text[:80]!r}{meant}")
    return Scope(text)
