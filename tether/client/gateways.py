"""Which gateway a client talks to: the one that it is told, or one that runs on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from tether.client.backend import Backend
from tether.client.endpoint import find_endpoint, is_on_this_machine
from tether.telemetry.logs import get_logger


def open_gateway(url: str | None, api_key: str | None) -> Backend:
    """A backend that talks to a gateway over HTTP. Nothing is sent before its first call.

    Args:
      url, api_key: See :func:`~tether.client.endpoint.find_endpoint`.

    Raises:
      GatewayUnknown: No gateway is named, and none is found.
      ConfigError: The address or the key is not possible, or there is no key.
    """
    endpoint = find_endpoint(
        url, api_key, environ=os.environ, working_folder=Path(), home=Path(os.path.expanduser("~"))
    )
    if endpoint.url.startswith("http:") and not is_on_this_machine(endpoint.url):
        get_logger("tether.client").warning(
            "The API key travels to the gateway unencrypted. Use https.", url=endpoint.url
        )
    # Loaded when used: programs that never talk to a gateway do without the HTTP library.
    from tether.client.http_backend import HttpBackend

    return HttpBackend(endpoint)
