"""Fork functions of middleware: what runs once beside the worker processes, in a process of its own."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import structlog
from dramatiq import Broker

from tether.processes.child import NAME_VARIABLE, announce_ready, follow_parent
from tether.telemetry.logs import LogForm, configure_logs


@dataclass(frozen=True)
class ForkOptions:
    """What one such process runs.

    Attributes:
      path: ``module:function``.
      paths: Folders to import from before all others.
      log_form: ``human`` or ``json``.
      log_level: The least that is logged.
    """

    path: str
    paths: tuple[str, ...]
    log_form: LogForm
    log_level: str

    def command(self) -> tuple[str, ...]:
        """The command line that runs the function."""
        return (sys.executable, "-m", __name__, json.dumps(asdict(self)))


def fork_paths(broker: Broker) -> list[str]:
    """The functions that a broker's middleware wants to run beside the workers, as ``module:function``.

    One that another process cannot import is logged and left out.
    """
    log = structlog.stdlib.get_logger("tether.worker")
    paths = []
    for middleware in broker.middleware:
        for function in middleware.forks:
            path = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
            if _found(path) is function:
                paths.append(path)
            else:
                log.error(
                    "Not running a fork function of a middleware, since no other process can import it: "
                    "define it at the top of a module.",
                    middleware=type(middleware).__name__,
                    function=path,
                )
    return paths


def _found(path: str) -> object:
    try:
        return _function(path)
    except (ImportError, AttributeError, ValueError):
        return None


def _function(path: str) -> Callable[[], object]:
    module, _, name = path.partition(":")
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return cast(Callable[[], object], found)


def run_fork(path: str) -> int:
    """Run a function until it ends or SIGTERM arrives, and return the exit status of the process.

    A function that has returned is done: the process waits, so that its supervisor does not run it again.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    follow_parent(on_death=lambda: os.kill(os.getpid(), signal.SIGTERM))
    function = _function(path)
    announce_ready()
    status = function()
    while not status:
        signal.pause()
    return status if isinstance(status, int) else 1


def main(arguments: Sequence[str]) -> int:
    """Run the function that :meth:`ForkOptions.command` names."""
    options = ForkOptions(**json.loads(arguments[0]))
    configure_logs(
        form=options.log_form, level=options.log_level, process=os.environ.get(NAME_VARIABLE, "fork")
    )
    sys.path[:0] = options.paths
    try:
        return run_fork(options.path)
    except Exception as error:
        log = structlog.stdlib.get_logger("tether.worker")
        if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
            log.error(f"A fork function failed: {error}", function=options.path, exc_info=error)
            return 1
        log.warning(
            "A fork function of a middleware cannot listen: its port is in use, as by another `tether "
            "worker` on this host. The workers run on, and it is tried again. Give each its own port (of "
            "Dramatiq's Prometheus middleware: dramatiq_prom_port, and a folder, dramatiq_prom_db).",
            function=options.path,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
