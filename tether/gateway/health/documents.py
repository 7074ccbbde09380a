"""The documents of health, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Literal

from tether.gateway.schemas import Document


class HealthDocument(Document):
    """The gateway is alive."""

    status: Literal["ok"]


class ReadyDocument(Document):
    """Whether jobs can be accepted, and the state of what they need to go on.

    ``orchestrator`` is ``absent`` while no process holds a lease of the orchestrator's loops, and ``unknown``
    where the database does not say.
    """

    status: Literal["ready", "degraded", "unavailable"]
    database: Literal["ok", "unavailable"]
    redis: Literal["ok", "unavailable"]
    orchestrator: Literal["ok", "absent", "unknown"]
