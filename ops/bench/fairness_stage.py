"""Pools on a private Redis and workers without engines: whose jobs are drawn, with nothing between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import redis

from tether.broker.keys import Keys
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import DrawnJob, Growth
from tether.ids import BootId, JobId, PoolName, TenantId
from tether.jobs import Piece, Priority
from tether.local.redis_server import RedisServer
from tether.streams.token_log import encode_pieces

LEASE_MS = 600_000
INPUT_PRICE, OUTPUT_PRICE = 1, 2
"""What a token of a prompt and one of an answer count."""

_PLACED_AT_ONCE = 500


class FairnessStage:
    """One namespace of a Redis. Tokens of jobs stand in their ids: ``<number>-<input>-<output>``."""

    def __init__(self, server: RedisServer, namespace: str) -> None:
        self.redis = redis.Redis.from_url(server.url)
        self.keys = Keys(namespace)
        self.redis.set(self.keys.epoch, 1)
        self.pools = Pools(self.redis, self.keys)
        self._ports: list[RedisWorkerPort] = []
        self._number = 0

    def worker(self) -> RedisWorkerPort:
        """Another worker. It is closed with the stage."""
        port = RedisWorkerPort(self.redis, self.keys, BootId(f"w{len(self._ports)}.1"), LEASE_MS)
        port.hello()
        self._ports.append(port)
        return port

    def place(
        self,
        pool: PoolName,
        tenant: TenantId,
        sizes: Iterable[tuple[int, int]],
        *,
        weight: float = 1.0,
        priority: Priority = Priority.STANDARD,
    ) -> list[JobId]:
        """Place jobs with these tokens of input and output.

        Raises:
          RuntimeError: Redis takes one of them not.
        """
        dispatches = []
        for input_tokens, output_tokens in sizes:
            self._number += 1
            dispatches.append(
                Dispatch(
                    job_id=JobId(f"{self._number}-{input_tokens}-{output_tokens}"),
                    dispatch=1,
                    pool=pool,
                    tenant=tenant,
                    priority=priority,
                    weight=weight,
                    deadline=0,
                    cost=input_tokens,
                    body=b'{"v":1}',
                )
            )
        for start in range(0, len(dispatches), _PLACED_AT_ONCE):
            placed = self.pools.place(dispatches[start : start + _PLACED_AT_ONCE])
            if set(placed) != {PlaceResult.PLACED}:
                raise RuntimeError(f"jobs are not placed: {Counter(placed)}")
        return [each.job_id for each in dispatches]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in self._ports:
            port.close()
        self.pools.close()
        self.redis.close()


def sizes_of(job_id: JobId) -> tuple[int, int]:
    """Tokens of a job's input and output."""
    _, input_tokens, output_tokens = job_id.split("-")
    return int(input_tokens), int(output_tokens)


def next_tokens(job: DrawnJob, offset: int, count: int) -> Growth:
    """The next ``count`` tokens of a drawn job."""
    data = encode_pieces([Piece(number, "t") for number in range(offset, offset + count)])
    return Growth(job_id=job.job_id, fence=job.fence, run=job.run, offset=offset, count=count, data=data)


class Slots:
    """A worker whose running jobs make the same number of tokens in each step."""

    def __init__(self, port: RedisWorkerPort, pools: Sequence[PoolName], slots: int, per_step: int) -> None:
        self._port, self._pools, self._slots, self._per_step = port, pools, slots, per_step
        self._running: list[tuple[DrawnJob, int]] = []
        self.served: Counter[TenantId] = Counter()

    def step(self) -> list[DrawnJob]:
        """Let free slots draw, then all that run make tokens. Return what was drawn."""
        drawn: list[DrawnJob] = []
        if free := self._slots - len(self._running):
            drawn = list(self._port.draw(free, self._pools, busy=bool(self._running)).jobs)
        for job in drawn:
            self.served[job.tenant] += INPUT_PRICE * sizes_of(job.job_id)[0]
        self._running += [(job, 0) for job in drawn]
        going_on, grown = [], []
        for job, made in self._running:
            input_tokens, output_tokens = sizes_of(job.job_id)
            count = min(self._per_step, output_tokens - made)
            growth = next_tokens(job, made, count)
            self.served[job.tenant] += OUTPUT_PRICE * count
            if made + count == output_tokens:
                self._port.finish(growth, input_tokens=input_tokens, reason="stop")
            else:
                grown.append(growth)
                going_on.append((job, made + count))
        if grown:
            self._port.append_many(grown)
        self._running = going_on
        return drawn
