"""The table of what operators and admins see and do: by HTTP, on the command line, in the audit log."""

from __future__ import annotations

from tether.gateway.app import ROOMS
from tether.gateway.keys.api_keys import Scope

SOURCE = "ops/docs/operators_table.py"

VERBS = {
    "GET /v1/keys": ("keys list", ""),
    "POST /v1/keys": ("keys create", "keys.create"),
    "DELETE /v1/keys/{key_id}": ("keys revoke", "keys.revoke"),
    "GET /v1/operator/workers": ("fleet list", ""),
    "GET /v1/operator/workers/{worker}": ("fleet show", ""),
    "GET /v1/operator/fleet/changes": ("fleet watch", ""),
    "POST /v1/operator/workers/{worker}/cordon": ("fleet cordon", "fleet.cordon"),
    "POST /v1/operator/workers/{worker}/drain": ("fleet drain", "fleet.drain"),
    "POST /v1/operator/workers/{worker}/uncordon": ("fleet uncordon", "fleet.uncordon"),
    "GET /v1/operator/worker-keys": ("fleet keys", ""),
    "POST /v1/operator/worker-keys": ("fleet trust", "fleet.trust"),
    "DELETE /v1/operator/worker-keys/{worker}": ("fleet revoke", "fleet.revoke"),
    "GET /v1/operator/pools": ("pools list", ""),
    "GET /v1/operator/pools/{pool}": ("pools show", ""),
    "POST /v1/operator/pools/{pool}/pause": ("pools pause", "pools.pause"),
    "POST /v1/operator/pools/{pool}/resume": ("pools resume", "pools.resume"),
    "POST /v1/operator/pools/{pool}/move": ("pools move", "pools.move"),
    "POST /v1/operator/pools/{pool}/purge": ("pools purge", "pools.purge"),
    "GET /v1/operator/breakers": ("breakers list", ""),
    "POST /v1/operator/breakers/reset": ("breakers reset", "breakers.reset"),
    "GET /v1/operator/jobs": ("jobs list", ""),
    "POST /v1/operator/jobs:cancel-where": ("jobs cancel", "jobs.cancel_where"),
    "POST /v1/operator/jobs:reprioritise-where": ("jobs reprioritise", "jobs.reprioritise_where"),
    "GET /v1/operator/jobs/{job_id}": ("jobs show", ""),
    "GET /v1/operator/jobs/{job_id}/attempts": ("jobs show", ""),
    "GET /v1/operator/jobs/{job_id}/placements": ("explain", ""),
    "DELETE /v1/operator/jobs/{job_id}": ("jobs cancel", "jobs.cancel"),
    "PATCH /v1/operator/jobs/{job_id}": ("jobs reprioritise", "jobs.reprioritise"),
    "GET /v1/operator/dead-letters": ("dlq list", ""),
    "GET /v1/operator/dead-letters:export": ("dlq export", ""),
    "GET /v1/operator/dead-letters:summary": ("dlq list", ""),
    "GET /v1/operator/dead-letters/{job_id}": ("dlq show", ""),
    "POST /v1/operator/dead-letters:retry": ("dlq retry", "dead_letters.retry"),
    "POST /v1/operator/dead-letters:retry-where": ("dlq retry", "dead_letters.retry_where"),
    "POST /v1/operator/dead-letters:purge": ("dlq purge", "dead_letters.purge"),
    "GET /v1/operator/dead-messages": ("dlq list", ""),
    "GET /v1/operator/dead-messages/{queue}": ("dlq list", ""),
    "GET /v1/operator/dead-messages/{queue}/{retry_token}": ("dlq show", ""),
    "POST /v1/operator/dead-messages:retry": ("dlq retry", "dead_messages.retry"),
    "POST /v1/operator/dead-messages:purge": ("dlq purge", "dead_messages.purge"),
    "GET /v1/operator/tenants": ("tenants list", ""),
    "POST /v1/operator/tenants": ("tenants create", "tenants.create"),
    "PATCH /v1/operator/tenants/{tenant_id}": ("tenants set", "tenants.set"),
    "GET /v1/operator/tenants/{tenant_id}/policy": ("policies show", ""),
    "POST /v1/operator/tenants/{tenant_id}/policy": ("policies set", "policies.set"),
    "GET /v1/operator/keys": ("keys list", ""),
    "POST /v1/operator/keys": ("keys create", "keys.create"),
    "DELETE /v1/operator/keys/{key_id}": ("keys revoke", "keys.revoke"),
    "GET /v1/operator/usage": ("tenants usage", ""),
    "GET /v1/operator/audit": ("audit", ""),
}
"""By route, the verb that does the same on the machine with the database or Redis, or by this route
(``dlq``, ``jobs``), and what the audit log calls it; empty where there is none."""

ON_THE_MACHINE = {"admin reconcile": "admin.reconcile", "admin rebuild": "admin.rebuild"}
"""Verbs that have no route, and what the audit log calls them."""


def operators_table() -> str:
    """Return a row for each route whose scope is operator or admin, and for each verb that has no route.

    Raises:
      ValueError: A route is in no row, or a row is of no route.
    """
    routes = {
        f"{route.method} {route.path}": route
        for room in ROOMS
        for route in room.routes
        if {Scope.OPERATOR, Scope.ADMIN} & set(route.scopes)
    }
    if routes.keys() != VERBS.keys():
        raise ValueError(f"{SOURCE}: correct the rows of {sorted(routes.keys() ^ VERBS.keys())}")
    lines = ["| route | scope | verb | in the audit log |", "|---|---|---|---|"]
    for name, (verb, action) in VERBS.items():
        cells = (
            f"`{name}`",
            " and ".join(routes[name].scopes),
            verb and f"`tether {verb}`",
            action and f"`{action}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| | | `tether {verb}` | `{action}` |" for verb, action in ON_THE_MACHINE.items()]
    return "".join(f"{line}\n" for line in lines)
