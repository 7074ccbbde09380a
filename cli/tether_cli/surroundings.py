"""What the verbs find around them, so that a test can put something else in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tether.client.api import Tether


def _open_client(url: str | None, api_key: str | None) -> Tether:
    from tether.client.api import Tether

    return Tether(url, api_key)


@dataclass(frozen=True)
class Surroundings:
    """
    Attributes:
      open_client: Makes a client of the gateway's address and an API key; where they are None it looks in
        the environment itself.
    """

    open_client: Callable[[str | None, str | None], Tether] = _open_client
