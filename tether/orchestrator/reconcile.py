"""After a loss in Redis: what the database says is there, is put back; what it knows better, is taken out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import redis
from sqlalchemy import Connection

from tether.broker.keys import WAITING_CLASSES
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.broker.redis.connections import is_wrong_type, raise_if_refused
from tether.broker.redis.memory_limit import write_past_limit
from tether.ids import NO_JOB, JobId, PoolName, TenantId, job_id_in
from tether.jobs import FINAL_STATES, JobState
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.lost_entries import LostEntries
from tether.orchestrator.restored_rows import RestoredRows
from tether.orchestrator.set_aside import FailedEntries
from tether.scheduling.cancellation import Cancellation
from tether.scheduling.reprioritisation import Reprioritisation
from tether.store.epoch import epoch, raise_epoch
from tether.store.outbox import DueDispatch
from tether.store.placements import (
    PlacedJob,
    errors_of,
    placed_jobs,
    placed_rows,
    raise_dispatches,
    states,
)
from tether.store.rows import UnreadableRow
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BATCH = 256
LOST_BATCH = 32
"""Jobs that are read with their payloads at once, each of which may be of megabytes."""

FIRST_EPOCH = 1
MAX_EPOCH_DIGITS = 15
"""A longer number in Redis is none of ours: the next one must fit into the database."""

_WAITING = (JobState.PARKED, JobState.WAITING_RETRY)
_IN_REDIS = (JobState.PLACED, JobState.RUNNING)


class Reconcile:
    """Looks whether Redis was restarted or emptied, and reconciles then, and every few minutes.

    Emptied, or set back to an older epoch: the epoch and the dispatches are raised, so that nothing that
    workers still do counts, and the outbox relay places all anew. Restarted: whatever was placed is placed
    again, which changes nothing where it is still there.
    """

    def __init__(
        self,
        store: Store,
        pools: Pools,
        ending: Cancellation,
        *,
        on_new_redis: Callable[[], None] = lambda: None,
        interval: float,
        life_ms: int,
        now_ms: Callable[[], int],
        has_hook: bool = False,
    ) -> None:
        self._store = store
        self._pools = pools
        self._restored = RestoredRows(store, pools, ending, has_hook=has_hook)
        self._priorities = Reprioritisation(store, pools)
        self._on_new_redis = on_new_redis
        self._interval_ms = interval * 1000
        self._life_ms = life_ms
        self._now_ms = now_ms
        self._run_id: str | None = None
        self._done_at = 0
        self._ended_before: set[tuple[JobId, int]] = set()
        # Dispatches of jobs that Redis has by their hash, as long as nothing else there names them.
        self._unseen: dict[JobId, int] = {}
        self._lost_entries = LostEntries(pools)
        self._log = get_logger("tether.orchestrator")
        # Pages go on behind whatever fails: here failures are only counted and told.
        self._failed: FailedEntries[str] = FailedEntries("reconcile", self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane, settings = context.plane, context.plane.settings
        return cls(
            plane.store,
            plane.pools,
            plane.ending,
            on_new_redis=plane.redis_safety.look,
            interval=settings.orchestrator.reconcile_interval / 1000,
            life_ms=settings.jobs.result_ttl,
            now_ms=context.now_ms,
            has_hook=bool(settings.hooks.on_dead),
        )

    def __call__(self) -> float:
        run_id, in_redis = self._look()
        if run_id != self._run_id:
            self._on_new_redis()
        expected = self._store.read(epoch)
        if in_redis != expected or expected == 0:
            self._rebuild(max(expected, in_redis))
        elif run_id == self._run_id and self._now_ms() - self._done_at < self._interval_ms:
            self._look_at_set_aside()
            return self._look_for_missed()
        self._reconcile()
        self._run_id, self._done_at = run_id, self._now_ms()
        return self._look_for_missed()

    def _look(self) -> tuple[str, int]:
        client = self._pools.client
        run_id = str(client.info("server")["run_id"])
        key = self._pools.keys.epoch
        try:
            found = client.get(key)
        except redis.ResponseError as error:
            if not is_wrong_type(error):
                raise
            # Every script of a worker fails for it, until the rebuild writes a whole one in its place.
            self._failed.fail(key, error, self._now_ms(), redis_key=key)
            return run_id, 0
        self._failed.succeed(key, redis_key=key)
        if not isinstance(found, bytes) or not found.isdigit() or len(found) > MAX_EPOCH_DIGITS:
            return run_id, 0
        return run_id, int(found)

    def _rebuild(self, at_least: int) -> None:
        """Begin a new epoch. Workers are refused until it stands in Redis, which is last."""
        # Redis has the higher one where the database was set back.
        new = self._store.write_alone(raise_epoch, at_least).result()
        if new == FIRST_EPOCH:
            self._log.info("The first epoch begins.", epoch=new)
        else:
            self._log.warning("Redis lost its jobs: placing all of them again.", epoch=new)
        now_ms = self._now_ms()
        for page in self._placed():
            raised = self._store.write_each(_raise_dispatches, [(job.job_id, now_ms) for job in page])
            for job, answer in zip(page, raised, strict=True):
                self._note(job.job_id, answer)
        key = self._pools.keys.epoch
        write_past_limit(self._pools.client, key, "SET", key, new)

    def _placed(self) -> Iterator[Sequence[PlacedJob]]:
        """Pages of what Redis should have."""
        after = NO_JOB
        while page := self._store.read(placed_jobs, after, BATCH):
            after = page[-1].job_id
            yield page

    def _reconcile(self) -> None:
        ended: set[tuple[JobId, int]] = set()
        self._unseen = {}
        for page in self._placed():
            ended |= self._put_back(page)
        # What had ended already at the last look was handed back to nobody: its entry is gone.
        self._hand_back(sorted(ended & self._ended_before))
        self._ended_before = ended
        in_redis = self._jobs_in_redis()
        while job_ids := list(dict.fromkeys(itertools.islice(in_redis, BATCH))):
            self._correct(job_ids)
            for job_id in job_ids:
                self._unseen.pop(job_id, None)
        self._lost_entries.note(self._unseen)
        self._unseen = {}

    def _look_for_missed(self) -> float:
        """Hand some lost jobs over again; the others at once after what else is to be done."""
        self._hand_over_again(self._lost_entries.look())
        return 0 if self._lost_entries.are_missed else IDLE

    def _hand_over_again(self, lost: Sequence[JobId]) -> None:
        """Raise the dispatches of jobs that nobody would ever find in Redis: the relay places them anew."""
        if lost:
            self._log.error("Jobs stood in no list and had no lease: placing them anew.", jobs=list(lost))
        now_ms = self._now_ms()
        raised = self._store.write_each(_raise_dispatches, [(job_id, now_ms) for job_id in lost])
        for job_id, answer in zip(lost, raised, strict=True):
            self._note(job_id, answer)

    def _put_back(self, page: Sequence[PlacedJob]) -> set[tuple[JobId, int]]:
        """Place what Redis has lost, and settle what it has sealed. Return what else has ended there: job ids
        and dispatches, which are later ones than the rows' if the database was restored from a backup."""
        ended: list[tuple[JobId, int]] = []
        lost: list[JobId] = []
        outdated: list[JobId] = []
        for job, found in zip(page, self._pools.known([job.job_id for job in page]), strict=True):
            if isinstance(found, Exception):
                # The script puts a whole one in the place of what cannot be read.
                self._note(job.job_id, found)
                lost.append(job.job_id)
            elif found is None or found.dispatch < job.dispatch:
                lost.append(job.job_id)
            elif found.state not in _IN_REDIS:
                ended.append((job.job_id, found.dispatch))
            else:
                self._unseen[job.job_id] = found.dispatch
                if job.priority and found.asked and job.priority != found.asked:
                    outdated.append(job.job_id)
        self._follow(outdated)
        for start in range(0, len(lost), LOST_BATCH):
            rows, errors = self._store.read_each(placed_rows, lost[start : start + LOST_BATCH])
            for job_id, error in errors.items():
                self._note(job_id, error)
            ended += self._place_again(rows)
        return set(self._settle_restored(ended))

    def _place_again(self, found: Sequence[DueDispatch | UnreadableRow]) -> list[tuple[JobId, int]]:
        """Return those of which Redis knows that they have ended: job ids and dispatches."""
        rows = [row for row in found if isinstance(row, DueDispatch)]
        for row in found:
            if isinstance(row, UnreadableRow):
                self._note(row.job_id, ValueError(row.reason))
        answers = self._pools.place(
            [Dispatch.of(row.job, row.dispatch, row.pool, lossy=True) for row in rows]
        )
        for row, answer in zip(rows, answers, strict=True):
            self._note(row.job_id, answer)
        # They may have got others since their rows were read.
        self._follow([row.job_id for row in rows])
        closed = [answer is PlaceResult.CLOSED for answer in answers]
        return [(row.job_id, row.dispatch) for row, is_closed in zip(rows, closed, strict=True) if is_closed]

    def _follow(self, job_ids: Sequence[JobId]) -> None:
        """Give jobs in Redis the priorities of their rows."""
        for job_id, answer in self._priorities.follow(job_ids).items():
            self._note(job_id, answer)

    def _hand_back(self, ended: Sequence[tuple[JobId, int]]) -> None:
        for start in range(0, len(ended), BATCH):
            page = ended[start : start + BATCH]
            for (job_id, _), answer in zip(page, self._pools.hand_back_many(page), strict=True):
                self._note(job_id, answer)

    def _settle_restored(self, rows: Sequence[tuple[JobId, int]]) -> list[tuple[JobId, int]]:
        """Return those of which Redis does not remember the end."""
        answers = self._restored.settle(rows, self._now_ms())
        for (job_id, _), answer in zip(rows, answers, strict=True):
            self._note(job_id, answer)
        return [row for row, answer in zip(rows, answers, strict=True) if answer is False]

    def _note(self, job_id: JobId, answer: object) -> None:
        if isinstance(answer, Exception):
            self._failed.fail(job_id, answer, self._now_ms(), job=job_id)
        else:
            self._failed.succeed(job_id, job=job_id)

    def _look_at_set_aside(self) -> None:
        """Place jobs again that scripts could not read, where the database has them in Redis."""
        aside = iter(self._pools.set_aside().items())
        while some := dict(itertools.islice(aside, BATCH)):
            named = (job_id_in(name.encode(errors="replace")) for name in some)
            ids = [job_id for job_id in named if job_id is not None]
            rows = self._store.read(states, ids)
            self._put_back([PlacedJob(job, at) for job, (state, at) in rows.items() if state in _IN_REDIS])
            metrics.SET_ASIDE.inc(len(some))
            self._pools.forget_set_aside(some)

    def _jobs_in_redis(self) -> Iterator[JobId]:
        """Ids of jobs that run or wait in Redis, some more than once."""
        client: Any = self._pools.client
        keys = self._pools.keys
        # What cannot be read here is thrown away by the lease loop.
        for member in self._members(keys.leases, client.zscan_iter(keys.leases, count=BATCH)):
            kind, _, name = member[0].partition(b" ")
            if kind == b"j" and (job_id := job_id_in(name)) is not None:
                yield job_id
        for name in self._read_key(keys.pools, partial(client.smembers, keys.pools)):
            for waiting_class in WAITING_CLASSES:
                yield from self._in_pool(PoolName(name.decode(errors="replace")), waiting_class)

    def _members(self, key: str, found: Iterator[tuple[bytes, float]]) -> Iterator[tuple[bytes, float]]:
        """What a scan finds; nothing more where the key is of another type than we write."""
        while page := self._read_key(key, lambda: list(itertools.islice(found, BATCH))):
            yield from page

    def _in_pool(self, pool: PoolName, waiting_class: str) -> Iterator[JobId]:
        key = self._pools.keys.pool_tenants(pool, waiting_class)
        for tenant in self._read_key(key, partial(self._pools.client.zrange, key, 0, -1)):
            tenant_id = TenantId(tenant.decode(errors="replace"))
            yield from self._in_list(self._pools.keys.pool_jobs(pool, waiting_class, tenant_id))

    def _in_list(self, key: str) -> Iterator[JobId]:
        for start in itertools.count(0, BATCH):
            entries = self._read_key(key, partial(self._pools.client.lrange, key, start, start + BATCH - 1))
            for entry in entries:
                if (job_id := job_id_in(entry.partition(b" ")[0])) is not None:
                    yield job_id
            if len(entries) < BATCH:
                return

    def _read_key(self, key: str, read: Callable[[], Any]) -> Any:
        """What a key holds; nothing where that is of another type than we write."""
        try:
            found = read()
        except redis.ResponseError as error:
            raise_if_refused(error)
            self._failed.fail(key, error, self._now_ms(), redis_key=key)
            return []
        self._failed.succeed(key, redis_key=key)
        return found

    def _correct(self, job_ids: list[JobId]) -> None:
        """Take out of Redis what is no longer its own."""
        rows = self._store.read(states, job_ids)
        ended = [job for job, (state, _) in rows.items() if state in FINAL_STATES]
        # What cannot be read of one job costs it the reason, and not its end.
        why = dict(self._store.read_each(errors_of, ended)[0])
        final = [(job, rows[job][0], why.get(job)) for job in ended]
        for (job_id, _, _), answer in zip(final, self._pools.seal_many(final, self._life_ms), strict=True):
            self._note(job_id, answer)
        known = dict(zip(job_ids, self._pools.known(job_ids), strict=True))
        stale: list[tuple[JobId, int]] = []
        for job_id, (state, dispatch) in rows.items():
            found = known[job_id]
            if isinstance(found, Exception):
                self._note(job_id, found)
            elif state in FINAL_STATES or found is None:
                continue
            elif state in _WAITING:
                stale.append((job_id, dispatch))
            elif found.dispatch < dispatch:
                stale.append((job_id, dispatch - 1))
        for (job_id, _), answer in zip(stale, self._pools.withdraw_many(stale, running=True), strict=True):
            self._note(job_id, answer)


def _raise_dispatches(connection: Connection, items: list[tuple[JobId, int]]) -> list[int | None]:
    """Raise the dispatches of jobs, each with the time in milliseconds since the epoch."""
    return raise_dispatches(connection, [job_id for job_id, _ in items], max(now_ms for _, now_ms in items))
