"""`tether keys`: make, list and revoke API keys, in the database itself."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import click

from tether.errors import InvalidRequest, KeyNotFound
from tether_cli.admin_store import admin_store, tenant_of
from tether_cli.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.gateway.api_keys import Scope

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")


@click.group()
def keys() -> None:
    """Make, list and revoke API keys.

    These verbs work on the database itself: the first key must come from somewhere. It is the one that
    database.url names; where that is left at its default, that of the `tether up` on this machine, if one
    runs.
    """


@keys.command()
@click.option("--tenant", "tenant_id", default="default", show_default=True, help="Whose key it is.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    default=("submit", "read"),
    help="What it is good for: submit, read or admin; may be repeated.  [default: submit and read]",
)
@click.option("--name", default="", help="What it is for.")
@as_json
def create(tenant_id: str, scopes: tuple[str, ...], name: str, is_json: bool) -> None:
    """Make an API key, and print it.

    It is shown this once. All else goes to standard error, so this puts a new key into the environment:

        export TETHER_API_KEY=$(tether keys create)
    """
    from tether.gateway.api_keys import key_to_json, make_key
    from tether.store.api_keys import add_key

    known = [_scope(text) for text in scopes]
    key, kept = make_key(
        tenant_id, known, now_ms=time.time_ns() // 1_000_000, randomness=secrets.token_bytes, name=name
    )
    with admin_store() as store:
        tenant_of(store, tenant_id)
        store.write_alone(add_key, kept).result()
        place = store.place
    if is_json:
        print_json({**key_to_json(kept), "key": key})
        return
    click.echo(
        f"{kept.key_id} is a new API key of tenant {tenant_id} for {', '.join(kept.scopes)}, in {place}. "
        "It is shown this once:",
        err=True,
    )
    click.echo(key)


@keys.command("list")
@click.option("--tenant", "tenant_id", help="Only this tenant's keys.")
@click.option("--all", "is_all", is_flag=True, help="Those that were revoked, too.")
@as_json
def list_keys(tenant_id: str | None, is_all: bool, is_json: bool) -> None:
    """List API keys, the oldest first. The keys themselves are not kept: only how they begin."""
    from tether.gateway.api_keys import key_to_json
    from tether.store.api_keys import keys_of

    with admin_store() as store:
        if tenant_id is not None:
            tenant_of(store, tenant_id)
        found = [key for key in store.read(keys_of, tenant_id) if is_all or key.revoked_at is None]
    if is_json:
        print_json({"object": "list", "data": [key_to_json(key) for key in found]})
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
            for key in found
        ],
    )


@keys.command()
@click.argument("key_id")
@as_json
def revoke(key_id: str, is_json: bool) -> None:
    """Revoke an API key, by its id. It cannot be undone.

    Gateways turn the key away within two seconds, and end its open streams. Revoking it again changes
    nothing. Jobs that were submitted with it go on.
    """
    from tether.config_types import suggestion
    from tether.gateway.api_keys import key_to_json
    from tether.store.api_keys import keys_of, revoke_key

    # What is given may be a key, or most of one. A key is a secret, so neither message repeats it.
    if "tk_" in key_id:
        raise KeyNotFound(
            "that is a key itself: give its id, which `tether keys list` has beside its beginning"
        )
    with admin_store() as store:
        revoked = store.write_alone(revoke_key, key_id, None, time.time_ns() // 1_000_000).result()
        if revoked is None:
            known = [key.key_id for key in store.read(keys_of, None)]
            likely = suggestion(key_id, known) or "; `tether keys list --all` has them all"
            raise KeyNotFound(f"there is no API key with this id{likely}")
    if is_json:
        print_json(key_to_json(revoked))
        return
    click.echo(f"{revoked.key_id} was revoked at {time_text(revoked.revoked_at)}.", err=True)


def _scope(text: str) -> Scope:
    from tether.config_types import suggestion
    from tether.gateway.api_keys import Scope

    if text not in list(Scope):
        meant = suggestion(text, Scope) or f"; use {', '.join(Scope)}"
        raise InvalidRequest(f"there is no scope {text[:80]!r}{meant}")
    return Scope(text)
