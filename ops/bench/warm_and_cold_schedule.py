"""The best that can be done with jobs that are all alike, by workers that are not ready alike. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ReadyWorker:
    """A worker of a schedule.

    Attributes:
      slots: Jobs that it runs at once.
      ready_seconds: When it can begin: 0 where its model is loaded, else what loading it takes.
    """

    slots: int
    ready_seconds: float


def best_schedule(
    jobs: int, service_seconds: float, workers: Sequence[ReadyWorker]
) -> tuple[float, list[int]]:
    """When the last job ends at the earliest, where all are there at 0; and how many each worker runs then.

    Each job goes to the slot that ends it first. For jobs that are alike no schedule is shorter: until any
    time ``t`` slots can end ``sum(floor((t - ready) / service))`` jobs, and this ends as many.

    Raises:
      ValueError: There are jobs and no slots, or a job takes no time.
    """
    slots = [
        (worker.ready_seconds + service_seconds, place)
        for place, worker in enumerate(workers)
        for _ in range(worker.slots)
    ]
    if jobs and (not slots or service_seconds <= 0):
        raise ValueError("jobs need slots, and take time")
    heapq.heapify(slots)
    counts, last = [0] * len(workers), 0.0
    for _ in range(jobs):
        last, place = slots[0]
        counts[place] += 1
        heapq.heapreplace(slots, (last + service_seconds, place))
    return last, counts
