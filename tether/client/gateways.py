"""Which gateway a client talks to: the one that it is told, or one that runs on this machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tether.client.endpoint import Endpoint, find_endpoint, is_on_this_machine

if TYPE_CHECKING:
    from tether.client.http.operator import OperatorClient
    from tether.client.ports import Backend

PATIENCE_SECONDS = 30.0
"""For so long calls are tried again while the gateway is away, where nobody says."""

MIN_READ_SECONDS, MAX_READ_SECONDS = 5.0, 30.0
"""Between these lies the longest wait for the next bytes of an answer."""


def open_gateway(
    url: str | None,
    api_key: str | None,
    patience: float = PATIENCE_SECONDS,
    *,
    within: float | None = None,
) -> Backend:
    """A backend that talks to a gateway over HTTP. Nothing is sent before its first call.

    Args:
      url, api_key: See :func:`~tether.client.endpoint.find_endpoint`.
      patience: How long calls are tried again while the gateway is away, in seconds.
      within: Seconds from now after which a call that has no answer yet is given up, and no stream is opened
        any more; None where only ``patience`` counts.

    Raises:
      GatewayUnknown: No gateway is named, and none is found.
      ConfigError: The address or the key is not possible, or there is no key.
    """
    endpoint = _gateway_to_use(url, api_key)
    # Loaded when used: programs that never talk to a gateway do without the HTTP library.
    from tether.client.http.backend import HttpBackend
    from tether.client.http.patience import Pace

    read_timeout = min(max(patience, MIN_READ_SECONDS), MAX_READ_SECONDS)
    return HttpBackend(endpoint, pace=Pace(patience=patience), read_timeout=read_timeout, within=within)


def open_operator(
    url: str | None,
    api_key: str | None,
    patience: float = PATIENCE_SECONDS,
    *,
    within: float | None = None,
) -> OperatorClient:
    """What an operator asks of a gateway. Nothing is sent before its first call; the caller closes it.

    Args:
      url, api_key: See :func:`~tether.client.endpoint.find_endpoint`.
      patience, within: See :func:`open_gateway`.

    Raises:
      GatewayUnknown: No gateway is named, and none is found.
      ConfigError: The address or the key is not possible, or there is no key.
    """
    from tether.client.http.operator import OperatorClient
    from tether.client.http.patience import Pace

    return OperatorClient(_gateway_to_use(url, api_key), Pace(patience=patience), within=within)


def find_gateway(url: str | None, api_key: str | None) -> Endpoint:
    """The gateway to use, with its key: see :func:`~tether.client.endpoint.find_endpoint`.

    Raises:
      GatewayUnknown: No gateway is named, and none is found.
      ConfigError: The address or the key is not possible, or there is no key.
    """
    return find_endpoint(
        url, api_key, environ=os.environ, working_folder=Path(), home=Path(os.path.expanduser("~"))
    )


def _gateway_to_use(url: str | None, api_key: str | None) -> Endpoint:
    """The same; it is said where the key can be read on the way."""
    endpoint = find_gateway(url, api_key)
    if endpoint.url.startswith("http:") and not is_on_this_machine(endpoint.url):
        logging.getLogger("tether.client").warning(
            "The API key travels to the gateway unencrypted. Use https.", extra={"url": endpoint.url}
        )
    return endpoint
