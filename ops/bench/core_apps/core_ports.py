"""Bare worker ports, one in each thread: each blocks on its bell, draws one job at a time, and ends it."""

from __future__ import annotations

import json
import os
import sys
import threading

import core_jobs
import redis

from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import Growth

LEASE_MS = 60_000
WAIT_SECONDS = 5.0


def work(worker: str, pool: str) -> None:
    port = RedisWorkerPort(
        redis.Redis.from_url(core_jobs.SETTINGS.redis.url), core_jobs.KEYS, worker, LEASE_MS
    )
    port.hello()
    while True:
        for drawn in port.draw(1, [pool], busy=False, wait_seconds=WAIT_SECONDS).jobs:
            core_jobs.carry_out(json.loads(drawn.body)["prompt"])
            end = Growth(job_id=drawn.job_id, fence=drawn.fence, run=drawn.run, offset=drawn.offset)
            port.finish(end, input_tokens=1, reason="stop")


def main() -> None:
    pool, ports = sys.argv[1], int(sys.argv[2])
    threads = [
        threading.Thread(
            target=work, args=(f"bench-{os.getpid()}-{number}", pool), name=f"bench-port-{number}"
        )
        for number in range(ports)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
