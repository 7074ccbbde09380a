"""The port of models."""

from __future__ import annotations

from typing import Protocol

from tether.client.operations import over_http
from tether.statuses import ModelInfo


class ModelPort(Protocol):
    """Models that can be asked for."""

    @over_http("GET", "/v1/models")
    def models(self) -> list[ModelInfo]:
        """What the caller can ask for, in the order of configuration: without models that its policy does not
        allow.

        Raises:
          PolicyUnreadable: Nobody knows which it allows.
        """
