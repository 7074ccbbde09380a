"""The socket at which a gateway listens. Light to load: the supervisor opens it, and a child serves."""

from __future__ import annotations

import contextlib
import errno
import socket
from ipaddress import ip_address

from tether.errors import AddressInUse, ConfigError

BACKLOG = 2_048

PEER_SILENCE_MS = 30_000
"""How long a peer may acknowledge nothing of what it was sent, before its connection is given up."""


def local_url(host: str, port: int) -> str:
    """The address at which clients on this machine reach what listens there."""
    with contextlib.suppress(ValueError):
        if ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
      AddressInUse: Another program does.
      ConfigError: That is no address of this machine, or not one that this program may listen at.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        (family, *_), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"another program is listening on {where}: stop it, or choose another port with --port or "
                "gateway.port"
            ) from None
        raise ConfigError(
            f"gateway.host and gateway.port: cannot listen on {where} ({error.strerror or error}): choose an "
            "address of this machine, and a port above 1023"
        ) from None
    # Connections inherit both. Responses must not wait for acknowledgements of earlier ones; and a reader
    # that has stopped reading would hold its connection for ever.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_SILENCE_MS)
    return listener
