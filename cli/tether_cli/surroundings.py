"""What the verbs find around them, so that a test can put something else in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tether.client.api import Tether


def open_client(url: str | None, api_key: str | None) -> Tether:
    """A client that waits for a gateway as clients do."""
    from tether.client.api import Tether

    return Tether(url, api_key)


def open_impatient_client(url: str | None, api_key: str | None) -> Tether:
    """A client that does not wait for a gateway that is away: for saying whether it is there."""
    from tether.client.api import Tether

    return Tether(url, api_key, patience=1.0)


@dataclass(frozen=True)
class Surroundings:
    """
    Attributes:
      open_client: Makes a client of the gateway's address and an API key; where they are None it looks in
        the environment itself.
      open_impatient_client: The same, for a client that does not wait long.
    """

    open_client: Callable[[str | None, str | None], Tether] = open_client
    open_impatient_client: Callable[[str | None, str | None], Tether] = open_impatient_client
