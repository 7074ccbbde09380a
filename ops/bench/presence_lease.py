"""How soon others know that a worker lost an attempt: kill -9 while it runs a job."""

from __future__ import annotations

import random
import time

from core_stage import wait_for
from presence_stage import PresenceStage

READY_SECONDS = 60.0
THREADS = 2


def measure(kills: int, source: random.Random) -> list[float]:
    """Milliseconds from the kill of a real worker with a running job until a process that reads Redis sends
    nothing to it any more: nothing that it has to do with the worker's own life, which is 15 seconds."""
    found = []
    with PresenceStage(1, models=1) as stage:
        stage.start_orchestrator()
        reader = stage.watcher("reader", in_swarm=False, tells_pools=True)
        reader.answer()
        stage.start_client()
        stage.start_worker(processes=1, threads=THREADS)
        for number in range(kills):
            name = f"job-{number}"
            reader.when(stage.pool, True, READY_SECONDS)
            stage.ask("submit", names=[name], kind="hold")
            _wait_for(stage, "started", name)
            # Leases are renewed again and again: the kill shall fall on no particular moment.
            time.sleep(source.uniform(1.0, 2.0))
            killed = time.monotonic_ns()
            stage.kill_worker()
            found.append((reader.when(stage.pool, False, READY_SECONDS) - killed) / 1e6)
            if number + 1 < kills:
                stage.start_worker(processes=1, threads=THREADS)
                with stage.ledger.gate_open():
                    _wait_for(stage, "finished", name)
    return found


def _wait_for(stage: PresenceStage, kind: str, name: str) -> None:
    def is_so() -> bool:
        return bool(stage.ledger.records(kind, name))

    wait_for(is_so, READY_SECONDS, f"{name} has {kind}")
