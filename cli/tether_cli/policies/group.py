"""`tether policies`: show, check, compare and set what tenants may do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tether.errors import InvalidRequest
from tether.ids import TenantId
from tether_cli.fleet.asking import timeout_option
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.policies.asking import asking_policies
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, time_text
from tether_cli.verb_groups import VerbGroup

if TYPE_CHECKING:
    from tether.policies.document import Policy

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
tenant_argument = click.argument("tenant_id", metavar="TENANT")
file_argument = click.argument("file", metavar="FILE", type=click.File("rb"))


@click.group(cls=VerbGroup)
def policies() -> None:
    """Show, check, compare and set what tenants may do.

    A policy is a JSON document; FILE is the file that holds it, or - for standard input. These verbs work
    directly on the database, as `tether tenants` does, or ask a gateway with --url.
    """


@policies.command()
@tenant_argument
@click.option("--version", type=click.IntRange(1), metavar="N", help="Show this version.  [default: newest]")
@as_json
@timeout_option
@gateway_options
def show(
    gateway: Connection | None, tenant_id: str, version: int | None, is_json: bool, within: float | None
) -> None:
    """Show a tenant's policy, as JSON that `tether policies set` takes."""
    with asking_policies(gateway, within, tenant_id, is_json=is_json) as asked:
        document = asked.show(TenantId(tenant_id), version)
    if is_json:
        print_json(document)
        return
    if document["version"]:
        by = f"set {time_text(document['created_at'])} by {document['created_by']}"
        say_aside(one_line(f"Version {document['version']} of the policy of tenant {tenant_id}, {by}."))
    else:
        say_aside(f"Tenant {tenant_id} has no policy: everything is allowed.")
    if document["problem"] is not None:
        say_aside(
            one_line(f"It cannot be read, and nothing of the tenant is accepted: {document['problem']}")
        )
    if document["document"] is not None:
        click.echo(json.dumps(document["document"], indent=2))


@policies.command("set")
@tenant_argument
@file_argument
@click.option(
    "--if-version",
    type=click.IntRange(0),
    metavar="N",
    help="Set it only if the policy has this version now; 0 where it is to have none.",
)
@as_json
@timeout_option
@gateway_options
def set_of_tenant(
    gateway: Connection | None,
    tenant_id: str,
    file: Any,
    if_version: int | None,
    is_json: bool,
    within: float | None,
) -> None:
    """Set a tenant's policy: it becomes the next version.

    It counts everywhere within 2 seconds, for what is submitted or placed from then on. {} allows everything.
    """
    policy = _policy_in(file)
    with asking_policies(gateway, within, tenant_id, is_json=is_json) as asked:
        document = asked.set(TenantId(tenant_id), policy, if_version)
    if is_json:
        print_json(document)
        return
    _tell(document["differences"])
    say_aside(f"The policy of tenant {tenant_id} has version {document['version']} now.")


@policies.command()
@file_argument
@click.option("--tenant", "tenant_id", metavar="TENANT", help="Also say what would change for this tenant.")
@as_json
@timeout_option
@gateway_options
def check(
    gateway: Connection | None, file: Any, tenant_id: str | None, is_json: bool, within: float | None
) -> None:
    """Validate a policy without setting it. All that is wrong is said at once; the exit status is 2 then."""
    policy = _policy_in(file)
    if gateway is not None and tenant_id is None:
        raise InvalidRequest(
            "a policy is checked here, without a gateway: give --tenant as well, or no --url"
        )
    if tenant_id is not None:
        _compare(gateway, tenant_id, policy, is_json=is_json, within=within)
    elif is_json:
        from tether.policies.reading import policy_document

        print_json({"object": "policy_check", "document": policy_document(policy)})
    else:
        say_aside("The policy is valid.")


@policies.command()
@tenant_argument
@file_argument
@as_json
@timeout_option
@gateway_options
def diff(gateway: Connection | None, tenant_id: str, file: Any, is_json: bool, within: float | None) -> None:
    """Show what would change if a policy were set."""
    _compare(gateway, tenant_id, _policy_in(file), is_json=is_json, within=within)


def _compare(
    gateway: Connection | None, tenant_id: str, policy: Policy, *, is_json: bool, within: float | None
) -> None:
    with asking_policies(gateway, within, tenant_id, is_json=is_json) as asked:
        document = asked.diff(TenantId(tenant_id), policy)
    if is_json:
        print_json(document)
    elif document["differences"]:
        _tell(document["differences"])
        say_aside(f"Compared with version {document['version']} of the policy of tenant {tenant_id}.")
    else:
        say_aside(f"That is version {document['version']} of the policy of tenant {tenant_id}.")


def _tell(differences: Sequence[Mapping[str, Any]]) -> None:
    for each in differences:
        before, after = (_text_of(each[name]) for name in ("before", "after"))
        click.echo(one_line(f"{each['path']}: {before} -> {after}"))


def _text_of(value: object) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _policy_in(file: Any) -> Policy:
    from tether.policies.document import MAX_POLICY_BYTES
    from tether.policies.reading import policy_from_text

    try:
        return policy_from_text(file.read(MAX_POLICY_BYTES + 1))
    except OSError as error:
        raise InvalidRequest(f"{file.name} cannot be read: {error.strerror}") from None
