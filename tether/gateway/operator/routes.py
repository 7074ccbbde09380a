"""All routes of operators."""

from __future__ import annotations

from tether.gateway.dead_letters import routes as letters
from tether.gateway.job_changes import routes as job_changes
from tether.gateway.operator import (
    audit,
    breakers,
    dead_messages,
    jobs,
    keys,
    policies,
    pools,
    tenants,
    usage,
    worker_keys,
    workers,
)

OPERATOR_ROOMS = (
    *(workers.ROUTES, worker_keys.ROUTES, pools.ROUTES, breakers.ROUTES),
    *(jobs.ROUTES, job_changes.OPERATOR_ROUTES, letters.OPERATOR_ROUTES, dead_messages.ROUTES),
    *(tenants.ROUTES, policies.ROUTES, usage.OPERATOR_ROUTES, keys.ROUTES, audit.ROUTES),
)
"""By room, as the documentation lists them."""
