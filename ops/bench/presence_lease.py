"""How soon others know that a worker lost an attempt: kill -9 while it runs a job."""

from __future__ import annotations

import random
import time

from core_stage import wait_for
from presence_stage import PresenceStage

READY_SECONDS = 60.0
THREADS = 8
"""The jobs of the killed run again, in slots of the next worker."""


def measure(kills: int, source: random.Random) -> list[float]:
    """Milliseconds from the kill of a real worker with a running job until a process that reads Redis sends
    nothing to it any more: nothing that it has to do with the worker's own life, which is 15 seconds."""
    found = []
    with PresenceStage(1, models=1) as stage:
        stage.start_orchestrator()
        reader = stage.watcher("reader", in_swarm=False, tells_pools=True)
        reader.answer()
        stage.start_client()
        for number in range(kills):
            name = f"worker{number}"
            stage.start_worker(processes=1, threads=THREADS)
            reader.when(stage.pool, True, READY_SECONDS)
            stage.ask("submit", names=[name], kind="hold")

            def has_begun(name: str = name) -> bool:
                return bool(stage.ledger.records("started", name))

            wait_for(has_begun, READY_SECONDS, "the job runs")
            # Leases are renewed each second: the kill shall fall on no particular moment.
            time.sleep(source.uniform(1.0, 2.0))
            killed = time.monotonic_ns()
            stage.kill_worker()
            found.append((reader.when(stage.pool, False, READY_SECONDS) - killed) / 1e6)
    return found
