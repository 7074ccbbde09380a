"""What the verbs find around them, so that a test can put something else in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.local.running import Running


def open_client(url: str | None, api_key: str | None) -> Tether:
    """A client that waits for a gateway as clients do."""
    from tether.client.api import Tether

    return Tether(url, api_key)


def open_impatient_client(url: str | None, api_key: str | None) -> Tether:
    """A client that does not wait for a gateway that is away: for saying whether it is there."""
    from tether.client.api import Tether

    return Tether(url, api_key, patience=1.0)


def ask_readiness(url: str) -> Mapping[str, str] | None:
    """What the gateway there says of itself."""
    from tether.client.readiness import readiness

    return readiness(url)


def find_running_here() -> Running | None:
    """The `tether up` of this machine that clients find."""
    from tether.client.endpoint import state_folders
    from tether.local.running import find_running

    return find_running(state_folders(os.environ, Path.cwd(), Path.home()))


@dataclass(frozen=True)
class CommandEnvironment:
    """
    Attributes:
      open_client: Creates a client from the gateway's URL and an API key; if they are None it reads the
        environment.
      open_impatient_client: The same, for a client with a short timeout.
      readiness: Returns the status of the gateway at a URL; None if there is none.
      find_running: Returns the `tether up` on this machine, if there is one.
    """

    open_client: Callable[[str | None, str | None], Tether] = open_client
    open_impatient_client: Callable[[str | None, str | None], Tether] = open_impatient_client
    readiness: Callable[[str], Mapping[str, str] | None] = ask_readiness
    find_running: Callable[[], Running | None] = find_running_here
