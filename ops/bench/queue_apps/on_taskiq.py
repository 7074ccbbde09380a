"""The jobs on Taskiq's Redis streams, with its default settings.

Jobs that do not block are coroutines, which is what Taskiq runs fastest. Delayed messages are given to its
scheduler.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import bench_jobs
from taskiq import TaskiqScheduler
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

broker = RedisStreamBroker(bench_jobs.REDIS_URL)
source = ListRedisScheduleSource(bench_jobs.REDIS_URL)
scheduler = TaskiqScheduler(broker, [source])


@broker.task(task_name="stamp")
async def stamp(job_id: str) -> None:
    bench_jobs.stamp(job_id)


@broker.task(task_name="count")
async def count() -> None:
    bench_jobs.count()


_TASKS = {
    "stamp": stamp,
    "count": count,
    "short": broker.task(task_name="short")(bench_jobs.short),
    "hold": broker.task(task_name="hold")(bench_jobs.hold),
}
_LOOP = asyncio.new_event_loop()
_started = False


def _run(work: object) -> None:
    global _started
    if not _started:
        _started = True
        _LOOP.run_until_complete(broker.startup())
    _LOOP.run_until_complete(work)  # type: ignore[arg-type]


async def _schedule(job: str, arguments: list[object], delay: float) -> None:
    await _TASKS[job].schedule_by_time(source, datetime.now(UTC) + timedelta(seconds=delay), *arguments)


async def _kick_many(job: str, count: int) -> None:
    task = _TASKS[job]
    for _ in range(count):
        await task.kiq()


def enqueue(job: str, arguments: list[object], delay: float | None = None) -> None:
    _run(_TASKS[job].kiq(*arguments) if delay is None else _schedule(job, arguments, delay))


def enqueue_many(job: str, count: int) -> None:
    _run(_kick_many(job, count))
