"""A worker of the bench: draws jobs, and gives each of them tokens whose text is the time they were made.

    edges_worker.py POOL JOBS SLOTS FLUSHES_PER_SECOND

It says ``{"drawn": N}`` once it has drawn all, then makes tokens until its standard input ends, and finishes.
The jobs take turns, so that each flush carries one token for ``SLOTS`` of them, as an engine's steps do.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import core_jobs
import redis

from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import Growth
from tether.jobs import Piece
from tether.streams.token_log import encode_pieces

LEASE_MS = 600_000


def main(pool: str, count: int, slots: int, flushes: float) -> None:
    client = redis.Redis.from_url(core_jobs.SETTINGS.redis.url)
    port = RedisWorkerPort(client, core_jobs.KEYS, "bench-worker", LEASE_MS)
    port.hello()
    jobs = [job for _ in range(count) for job in port.draw(1, [pool], busy=True).jobs]
    asked_to_stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), asked_to_stop.set()), daemon=True).start()
    print(json.dumps({"drawn": len(jobs)}), flush=True)
    offsets = dict.fromkeys((job.job_id for job in jobs), 0)
    groups = [jobs[first : first + slots] for first in range(0, len(jobs), slots)]
    due, turn = time.monotonic(), 0
    while not asked_to_stop.is_set():
        group = groups[turn % len(groups)]
        data = encode_pieces([Piece(1, f"{time.monotonic_ns()} ")])
        port.append_many(
            [
                Growth(
                    job_id=job.job_id, fence=job.fence, run=0, offset=offsets[job.job_id], count=1, data=data
                )
                for job in group
            ]
        )
        for job in group:
            offsets[job.job_id] += 1
        turn += 1
        # Each group has its own phase, as GPUs have that know nothing of each other.
        due += 1 / (flushes * len(groups))
        asked_to_stop.wait(max(due - time.monotonic(), 0))
    for job in jobs:
        growth = Growth(job_id=job.job_id, fence=job.fence, run=0, offset=offsets[job.job_id])
        port.finish(growth, input_tokens=1, reason="stop")
    port.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
