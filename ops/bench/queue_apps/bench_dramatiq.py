"""What the apps of Dramatiq's brokers have in common."""

from __future__ import annotations

import bench_jobs
import dramatiq


def register(broker: dramatiq.Broker) -> dict[str, dramatiq.Actor[..., None]]:
    """Make the jobs actors of ``broker``, with the default options of an actor."""
    dramatiq.set_broker(broker)
    return {
        name: dramatiq.actor(getattr(bench_jobs, name), actor_name=name, broker=broker)
        for name in bench_jobs.JOBS
    }


def send(actor: dramatiq.Actor[..., None], arguments: list[object], delay: float | None) -> None:
    """Enqueue one message, ``delay`` seconds from now where given."""
    if delay is None:
        actor.send(*arguments)
    else:
        actor.send_with_options(args=tuple(arguments), delay=int(delay * 1000))
