"""How fast: pickup by an idle worker, enqueueing, draining."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from queue_peers import Peer
from queue_stage import Stage

PROCESSES = 2
THREADS = 8
JOB_SECONDS = 30.0
DRAIN_SECONDS = 300.0


@dataclass(frozen=True)
class Rates:
    """Messages a second."""

    enqueue: float
    drain: float


def pickup(
    peer: Peer, samples: int, shortest: float, longest: float, random_source: random.Random
) -> list[float]:
    """Milliseconds from before the enqueue call to the first line of the actor, one message at a time.

    Before each message all workers have been idle for between ``shortest`` and ``longest`` seconds.
    """
    found = []
    with Stage(peer) as stage:
        stage.start_worker("a", processes=PROCESSES, threads=THREADS)
        stage.wait_until_ready(PROCESSES)
        for number in range(samples):
            job_id = f"stamp-{number}"
            time.sleep(random_source.uniform(shortest, longest))
            began = stage.enqueue("stamp", job_id)
            if not stage.ledger.wait_for(
                lambda job_id=job_id: bool(stage.ledger.records("finished", job_id)), JOB_SECONDS
            ):
                raise TimeoutError(f"{peer.name}: {job_id} did not run within {JOB_SECONDS:.0f} s")
            found.append((stage.ledger.records("finished", job_id)[0].at_ns - began) / 1e6)
    return found


def rates(peer: Peer, messages: int) -> Rates:
    """Enqueue ``messages`` with one client while no worker runs, then drain them.

    Draining is timed from the moment when the last of the processes ran its first message to the last
    execution of all, so that starting up does not count.
    """
    with Stage(peer, capacity=messages) as stage:
        seconds = stage.enqueue_many("count", messages)
        stage.start_worker("a", processes=PROCESSES, threads=THREADS)
        times = stage.ledger.wait_for_count(messages, DRAIN_SECONDS)
    return Rates(enqueue=messages / seconds, drain=drain_rate(times))


def drain_rate(times: list[list[int]]) -> float:
    """Messages a second, from the times of each process's executions in nanoseconds."""
    start = max(of_process[0] for of_process in times if of_process)
    later = [time_ns for of_process in times for time_ns in of_process if time_ns > start]
    return len(later) * 1e9 / (max(later) - start)
