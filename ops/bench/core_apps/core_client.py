"""The submitting process: places or submits what the bench asks for, one request in JSON a line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import core_jobs
import core_sampling
import redis

from tether import Tether
from tether.broker.pools.pools import Pools
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.jobs import JobRequest
from tether.requests.options import make_request


class Client:
    """Opens what it needs when it is first asked for; all ends with the process."""

    def __init__(self) -> None:
        self._redis = redis.Redis.from_url(core_jobs.SETTINGS.redis.url)
        self._pools = Pools(self._redis, core_jobs.KEYS)
        self._tether: Tether | None = None

    def _open(self) -> Tether:
        if self._tether is None:
            self._tether = Tether.direct(core_jobs.SETTINGS)
        return self._tether

    def place(self, names: list[str], kind: str, pool: str) -> dict[str, int]:
        dispatches = [core_jobs.dispatch(name, kind, pool) for name in names]
        began = time.monotonic_ns()
        self._pools.place(dispatches)
        return {"began": began, "ended": time.monotonic_ns()}

    def submit(self, names: list[str], kind: str) -> dict[str, int]:
        """Submit one job by the call for one, several by that for many."""
        tether = self._open()
        began = time.monotonic_ns()
        if len(names) == 1:
            tether.submit(core_jobs.MODEL, f"{kind} {names[0]}", max_tokens=1)
        else:
            tether.submit_many([_request(f"{kind} {name}") for name in names])
        return {"began": began, "ended": time.monotonic_ns()}

    def submit_many(self, count: int, chunk: int, threads: int) -> dict[str, int]:
        """Submit ``count`` jobs, ``chunk`` in each call, from so many threads. Making them counts too."""
        tether = self._open()

        def submit(first: int) -> None:
            tether.submit_many([_request("count") for _ in range(min(chunk, count - first))])

        began = time.monotonic_ns()
        with ThreadPoolExecutor(threads, thread_name_prefix="bench-submit") as pool:
            list(pool.map(submit, range(0, count, chunk)))
        return {"began": began, "ended": time.monotonic_ns()}

    def draw_nothing(self, pools: int, count: int) -> dict[str, int]:
        """Draw ``count`` times from so many empty pools."""
        port = RedisWorkerPort(self._redis, core_jobs.KEYS, "bench-draws", 60_000)
        port.hello()
        names = [f"gpu.bench.local.empty-{number}" for number in range(pools)]
        port.draw(1, names, busy=False)
        began = time.monotonic_ns()
        for _ in range(count):
            port.draw(1, names, busy=False)
        ended = time.monotonic_ns()
        port.close()
        return {"began": began, "ended": ended}


def _request(prompt: str) -> JobRequest:
    return make_request(core_jobs.MODEL, prompt, now_ms=time.time_ns() // 1_000_000, max_tokens=1)


def main() -> None:
    # What the libraries print goes to the log: here the bench listens.
    answers, sys.stdout = sys.stdout, sys.stderr
    core_sampling.start("submitter")
    client = Client()
    verbs: dict[str, Callable[..., dict[str, int]]] = {
        "place": client.place,
        "submit": client.submit,
        "submit_many": client.submit_many,
        "draw_nothing": client.draw_nothing,
    }
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(verbs[request.pop("do")](**request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
