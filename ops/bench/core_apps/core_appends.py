"""A worker that does nothing but write tokens: one call for all of its slots, again and again."""

from __future__ import annotations

import json
import os
import sys
import time

import core_jobs
import redis

from tether.broker.pools.pools import Pools
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import Growth, WriteStatus
from tether.jobs import Piece
from tether.streams.token_log import encode_pieces

LEASE_MS = 60_000
DATA = encode_pieces([Piece(11_907, " lagoon")])


def main() -> None:
    slots, seconds = int(sys.argv[1]), float(sys.argv[2])
    client = redis.Redis.from_url(core_jobs.SETTINGS.redis.url)
    worker = f"bench-{os.getpid()}"
    pool = f"gpu.bench.local.{worker}"
    pools = Pools(client, core_jobs.KEYS)
    pools.place([core_jobs.dispatch(f"{worker}-{number}", "count", pool) for number in range(slots)])
    port = RedisWorkerPort(client, core_jobs.KEYS, worker, LEASE_MS)
    port.hello()
    drawn = port.draw(slots, [pool], busy=False).jobs
    print("{}", flush=True)
    sys.stdin.readline()
    calls, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        growths = [
            Growth(job_id=job.job_id, fence=job.fence, run=0, offset=calls, count=1, data=DATA)
            for job in drawn
        ]
        if any(written.answer is not WriteStatus.OK for written in port.append_many(growths)):
            raise RuntimeError("an append was refused")
        calls += 1
    print(json.dumps({"appends": calls * len(drawn)}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
