"""How the verbs about policies ask: this machine's database, or a gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tether.clocks import wall_clock_ms
from tether.ids import TenantId
from tether_cli.acts import act_of_user
from tether_cli.admin_store import admin_store, tenant_of
from tether_cli.fleet.asking import asking_operator
from tether_cli.options.connection import Connection

if TYPE_CHECKING:
    from tether.client.http.operator import OperatorClient
    from tether.policies.document import Policy


class AsksPolicies(Protocol):
    """What the verbs ask for; see :class:`~tether.core.policy_control.PolicyControl`."""

    def show(self, tenant_id: TenantId, version: int | None = None) -> Mapping[str, Any]: ...

    def set(
        self, tenant_id: TenantId, policy: Policy, if_version: int | None = None
    ) -> Mapping[str, Any]: ...

    def diff(self, tenant_id: TenantId, policy: Policy) -> Mapping[str, Any]: ...


@contextlib.contextmanager
def asking_policies(
    gateway: Connection | None, within: float | None, tenant: str, *, is_json: bool
) -> Iterator[AsksPolicies]:
    """Where policies are asked for and set.

    Args:
      gateway: The one that was named; None for this machine's database.
      within: Seconds for all of it; None where nobody said.
      tenant: Whose policy: here a name like it is suggested where there is none.
    """
    if gateway is not None:
        with asking_operator(gateway, within, is_json=is_json) as client:
            yield _PoliciesOverHttp(client)
        return
    from tether.core.policy_control import PolicyControl

    with admin_store() as store:
        tenant_of(store, TenantId(tenant))
        yield PolicyControl(
            store,
            lambda action, target, tenant_id, details: act_of_user(action, target, tenant_id, **details),
            wall_clock_ms,
        )


class _PoliciesOverHttp:
    """Asks a gateway, with an operator's API key."""

    def __init__(self, client: OperatorClient) -> None:
        self._client = client

    def show(self, tenant_id: TenantId, version: int | None = None) -> Mapping[str, Any]:
        query = {} if version is None else {"version": str(version)}
        return self._client.ask("GET", "tenants", tenant_id, "policy", query=query)

    def set(self, tenant_id: TenantId, policy: Policy, if_version: int | None = None) -> Mapping[str, Any]:
        return self._post(tenant_id, policy, {"if_version": if_version})

    def diff(self, tenant_id: TenantId, policy: Policy) -> Mapping[str, Any]:
        answer = self._post(tenant_id, policy, {"dry_run": True})
        return {
            "object": "policy_diff",
            **{name: answer[name] for name in ("tenant_id", "version", "differences")},
        }

    def _post(self, tenant_id: TenantId, policy: Policy, values: Mapping[str, Any]) -> Mapping[str, Any]:
        from tether.policies.reading import policy_document

        body = {"document": policy_document(policy), **values}
        return self._client.ask("POST", "tenants", tenant_id, "policy", values=body)
