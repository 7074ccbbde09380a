"""The jobs on Dramatiq's own RedisBroker, with its default settings."""

from __future__ import annotations

import bench_jobs
from bench_dramatiq import register, send
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=bench_jobs.REDIS_URL)
_ACTORS = register(broker)


def enqueue(job: str, arguments: list[object], delay: float | None = None) -> None:
    send(_ACTORS[job], arguments, delay)


def enqueue_many(job: str, count: int) -> None:
    actor = _ACTORS[job]
    for _ in range(count):
        actor.send()
