"""The jobs on Celery, with its default settings, but acknowledged late and without results."""

from __future__ import annotations

import bench_jobs
from celery import Celery

app = Celery("on_celery", broker=bench_jobs.REDIS_URL)
app.conf.update(task_acks_late=True, task_ignore_result=True)
_TASKS = {name: app.task(getattr(bench_jobs, name), name=name) for name in bench_jobs.JOBS}


def enqueue(job: str, arguments: list[object], delay: float | None = None) -> None:
    _TASKS[job].apply_async(arguments, countdown=delay)


def enqueue_many(job: str, count: int) -> None:
    task = _TASKS[job]
    for _ in range(count):
        task.delay()
