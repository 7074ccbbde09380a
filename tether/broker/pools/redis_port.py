"""The worker port straight to Redis, for workers that may hold its password."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.pools.carried_job import CarriedJob, FieldReader
from tether.broker.pools.draw_limits import NO_LIMITS, DrawLimits
from tether.broker.pools.queue_contact import QueueContact
from tether.broker.pools.worker_port import (
    MAX_AVOID_MS,
    DrawnJob,
    DrawResult,
    Growth,
    LoadAdvice,
    PoolReadiness,
    Pulse,
    WriteResult,
    WriteStatus,
)
from tether.broker.pools.worker_rank import WorkerRank
from tether.broker.redis.connections import max_block_seconds, without_retries
from tether.broker.redis.raw_connections import RawConnection, RawConnections, encode_command
from tether.broker.scripts import Argument, rows
from tether.codec import value_to_json
from tether.errors import EpochChanged, WorkerOutranked, WorkerRevoked
from tether.ids import BootId, DrawId, JobId, PoolName
from tether.jobs import JobError
from tether.outcomes import Fence
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

UNREADABLE_JOB = JobError(
    "engine_failed", "the worker could not read what Redis holds of the job", retryable=True
)
_DRAW_ID = 3
"""Where the draw id stands in a drawn job."""

READINESS_LIFE_MS = 15_000
"""For so long others believe that a worker has loaded a pool; it says so every few seconds."""

BELL_LIFE_MS = 60_000
"""Life of a bell that nobody listens to: as in the scripts."""

NO_EPOCH = 0
"""What is said before an orchestrator has written the first epoch: it is refused like any other wrong one."""


class RedisWorkerPort:
    """Adapter 1 of :class:`~tether.broker.pools.worker_port.WorkerPort`.

    It owns its connections; :meth:`close` closes them.

    Attributes:
      contact: Whether its calls are answered.
      rank: Whether another process draws with this worker's key.
      process: A name that no other process has.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        boot_id: BootId,
        lease_ms: int,
        *,
        rank: WorkerRank | None = None,
    ) -> None:
        """
        Args:
          client: Whose server to talk to.
          keys: The namespace.
          boot_id: Of the worker: a name that no other process ever has.
          lease_ms: How long an attempt may be silent before its job is another's.
          rank: Follows whether another process draws with this worker's key; it gives the worker a greater
            boot counter when that one is gone.
        """
        self.boot_id = boot_id
        self.contact = QueueContact()
        self.rank = rank or WorkerRank()
        self._highest_rival = 0
        self.process = secrets.token_hex(8)
        self._keys = keys
        self._lease = lease_ms
        self._client = without_retries(client)
        self._owns_client = self._client is not client
        self._lines = RawConnections.like(self._client, keys.leases)
        self._epoch = NO_EPOCH
        self._number = 1
        self._is_answer_owed = False
        self._stands_idle = False
        self._waiting_line: RawConnection | None = None
        self._max_block_seconds = max_block_seconds(self._lines.settings)
        self._log = get_logger("tether.broker")

    def hello(self) -> int:
        found = self._client.get(self._keys.epoch)
        self._epoch = int(found) if isinstance(found, bytes) and found.isdigit() else NO_EPOCH
        return self._epoch

    def draw(
        self,
        count: int,
        pools: Sequence[PoolName],
        *,
        busy: bool,
        wait_seconds: float = 0.0,
        limits: DrawLimits = NO_LIMITS,
    ) -> DrawResult:
        again = self._is_answer_owed
        # An answer that is lost, with a line or with a thread, is asked for once more.
        self._is_answer_owed = True
        arguments: list[Argument] = [self._epoch, self.boot_id, count, self._number, self._lease]
        arguments += [int(again), int(busy), self.process, int(self.rank.is_outranked)]
        arguments += [len(_CARRIED.names) + 1, *_CARRIED.names, "proof", *pools]
        told = limits.to_argument()
        if told is not None:
            arguments.append(told)
        # Nobody rings for a worker that does not stand in the idle sets.
        wait = wait_seconds if self._stands_idle and not again else 0.0
        with self.contact.call(wait):
            if wait > 0:
                answer = self._wait_and_draw(wait, arguments)
            else:
                answer = self._lines.run("pool/draw", *arguments)
        self._refuse_stale(answer)
        self._refuse_revoked(answer)
        if answer[0] == b"outranked":
            return self._draw_above(int(answer[1]), answer[2] == b"1", count, pools, busy=busy, limits=limits)
        self.rank.note(is_outranked=False)
        _, again_in_ms, *drawn = answer
        passed_over = drawn.pop() if drawn and isinstance(drawn[-1], int) else 0
        numbers = [int(job[_DRAW_ID].rpartition(b":")[2]) for job in drawn]
        jobs = tuple(job for raw in drawn if (job := self._read_drawn(raw)) is not None)
        self._number = max([self._number - 1, *numbers]) + 1
        self._is_answer_owed = False
        self._stands_idle = len(drawn) < count and not any(job.alone for job in jobs)
        return DrawResult(jobs, int(again_in_ms), passed_over)

    def _draw_above(
        self,
        boot_counter: int,
        is_gone: bool,
        count: int,
        pools: Sequence[PoolName],
        *,
        busy: bool,
        limits: DrawLimits,
    ) -> DrawResult:
        """What is drawn with a greater boot counter than that of the process that had the lead, once it is
        gone.

        Raises:
          WorkerOutranked: It is not, or no greater boot counter can be had.
        """
        self._is_answer_owed = self._stands_idle = False
        self._highest_rival = max(self._highest_rival, boot_counter)
        boot_id = self.rank.rise_above(self._highest_rival) if is_gone else None
        if boot_id is None:
            self.rank.note(is_outranked=True)
            if is_gone:
                raise WorkerOutranked(
                    f"another process used the key of worker {self.boot_id}, with boot counter "
                    f"{boot_counter}, and is gone; this one gets no jobs until it has a greater one, which "
                    "cannot be written"
                )
            raise WorkerOutranked(
                f"another process uses the key of worker {self.boot_id}, with boot counter {boot_counter}, "
                "and draws its jobs: this one gets none until that is gone. Give each host an identity "
                "folder of its own"
            )
        self.boot_id = boot_id
        self.rank.note(is_outranked=False)
        return self.draw(count, pools, busy=busy, limits=limits)

    def _read_drawn(self, raw: Sequence[Any]) -> DrawnJob | None:
        """A drawn job; None where it cannot be read: then its attempt has failed, and others go on."""
        try:
            return _drawn(*raw)
        except (TypeError, ValueError) as error:
            job_id, dispatch, attempt, draw, run, offset = raw[:6]
            self._log.error("A drawn job cannot be read: its attempt fails.", job=job_id, error=str(error))
            why = json.dumps(value_to_json(UNREADABLE_JOB))
            identity = (self._epoch, job_id, dispatch, attempt, draw)
            self._lines.run("pool/fail", *identity, run, offset, 0, b"{}", "failed", why)
            return None

    def _wait_and_draw(self, seconds: float, arguments: Sequence[Argument]) -> Any:
        """Block on the bell and draw, sent at once: Redis goes on with the second when the first ended."""
        line = self._waiting_line = self._waiting_line or self._lines.borrow()
        # Redis may round a wait of less than a millisecond to none, which means for ever.
        wait = round(max(min(seconds, self._max_block_seconds), 0.002), 3)
        try:
            line.send(
                encode_command("BLPOP", self._keys.wake(self.boot_id), wait),
                self._lines.script("pool/draw", *arguments),
            )
            line.read()
            return self._lines.read_script(line, "pool/draw", *arguments)
        except BaseException:
            line.close()
            raise

    def ring(self) -> None:
        bell = self._keys.wake(self.boot_id)
        self._lines.post("RPUSH", bell, "draw")
        self._lines.post("PEXPIRE", bell, BELL_LIFE_MS)

    def demand(self, pools: Sequence[tuple[PoolName, PoolReadiness]]) -> list[LoadAdvice]:
        pairs = [part for pair in pools for part in pair]
        with self.contact.call():
            answer = self._lines.run("pool/demand", self.boot_id, READINESS_LIFE_MS, *pairs)
        return [LoadAdvice(advice.decode()) for advice in answer]

    def append_many(self, growths: Sequence[Growth]) -> list[WriteResult]:
        arguments: list[Argument] = [self._epoch, self._lease]
        for growth in growths:
            arguments += _identity(growth.job_id, growth.fence)
            kind = "restarted" if growth.restarted else "delta"
            arguments += (growth.run, growth.offset, growth.count, kind, growth.data)
        with self.contact.call():
            answer = self._lines.run("pool/append_many", *arguments)
        self._refuse_stale(answer)
        return [
            self._written("append_many", growth.job_id, code, offset)
            for growth, (code, offset) in zip(growths, rows(answer[1:], 2), strict=True)
        ]

    def finish(self, growth: Growth, *, input_tokens: int, reason: str) -> WriteResult:
        return self._end("finish", growth, input_tokens, reason)

    def fail(self, growth: Growth, *, kind: str, error: JobError) -> WriteResult:
        return self._end("fail", growth, kind, json.dumps(value_to_json(error), ensure_ascii=False))

    def release(self, growth: Growth, *, to_tail: bool = False, avoid_ms: int | None = None) -> WriteResult:
        if avoid_ms is not None:
            return self._end("release", growth, int(to_tail), min(max(avoid_ms, 0), MAX_AVOID_MS))
        return self._end("release", growth, *([1] if to_tail else []))

    def _end(self, verb: str, growth: Growth, *more: Argument) -> WriteResult:
        with self.contact.call():
            answer = self._lines.run(
                f"pool/{verb}",
                *(self._epoch, *_identity(growth.job_id, growth.fence)),
                *(growth.run, growth.offset, growth.count, growth.data, *more),
            )
        self._refuse_stale(answer)
        code, offset = answer
        return self._written(verb, growth.job_id, code, offset)

    def beat(self, pulses: Sequence[Pulse]) -> list[WriteStatus]:
        arguments: list[Argument] = [self._epoch, self._lease]
        for pulse in pulses:
            arguments += (*_identity(pulse.job_id, pulse.fence), int(pulse.renew))
        with self.contact.call():
            answer = self._lines.run("pool/beat", *arguments)
        self._refuse_stale(answer)
        return [WriteStatus(code.decode()) for code in answer[1:]]

    def submit(self, job_id: JobId, fence: Fence, token: str, request: bytes) -> WriteStatus:
        with self.contact.call():
            answer = self._lines.run("pool/submit", self._epoch, *_identity(job_id, fence), token, request)
        self._refuse_stale(answer)
        return WriteStatus(answer[0].decode())

    def gone(self, boot_id: BootId, process: str, how: str) -> bool:
        with self.contact.call():
            answer = self._lines.run("pool/gone", self._epoch, boot_id, process, how)
        self._refuse_stale(answer)
        return bool(answer[0] != b"fenced")

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
                f"epoch {self._epoch} has passed: what worker {self.boot_id} has drawn in it is void"
            )

    def _refuse_revoked(self, answer: list[Any]) -> None:
        if answer[0] == b"revoked":
            self._is_answer_owed = self._stands_idle = False
            raise WorkerRevoked(
                f"the key of worker {self.boot_id} was revoked: it gets no more jobs, until `tether fleet "
                "trust --again` takes that back"
            )

    def _written(self, verb: str, job_id: JobId, code: bytes, offset: bytes) -> WriteResult:
        answer = WriteStatus(code.decode())
        if answer in _NOT_WRITTEN:
            metrics.FENCED_WRITES.labels(command=verb).inc()
            if answer in (WriteStatus.INVALID, WriteStatus.UNREADABLE):
                self._log.error("A write was refused.", verb=verb, job=job_id, answer=str(answer))
        return WriteResult(answer, int(offset))


_NOT_WRITTEN = frozenset(
    {
        WriteStatus.FENCED,
        WriteStatus.OFFSET,
        WriteStatus.UNKNOWN,
        WriteStatus.INVALID,
        WriteStatus.UNREADABLE,
    }
)


def _identity(job_id: JobId, fence: Fence) -> tuple[JobId, int, int, DrawId]:
    return (job_id, fence.dispatch, fence.attempt, fence.draw_id)


_CARRIED = FieldReader(CarriedJob, but=("job_id",))


def _drawn(
    job_id: bytes,
    dispatch: bytes,
    attempt: bytes,
    draw: bytes,
    run: bytes,
    offset: bytes,
    alone: bytes,
    lossy: bytes,
    deaths: bytes,
    carried: Sequence[bytes | None],
    made: Sequence[bytes],
) -> DrawnJob:
    return DrawnJob(
        job_id=JobId(job_id.decode()),
        fence=Fence(int(dispatch), int(attempt), DrawId(draw.decode())),
        run=int(run),
        offset=int(offset),
        alone=alone == b"1",
        lossy=lossy == b"1",
        deaths=int(deaths),
        made=tuple(made),
        proof=int(carried[-1] or 0),
        **_CARRIED.read(carried[:-1]),
    )
