"""The worker port straight to Redis, for workers that may hold its password."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import redis

from tether.broker.connections import longest_block, without_retries
from tether.broker.keys import Keys
from tether.broker.lines import Line, Lines, pack
from tether.broker.worker_port import Answer, Draw, Drawn, Growth, Pulse, Written
from tether.errors import EpochChanged, WorkerRevoked
from tether.jobs import VERSION, Fence, JobError
from tether.telemetry import metrics

NO_EPOCH = 0
"""What is said before an orchestrator has written the first epoch: it is refused like any other wrong one."""


class RedisWorkerPort:
    """Adapter 1 of :class:`~tether.broker.worker_port.WorkerPort`.

    It owns its connections; :meth:`close` closes them.
    """

    def __init__(self, client: redis.Redis, keys: Keys, worker: str, lease_ms: int) -> None:
        """
        Args:
          client: Whose server to talk to.
          keys: The namespace.
          worker: The worker's boot id: a name that no other process ever has.
          lease_ms: How long an attempt may be silent before its job is another's.
        """
        self.worker = worker
        self._keys = keys
        self._lease = lease_ms
        self._client = without_retries(client)
        self._owns_client = self._client is not client
        self._lines = Lines.like(self._client, keys.leases)
        self._epoch = NO_EPOCH
        self._number = 1
        self._is_answer_owed = False
        self._stands_idle = False
        self._waiting_line: Line | None = None
        self._longest_block = longest_block(self._lines.settings)

    def hello(self) -> int:
        found = self._client.get(self._keys.epoch)
        self._epoch = int(found) if isinstance(found, bytes) and found.isdigit() else NO_EPOCH
        return self._epoch

    def draw(self, count: int, pools: Sequence[str], *, busy: bool, wait_seconds: float = 0.0) -> Draw:
        again = self._is_answer_owed
        # An answer that is lost, with a line or with a thread, is asked for once more.
        self._is_answer_owed = True
        arguments: list[bytes | str | float] = [self._epoch, self.worker, count, self._number, self._lease]
        arguments += [int(again), int(busy), *pools]
        # Nobody rings for a worker that does not stand in the idle sets.
        if wait_seconds > 0 and self._stands_idle and not again:
            answer = self._wait_and_draw(wait_seconds, arguments)
        else:
            answer = self._lines.run("pool/draw", *arguments)
        self._refuse_stale(answer)
        self._refuse_revoked(answer)
        jobs = tuple(_drawn(job) for job in answer[2:])
        numbers = [int(job.fence.draw_id.rpartition(":")[2]) for job in jobs]
        self._number = max([self._number - 1, *numbers]) + 1
        self._is_answer_owed = False
        self._stands_idle = len(jobs) < count and not any(job.alone for job in jobs)
        return Draw(jobs, int(answer[1]))

    def _wait_and_draw(self, seconds: float, arguments: Sequence[bytes | str | float]) -> Any:
        """Block on the bell and draw, sent at once: Redis goes on with the second when the first ended."""
        line = self._waiting_line = self._waiting_line or self._lines.borrow()
        # Redis may round a wait of less than a millisecond to none, which means for ever.
        wait = round(max(min(seconds, self._longest_block), 0.002), 3)
        try:
            line.send(
                pack("BLPOP", self._keys.wake(self.worker), wait), self._lines.script("pool/draw", *arguments)
            )
            line.read()
            return self._lines.read_script(line, "pool/draw", *arguments)
        except BaseException:
            line.close()
            raise

    def append_many(self, growths: Sequence[Growth]) -> list[Written]:
        arguments: list[bytes | str | float] = [self._epoch, self._lease]
        for growth in growths:
            arguments += _identity(growth.job_id, growth.fence)
            kind = "restarted" if growth.restarted else "delta"
            arguments += (growth.run, growth.offset, growth.count, kind, growth.data)
        answer = self._lines.run("pool/append_many", *arguments)
        self._refuse_stale(answer)
        return [self._written("append_many", answer[i], answer[i + 1]) for i in range(1, len(answer), 2)]

    def finish(self, growth: Growth, *, input_tokens: int, reason: str) -> Written:
        return self._end("finish", growth, input_tokens, reason)

    def fail(self, growth: Growth, *, kind: str, error: JobError) -> Written:
        return self._end("fail", growth, kind, error_to_json(error))

    def release(self, growth: Growth) -> Written:
        return self._end("release", growth)

    def _end(self, verb: str, growth: Growth, *more: bytes | str | float) -> Written:
        answer = self._lines.run(
            f"pool/{verb}",
            *(self._epoch, *_identity(growth.job_id, growth.fence)),
            *(growth.run, growth.offset, growth.count, growth.data, *more),
        )
        self._refuse_stale(answer)
        return self._written(verb, answer[0], answer[1])

    def beat(self, pulses: Sequence[Pulse]) -> list[Answer]:
        arguments: list[bytes | str | float] = [self._epoch, self._lease]
        for pulse in pulses:
            arguments += (*_identity(pulse.job_id, pulse.fence), int(pulse.renew))
        answer = self._lines.run("pool/beat", *arguments)
        self._refuse_stale(answer)
        return [Answer(code.decode()) for code in answer[1:]]

    def submit(self, token: str, request: bytes) -> None:
        self._client.xadd(
            self._keys.submits, {"v": VERSION, "token": token, "request": request, "worker": self.worker}
        )

    def close(self) -> None:
        """Close the connections."""
        if self._waiting_line is not None:
            self._waiting_line.close()
        self._lines.close()
        if self._owns_client:
            self._client.close()

    def _refuse_stale(self, answer: list[Any]) -> None:
        if answer[0] == b"epoch":
            self._is_answer_owed = self._stands_idle = False
            raise EpochChanged(
                f"epoch {self._epoch} has passed: what worker {self.worker} has drawn in it is void"
            )

    def _refuse_revoked(self, answer: list[Any]) -> None:
        if answer[0] == b"revoked":
            self._is_answer_owed = self._stands_idle = False
            raise WorkerRevoked(
                f"the key of worker {self.worker} was revoked: it gets no more jobs; `tether fleet trust "
                "--again` takes that back, and the worker must then be started again"
            )

    def _written(self, verb: str, code: bytes, offset: bytes) -> Written:
        answer = Answer(code.decode())
        if answer in (Answer.FENCED, Answer.OFFSET, Answer.UNKNOWN):
            metrics.FENCED_WRITES.labels(command=verb).inc()
        return Written(answer, int(offset))


def error_to_json(error: JobError) -> str:
    """An error as outcomes carry it."""
    return json.dumps(
        {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "retry_after_ms": error.retry_after_ms,
        },
        ensure_ascii=False,
    )


def _identity(job_id: str, fence: Fence) -> tuple[str, int, int, str]:
    return (job_id, fence.dispatch, fence.attempt, fence.draw_id)


def _drawn(answer: list[Any]) -> Drawn:
    (
        job_id,
        dispatch,
        attempt,
        draw,
        run,
        offset,
        pool,
        tenant,
        deadline,
        alone,
        lossy,
        deaths,
        _,
        body,
        made,
    ) = answer
    return Drawn(
        job_id=job_id.decode(),
        fence=Fence(int(dispatch), int(attempt), draw.decode()),
        run=int(run),
        offset=int(offset),
        made=tuple(made),
        pool=pool.decode(),
        tenant=tenant.decode(),
        deadline=int(deadline),
        alone=alone == b"1",
        lossy=lossy == b"1",
        deaths=int(deaths),
        body=body,
    )
