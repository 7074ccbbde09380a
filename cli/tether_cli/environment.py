"""What the verbs find around them, so that a test can put something else in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.http.operator import OperatorClient
    from tether.local.running import Running


TRIED_SHARE = 0.8
"""Of the time that a command has, the part in which calls are tried again: the last try still tells why."""


class OpensClient(Protocol):
    """Creates a client from the gateway's URL and an API key; if they are None it reads the environment.
    ``within`` bounds its calls, in seconds from now."""

    def __call__(self, url: str | None, api_key: str | None, *, within: float | None = None) -> Tether: ...


class OpensOperator(Protocol):
    """The same for an operator's calls."""

    def __call__(
        self,
        url: str | None,
        api_key: str | None,
        *,
        within: float | None = None,
        patience: float | None = None,
    ) -> OperatorClient: ...


def open_client(url: str | None, api_key: str | None, *, within: float | None = None) -> Tether:
    """A client that waits for a gateway as clients do, for at most ``within`` seconds."""
    from tether.client.api import Tether
    from tether.client.gateways import open_gateway

    if within is None:
        return Tether(url, api_key)
    return Tether(backend=open_gateway(url, api_key, _patience(within), within=within))


def open_impatient_client(url: str | None, api_key: str | None) -> Tether:
    """A client that does not wait for a gateway that is away: for saying whether it is there."""
    from tether.client.api import Tether

    return Tether(url, api_key, patience=1.0)


def open_operator_client(
    url: str | None, api_key: str | None, *, within: float | None = None, patience: float | None = None
) -> OperatorClient:
    """What an operator asks of a gateway, in at most ``within`` seconds.

    Args:
      patience: Seconds for which each call is tried again; None for what suits ``within``.
    """
    from tether.client.gateways import PATIENCE_SECONDS, open_operator

    tried = _patience(within) if patience is None else min(patience, PATIENCE_SECONDS)
    return open_operator(url, api_key, tried, within=within)


def _patience(within: float | None) -> float:
    """For how long calls are tried again of a command that may take so many seconds."""
    from tether.client.gateways import PATIENCE_SECONDS

    return PATIENCE_SECONDS if within is None else min(TRIED_SHARE * within, PATIENCE_SECONDS)


def ask_readiness(url: str, within: float) -> Mapping[str, str] | None:
    """What the gateway there says of itself within so many seconds."""
    from tether.client.readiness import readiness

    return readiness(url, within)


def find_running_here() -> Running | None:
    """The `tether up` of this machine that clients find."""
    from tether.client.endpoint import state_folders
    from tether.local.running import find_running

    return find_running(state_folders(os.environ, Path.cwd(), Path.home()))


@dataclass(frozen=True)
class CommandEnvironment:
    """
    Attributes:
      open_client: Creates a client; see :class:`OpensClient`.
      open_impatient_client: The same, for a client with a short timeout.
      open_operator: Creates a client for an operator's calls.
      readiness: Returns the status of the gateway at a URL, within so many seconds; None if there is none.
      find_running: Returns the `tether up` on this machine, if there is one.
    """

    open_client: OpensClient = open_client
    open_impatient_client: Callable[[str | None, str | None], Tether] = open_impatient_client
    open_operator: OpensOperator = open_operator_client
    readiness: Callable[[str, float], Mapping[str, str] | None] = ask_readiness
    find_running: Callable[[], Running | None] = find_running_here
