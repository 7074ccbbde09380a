"""The same kill test for several task queues: worker instances are killed again and again while jobs run."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from queue_ledger import Record
from queue_peers import CELERY, DRAMATIQ, TETHER, Peer
from queue_stage import Stage
from report import Figure

KILL_TESTED = (TETHER, DRAMATIQ, CELERY)
INSTANCES = ("a", "b")
THREADS = 4
READY_PROCESSES = 2
PREFIX = "chaos-"


@dataclass(frozen=True)
class KillPlan:
    """How much is done to each queue.

    Attributes:
      jobs: That run meanwhile, on two instances with four slots each.
      seconds: Shortest and longest time that one takes.
      kills: Of one instance each time, by turns, which is started again at once.
      pause: Shortest and longest seconds between two kills.
      wait: Seconds after the last kill until what has not finished counts as lost.
    """

    jobs: int
    seconds: tuple[float, float]
    kills: int
    pause: tuple[float, float]
    wait: float


FULL_KILLS = KillPlan(200, (0.5, 1.5), 12, (1.5, 3.0), 120.0)
QUICK_KILLS = KillPlan(40, (0.5, 1.5), 3, (1.0, 2.0), 15.0)


@dataclass(frozen=True)
class KillTally:
    """What became of the jobs.

    Attributes:
      struck: Jobs that ran when their instance was killed; each time counts.
      recoveries: For each, seconds until the job began again; None where it did not within the wait.
      finished: Jobs that finished at all.
      doubled: Jobs that finished more than once.
      seconds: From the last kill until the last job finished, or the end of the wait.
    """

    jobs: int
    struck: int
    recoveries: tuple[float | None, ...]
    finished: int
    doubled: int
    seconds: float


def kill_test(peer: Peer, plan: KillPlan, source: random.Random) -> KillTally:
    """Run jobs on a queue whose worker instances are killed from outside."""
    with Stage(peer) as stage:
        for instance in INSTANCES:
            # One process of four threads, or four processes: four jobs at once in each.
            processes, threads = (THREADS, 1) if peer is CELERY else (1, THREADS)
            stage.start_worker(instance, processes=processes, threads=threads)
        stage.wait_until_ready(READY_PROCESSES)
        job_ids = [f"{PREFIX}{number}" for number in range(plan.jobs)]
        for job_id in job_ids:
            stage.enqueue("short", job_id, source.uniform(*plan.seconds))
        kills: list[tuple[str, int]] = []
        for _, instance in zip(range(plan.kills), itertools.cycle(INSTANCES), strict=False):
            # When a kill comes is part of what is measured.
            time.sleep(source.uniform(*plan.pause))
            kills.append((instance, time.monotonic_ns()))
            stage.kill_worker(instance)
            processes, threads = (THREADS, 1) if peer is CELERY else (1, THREADS)
            stage.start_worker(instance, processes=processes, threads=threads)
        last_kill = time.monotonic()

        def all_finished() -> bool:
            return len({each.job_id for each in stage.ledger.records("finished", prefix=PREFIX)}) == plan.jobs

        stage.ledger.wait_for(all_finished, plan.wait)
        seconds = time.monotonic() - last_kill
        started = stage.ledger.records("started", prefix=PREFIX)
        finished = stage.ledger.records("finished", prefix=PREFIX)
    times = Counter(record.job_id for record in finished)
    recoveries = tuple(recoveries_of(kills, started, finished))
    return KillTally(
        jobs=plan.jobs,
        struck=len(recoveries),
        recoveries=recoveries,
        finished=len(times),
        doubled=sum(count > 1 for count in times.values()),
        seconds=seconds,
    )


def recoveries_of(
    kills: Sequence[tuple[str, int]], started: Sequence[Record], finished: Sequence[Record]
) -> Iterator[float | None]:
    """For each job that a kill struck, the seconds until it began again. None where it never did."""
    runs: dict[str, list[Record]] = {}
    for record in started:
        runs.setdefault(record.job_id, []).append(record)
    for job_id, its_runs in runs.items():
        ended = {(each.instance, each.pid): each.at_ns for each in finished if each.job_id == job_id}
        for place, run in enumerate(its_runs):
            killed = next(
                (at for instance, at in kills if instance == run.instance and at >= run.at_ns), None
            )
            end = ended.get((run.instance, run.pid))
            if killed is None or (end is not None and end <= killed):
                continue
            later = its_runs[place + 1 :]
            yield (later[0].at_ns - killed) / 1e9 if later else None


def kill_figures(peer: Peer, tally: KillTally, wait: float) -> Iterator[Figure]:
    """The table's rows of one queue. Only Tether's have a goal."""
    goal = "0" if peer is TETHER else ""
    lost = tally.jobs - tally.finished
    for name, count in ((f"lost, of {tally.jobs} within {wait:g} s", lost), ("doubled", tally.doubled)):
        yield Figure(name, count, "", peer.name, goal=goal, met=not count if goal else None)
    yield Figure("jobs that ran at a kill", tally.struck, "", peer.name)
    recoveries = sorted(wait if each is None else each for each in tally.recoveries)
    if recoveries:
        for name, value in (
            ("until such a job began again, median", statistics.median(recoveries)),
            ("until such a job began again, longest", recoveries[-1]),
        ):
            yield Figure(name, value, "s", peer.name, lower_bound=value >= wait)
    yield Figure(
        "from the last kill until the last had finished",
        tally.seconds,
        "s",
        peer.name,
        lower_bound=lost > 0,
    )
