"""The task queues that are compared, each as one value."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """One task queue.

    Attributes:
      name: As the table shows it.
      app: Its module in ``queue_apps``.
      worker: Arguments of Python that start one worker instance; ``{processes}``, ``{threads}`` and
        ``{instance}`` are filled in.
      helpers: Arguments of Python for each further process that it needs to deliver delayed messages.
      distribution: The package that brings it.
      needs: The import without which it is left out.
    """

    name: str
    app: str
    worker: tuple[str, ...]
    helpers: tuple[tuple[str, ...], ...] = ()
    distribution: str = "dramatiq"
    needs: str = "dramatiq"

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None


def _on_dramatiq(name: str, app: str, distribution: str, needs: str) -> Peer:
    command = ("-m", "dramatiq", f"{app}:broker", "-p", "{processes}", "-t", "{threads}")
    return Peer(name, app, command, distribution=distribution, needs=needs)


TETHER = _on_dramatiq("TetherBroker", "on_tether", "tether", "tether")
DRAMATIQ = _on_dramatiq("Dramatiq", "on_dramatiq", "dramatiq", "dramatiq")
REDIS_STREAMS = _on_dramatiq(
    "dramatiq-redis-streams", "on_redis_streams", "dramatiq-redis-streams", "dramatiq_redis_streams"
)
CELERY = Peer(
    "Celery",
    "on_celery",
    (
        *("-m", "celery", "-A", "on_celery", "worker", "-n", "{instance}@%h"),
        *("-P", "prefork", "-c", "{processes}", "-l", "WARNING"),
    ),
    distribution="celery",
    needs="celery",
)
TASKIQ = Peer(
    "Taskiq",
    "on_taskiq",
    (
        *("-m", "taskiq", "worker", "on_taskiq:broker", "-w", "{processes}"),
        *("--max-threadpool-threads", "{threads}", "--log-level", "WARNING"),
    ),
    helpers=(("-m", "taskiq", "scheduler", "on_taskiq:scheduler", "--log-level", "WARNING"),),
    distribution="taskiq",
    needs="taskiq_redis",
)

PEERS = (TETHER, DRAMATIQ, REDIS_STREAMS, CELERY, TASKIQ)
"""All of them; the first is the one that the others are compared with."""
