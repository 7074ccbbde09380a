"""How safe: recovery, loss and duplication after a worker's death and after an outage of Redis."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass

from queue_ledger import Ledger
from queue_peers import Peer
from queue_stage import Stage

THREADS = 8
JOB_SECONDS = 60.0

SHORT_JOBS = 200
SHORT_SECONDS = 0.05
KILL_AFTER = 60

OUTAGE_SECONDS = 8.0
RUNNING_JOBS = 24
RUNNING_SECONDS = 4.0
DELAYED_JOBS = 20
FIRST_DELAY = 1.5
DELAY_STEP = 0.6
REVIVE_SECONDS = 0.25


@dataclass(frozen=True)
class Tally:
    """What became of accepted jobs: finished not at all, or more than once, within the wait."""

    accepted: int
    lost: int
    doubled: int
    revived: int = 0


def tally(job_ids: list[str], ledger: Ledger, revived: int = 0) -> Tally:
    """Count what the ledger says of these jobs."""
    finished = Counter(record.job_id for record in ledger.records("finished"))
    return Tally(
        accepted=len(job_ids),
        lost=sum(finished[job_id] == 0 for job_id in job_ids),
        doubled=sum(finished[job_id] > 1 for job_id in job_ids),
        revived=revived,
    )


def recovery(peer: Peer, kills: int, limit: float) -> list[float | None]:
    """Seconds from kill -9 of a running job's worker instance to the job's start in another one.

    Two instances of one process each; the other one is idle. None where it took longer than ``limit``
    seconds, which ends the measurement.
    """
    found: list[float | None] = []
    with Stage(peer) as stage:
        for instance in ("a0", "b0"):
            stage.start_worker(instance, processes=1, threads=THREADS)
        stage.wait_until_ready(2)
        for number in range(kills):
            job_id = f"hold-{number}"

            def starts(wanted: int, job_id: str = job_id) -> bool:
                return len(stage.ledger.records("started", job_id)) >= wanted

            stage.enqueue("hold", job_id)
            if not stage.ledger.wait_for(lambda starts=starts: starts(1), JOB_SECONDS):
                raise TimeoutError(f"{peer.name}: {job_id} did not start within {JOB_SECONDS:.0f} s")
            victim = stage.ledger.records("started", job_id)[0].instance
            killed_ns = time.monotonic_ns()
            stage.kill_worker(victim)
            if not stage.ledger.wait_for(lambda starts=starts: starts(2), limit):
                found.append(None)
                break
            found.append((stage.ledger.records("started", job_id)[1].at_ns - killed_ns) / 1e9)
            with stage.ledger.gate_open():
                stage.ledger.wait_for(
                    lambda job_id=job_id: bool(stage.ledger.records("finished", job_id)), JOB_SECONDS
                )
            if number + 1 < kills:
                stage.start_worker(f"{victim[0]}{number + 1}", processes=1, threads=THREADS)
                stage.wait_until_ready(2)
    return found


def death(peer: Peer, wait: float, random_source: random.Random) -> Tally:
    """Kill -9 the only worker in the middle of short jobs, replace it, and wait ``wait`` seconds.

    Jobs differ in length and the kill waits for a random part of one, so that it falls on no particular
    moment: a kill as soon as a job has reported would always meet jobs that are not acknowledged yet.
    """
    with Stage(peer) as stage:
        stage.start_worker("a", processes=1, threads=THREADS)
        stage.wait_until_ready(1)
        job_ids = [f"short-{number}" for number in range(SHORT_JOBS)]
        for job_id in job_ids:
            stage.enqueue("short", job_id, SHORT_SECONDS * random_source.uniform(0.5, 1.5))

        def half_way() -> bool:
            return len(stage.ledger.records("finished", prefix="short-")) >= KILL_AFTER

        if not stage.ledger.wait_for(half_way, JOB_SECONDS):
            raise TimeoutError(f"{peer.name}: {KILL_AFTER} jobs did not finish within {JOB_SECONDS:.0f} s")
        time.sleep(random_source.uniform(0, SHORT_SECONDS))
        stage.kill_worker("a")
        stage.start_worker("b", processes=1, threads=THREADS)
        # The whole wait, also where all is well at once: a second run may come late.
        time.sleep(wait)
        return tally(job_ids, stage.ledger)


def outage(peer: Peer, wait: float) -> Tally:
    """Kill -9 Redis while jobs run and delayed ones wait; bring it back with what its log kept.

    Worker processes that end because of it are started again. Waits ``wait`` seconds after the return.
    """
    with Stage(peer) as stage:
        stage.start_worker("a", processes=2, threads=THREADS)
        stage.start_helpers()
        stage.wait_until_ready(2)
        delayed = [f"delayed-{number}" for number in range(DELAYED_JOBS)]
        running = [f"running-{number}" for number in range(RUNNING_JOBS)]
        for number, job_id in enumerate(delayed):
            stage.enqueue("short", job_id, SHORT_SECONDS, delay=FIRST_DELAY + number * DELAY_STEP)
        for job_id in running:
            stage.enqueue("short", job_id, RUNNING_SECONDS)

        def some_run() -> bool:
            return len(stage.ledger.records("started", prefix="running-")) >= 2

        if not stage.ledger.wait_for(some_run, JOB_SECONDS):
            raise TimeoutError(f"{peer.name}: no job started within {JOB_SECONDS:.0f} s")
        stage.server.kill()
        revived = _revive_for(stage, OUTAGE_SECONDS)
        stage.server.start()
        revived += _revive_for(stage, wait)
        return tally(delayed + running, stage.ledger, revived)


def _revive_for(stage: Stage, seconds: float) -> int:
    revived = 0
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        revived += stage.revive()
        time.sleep(min(left, REVIVE_SECONDS))
    return revived
