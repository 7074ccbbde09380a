"""How a gateway is: a function of what answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GatewayHealth:
    """How what a gateway stands on is.

    Attributes:
      orchestrator: ``unknown`` where the database does not say.
    """

    database: Literal["ok", "unavailable"]
    redis: Literal["ok", "unavailable"]
    orchestrator: Literal["ok", "absent", "unknown"]

    @property
    def accepts_jobs(self) -> bool:
        """Whether what is submitted is kept. Without Redis or an orchestrator it is, and waits."""
        return self.database == "ok"

    @property
    def status(self) -> Literal["ready", "degraded", "unavailable"]:
        """In one word."""
        if not self.accepts_jobs:
            return "unavailable"
        return "degraded" if self.redis != "ok" or self.orchestrator == "absent" else "ready"


def seen_health(*, database: bool, in_redis: bool, orchestrator: bool | None) -> GatewayHealth:
    """The health by which parts answered.

    Args:
      orchestrator: Whether one runs; None where that is not known.
    """
    return GatewayHealth(
        database="ok" if database else "unavailable",
        redis="ok" if in_redis else "unavailable",
        orchestrator="unknown"
        if orchestrator is None or not database
        else "ok"
        if orchestrator
        else "absent",
    )
