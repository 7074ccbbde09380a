"""Puts TetherBroker where tests look for RedisBroker, and what is private where they use what is shared."""

from __future__ import annotations

import builtins
import functools
import os
import sys
import time
import types
from typing import Any

import dramatiq.brokers.redis as stock
from redis.connection import Connection

from tether.broker import TetherBroker

PORT_VARIABLE = "TETHER_CONFORMANCE_REDIS_PORT"
"""Names the port of the private server, for this process and those that it starts."""

FILES_VARIABLE = "TETHER_CONFORMANCE_FILES"
"""Names the folder for the files by which tests and the processes that they start talk."""

_ASSUMED_PORT = 6379
_ASSUMED_FILES = "/tmp/dramatiq-"
_FILE_SECONDS, _LOOK_SECONDS = 60.0, 0.05
_RABBITMQ = "dramatiq.brokers.rabbitmq"


class RabbitmqBroker:
    """Stands for a broker that needs RabbitMQ; asked for, it answers like one that is not installed."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        raise ImportError("RabbitMQ has no part in this run")


def install() -> None:
    """Make every later import of Dramatiq's RedisBroker give TetherBroker. Done once per process."""
    stock.RedisBroker = TetherBroker  # type: ignore[misc]
    if not isinstance(getattr(sys.modules.get(_RABBITMQ), "RabbitmqBroker", None), type):
        placeholder = types.ModuleType(_RABBITMQ)
        placeholder.RabbitmqBroker = RabbitmqBroker  # type: ignore[attr-defined]
        sys.modules[_RABBITMQ] = placeholder
    _lead_to_private_server(int(os.environ[PORT_VARIABLE]))
    _lead_to_private_files(os.environ[FILES_VARIABLE])


def _lead_to_private_server(port: int) -> None:
    # Tests make clients without naming a port. A server that others run there must not be touched.
    plain: Any = Connection.__init__
    if getattr(plain, "leads_to", None) == port:
        return

    @functools.wraps(plain)
    def connection(self: Connection, host: str = "localhost", port: int = _ASSUMED_PORT, **rest: Any) -> None:
        plain(self, host, private_port if port == _ASSUMED_PORT else port, **rest)

    private_port = port
    connection.leads_to = port  # type: ignore[attr-defined]
    Connection.__init__ = connection  # type: ignore[assignment,method-assign]


def _wait_for_file(file: str) -> None:
    # Tests read after two seconds what a process has written that they start: too soon on a busy machine.
    deadline = time.monotonic() + _FILE_SECONDS
    while not (os.path.exists(file) and os.path.getsize(file)) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def _lead_to_private_files(folder: str) -> None:
    # Two runs on one machine would read each other's files, and a test could pass by an older run's.
    plain: Any = builtins.open
    if getattr(plain, "leads_to", None) == folder:
        return

    @functools.wraps(plain)
    def opened(file: Any, *arguments: Any, **settings: Any) -> Any:
        if isinstance(file, str) and file.startswith(_ASSUMED_FILES):
            file = os.path.join(folder, os.path.basename(file))
            if "r" in (*arguments, settings.get("mode", "r"))[0]:
                _wait_for_file(file)
        return plain(file, *arguments, **settings)

    opened.leads_to = folder  # type: ignore[attr-defined]
    builtins.open = opened
