"""Looks through all of Redis's keys for what has no owner any more, and removes it or lets it expire."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import redis

from tether.broker.pools.key_owners import KeyKind, OwnedKey, owned_key
from tether.broker.pools.pools import Pools
from tether.broker.redis.connections import each_answer, raise_if_refused
from tether.broker.scripts import rows
from tether.ids import JobId, job_id_in
from tether.jobs import JobState
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.leftovers import NO_LIFE, HeldJob, Remedy, remedy
from tether.orchestrator.set_aside import FailedEntries
from tether.store.placements import ended_before, errors_of, states
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BATCH = 250
"""Keys, or members of one key, that are looked at together."""

CHUNKS_PER_STEP = 4

PAUSE_SECONDS = 0.25
"""Between two steps of a pass: it is to be felt by nobody."""

SEALING_MS = 10_000
"""For so long after a job's end was committed its seal is left to whoever settled it."""

UNKNOWN_GRACE_MS = 86_400_000
"""For so long jobs go on that the database does not know: an orchestrator that was pointed at the wrong
database must not end everybody's jobs."""

SERVED_LIFE_MS = 86_400_000
"""How long it is remembered which tenant was served how much by a pool that nobody draws from."""


class SweepRedis:
    """One pass after another over the keys of the namespace, in steps that are small and pause in between.

    Every key has an owner that ends it; this is for keys whose owner was killed in between, or that an older
    version left. A pass that is interrupted begins anew elsewhere.
    """

    def __init__(
        self,
        store: Store,
        pools: Pools,
        *,
        life_ms: int,
        now_ms: Callable[[], int],
        grace_ms: int = UNKNOWN_GRACE_MS,
    ) -> None:
        """
        Args:
          life_ms: How long Redis keeps jobs that ended.
          now_ms: Milliseconds since the epoch.
          grace_ms: For how long jobs go on that the database does not know.
        """
        self._store = store
        self._pools = pools
        self._life_ms = life_ms
        self._grace_ms = grace_ms
        self._now_ms = now_ms
        self._cursor = 0
        self._tidying: deque[tuple[OwnedKey, Iterator[None]]] = deque()
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[bytes] = FailedEntries("redis-sweep", self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        return cls(plane.store, plane.pools, life_ms=plane.settings.jobs.result_ttl, now_ms=context.now_ms)

    def __call__(self) -> float:
        if not self._tidying:
            client: Any = self._pools.client
            prefix = self._pools.keys.prefix
            self._cursor, names = client.scan(self._cursor, match=f"{prefix}:*", count=BATCH)
            keys = [key for name in names if (key := owned_key(prefix, name)) is not None]
            # Before the jobs, so that what fails there costs these nothing.
            self._tidying.extend((key, self._tidy(key)) for key in keys if key.kind in _TIDIED)
            self._sweep_jobs(keys)
        self._go_on_tidying()
        return IDLE if self._cursor == 0 and not self._tidying else PAUSE_SECONDS

    def _sweep_jobs(self, keys: Iterable[OwnedKey]) -> None:
        jobs = [key for key in keys if key.kind in (KeyKind.JOB, KeyKind.STREAM)]
        if not jobs:
            return
        pipeline = self._pools.client.pipeline(transaction=False)
        for key in jobs:
            pipeline.pttl(key.name)
        lives = each_answer(pipeline)
        # Most of what has ended has a life already.
        kept = (job_id_in(key.owner[0]) for key, life in zip(jobs, lives, strict=True) if life == NO_LIFE)
        job_ids = list(dict.fromkeys(job_id for job_id in kept if job_id is not None))
        if not job_ids:
            return
        # Redis first: whatever it holds was committed before.
        held = self._held(job_ids)
        known = self._store.read(states, job_ids)
        wanted: dict[Remedy, list[JobId]] = {each: [] for each in Remedy}
        for job_id, each in zip(job_ids, held, strict=True):
            state = known[job_id][0] if job_id in known else None
            wanted[remedy(each, state)].append(job_id)
        if wanted[Remedy.SEAL]:
            # Whoever settles seals a moment after its commit.
            ended = self._store.read(ended_before, wanted[Remedy.SEAL], self._now_ms() - SEALING_MS)
            wanted[Remedy.SEAL] = [job_id for job_id in wanted[Remedy.SEAL] if job_id in ended]
        self._apply(wanted, {job_id: state for job_id, (state, _) in known.items()})

    def _held(self, job_ids: Sequence[JobId]) -> list[HeldJob]:
        pipeline = self._pools.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.pttl(self._pools.keys.job(job_id))
            pipeline.hget(self._pools.keys.job(job_id), "unknown_since")
            pipeline.pttl(self._pools.keys.stream(job_id))
        return [
            HeldJob(job_life_ms=job_life_ms, stream_life_ms=stream_life_ms, is_noted=isinstance(noted, bytes))
            for job_life_ms, noted, stream_life_ms in rows(each_answer(pipeline), 3)
        ]

    def _apply(self, wanted: dict[Remedy, list[JobId]], known: dict[JobId, JobState]) -> None:
        ended = wanted[Remedy.SEAL]
        # What cannot be read of one job costs it the reason, and not its end.
        why = dict(self._store.read_each(errors_of, ended)[0])
        final = [(job_id, known[job_id], why.get(job_id)) for job_id in ended]
        self._note(wanted[Remedy.SEAL], self._pools.seal_many(final, self._life_ms), "job", ("sealed",))
        unknown = wanted[Remedy.DISOWN]
        answers = self._pools.disown_many(unknown, self._grace_ms, self._life_ms)
        self._note(unknown, answers, "unknown_job", ("ended",))
        pipeline: Any = self._pools.client.pipeline(transaction=False)
        for job_id in wanted[Remedy.EXPIRE_STREAM]:
            pipeline.pexpire(self._pools.keys.stream(job_id), self._life_ms)
        for job_id in wanted[Remedy.ACKNOWLEDGE]:
            pipeline.hdel(self._pools.keys.job(job_id), "unknown_since")
        if len(pipeline):
            each_answer(pipeline)
        metrics.LEFTOVERS_REMOVED.labels(kind="stream").inc(len(wanted[Remedy.EXPIRE_STREAM]))

    def _note(
        self, job_ids: Sequence[JobId], answers: Sequence[object], kind: str, ends: tuple[str, ...]
    ) -> None:
        ended = [job_id for job_id, answer in zip(job_ids, answers, strict=True) if answer in ends]
        for job_id, answer in zip(job_ids, answers, strict=True):
            if isinstance(answer, Exception):
                self._failed.fail(job_id.encode(), answer, self._now_ms(), job=job_id)
            else:
                self._failed.succeed(job_id.encode(), job=job_id)
        if ended:
            metrics.LEFTOVERS_REMOVED.labels(kind=kind).inc(len(ended))
            self._log.warning("Jobs that nobody owned any more leave Redis.", kind=kind, jobs=ended)

    def _go_on_tidying(self) -> None:
        for _ in range(CHUNKS_PER_STEP):
            if not self._tidying:
                return
            key, chunks = self._tidying[0]
            try:
                next(chunks)
            except StopIteration:
                self._failed.succeed(key.name)
                self._tidying.popleft()
            except redis.ResponseError as error:
                raise_if_refused(error)
                self._tidying.popleft()
                self._failed.fail(key.name, error, self._now_ms(), redis_key=key.name)
            except BaseException:
                # It cannot be gone on with: the next pass comes by again.
                self._tidying.popleft()
                raise

    def _tidy(self, key: OwnedKey) -> Iterator[None]:
        """Remove what has no owner from a key, one chunk at a time."""
        if key.kind is KeyKind.LIST:
            yield from self._tidy_list(key)
            return
        members = self._members(key)
        more = (SERVED_LIFE_MS,) if key.kind is KeyKind.SERVED else ()
        while some := list(itertools.islice(members, BATCH)):
            removed, _ = self._pools.tidy(key.kind, *key.owner, *more, *some)
            metrics.LEFTOVERS_REMOVED.labels(kind=key.kind).inc(removed)
            yield

    def _tidy_list(self, key: OwnedKey) -> Iterator[None]:
        start = 0
        while True:
            removed, seen = self._pools.tidy(key.kind, *key.owner, start, BATCH)
            metrics.LEFTOVERS_REMOVED.labels(kind=key.kind).inc(removed)
            yield
            if seen < BATCH:
                return
            start += seen - removed

    def _members(self, key: OwnedKey) -> Iterator[bytes]:
        client: Any = self._pools.client
        if key.kind is KeyKind.IDLE:
            yield from client.sscan_iter(key.name, count=BATCH)
        elif key.kind is KeyKind.TENANTS:
            yield from (tenant for tenant, _ in client.zscan_iter(key.name, count=BATCH))
        elif key.kind is KeyKind.DRAWN:
            yield from (job for job, _ in client.hscan_iter(key.name, count=BATCH))
        else:
            fields = (field for field, _ in client.hscan_iter(key.name, count=BATCH))
            yield from (field[2:] for field in fields if field.startswith(b"t:"))


_TIDIED = frozenset(KeyKind) - {KeyKind.JOB, KeyKind.STREAM}
