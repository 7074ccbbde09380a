"""The documents of health, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Literal

from tether.gateway.schemas import Document


class HealthDocument(Document):
    """The gateway is alive."""

    status: Literal["ok"]


class ReadyDocument(Document):
    """Whether jobs can be accepted, and the state of the database and Redis."""

    status: Literal["ready", "degraded", "unavailable"]
    database: Literal["ok", "unavailable"]
    redis: Literal["ok", "unavailable"]
