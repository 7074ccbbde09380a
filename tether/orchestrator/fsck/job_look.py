"""Reads what both stores have of jobs, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis
from sqlalchemy import Connection, select

from tether.broker.keys import ALONE, Keys
from tether.broker.pools.key_owners import KeyKind, owned_key
from tether.broker.pools.lane_moves import last_told
from tether.broker.redis.connections import each_answer
from tether.broker.scripts import rows as in_rows
from tether.ids import NO_JOB, JobId, PoolName, TenantId, job_id_in
from tether.jobs import JobState
from tether.orchestrator.fsck.invariants import Discrepancy, Invariant
from tether.orchestrator.fsck.job_facts import NO_KEY, RedisFacts, RowFacts, discrepancies_of
from tether.orchestrator.fsck.lane_places import LaneEntry, LanePlaces
from tether.store.bulk import is_among, is_postgres
from tether.store.holds import CAPACITY, QUOTA
from tether.store.schema import dead_letters, dispatches, holds, jobs
from tether.store.store import Store

BATCH = 250
_FIELDS = ("state", "dispatch", "ticket", "pool", "priority", "tenant", "worker", "group", "asked", "next")
_STATES = (*JobState, "failed", "withdrawn", "poisoned")


class JobLook:
    """Jobs: each as its row, its holds, its outbox row, its letter, its hash, its stream and its places."""

    def __init__(self, store: Store, client: redis.Redis, keys: Keys) -> None:
        self._store = store
        self._client = client
        self._keys = keys
        self._places = LanePlaces(client)

    def pages(self) -> Iterator[list[str]]:
        """Ids of all jobs of the database, then of those that Redis alone has, perhaps more than once."""
        after = NO_JOB
        while page := self._store.read(_job_ids, after, BATCH):
            after = page[-1]
            yield list(page)
        client: Any = self._client
        some: list[JobId] = []
        for name in client.scan_iter(match=f"{self._keys.prefix}:*", count=BATCH):
            key = owned_key(self._keys.prefix, name)
            if key is None or key.kind not in (KeyKind.JOB, KeyKind.STREAM):
                continue
            job_id = job_id_in(key.owner[0])
            if job_id is not None:
                some.append(job_id)
            if len(some) >= BATCH:
                yield self._unknown(some)
                some = []
        yield self._unknown(some)

    def _unknown(self, job_ids: Sequence[JobId]) -> list[str]:
        known = self._store.read(_known, list(dict.fromkeys(job_ids)))
        return [job_id for job_id in dict.fromkeys(job_ids) if job_id not in known]

    def look(self, subjects: Sequence[str]) -> list[Discrepancy]:
        """What does not fit together of these jobs."""
        job_ids = [JobId(subject) for subject in subjects]
        # Redis first: what it holds was committed before.
        in_redis = self._in_redis(job_ids)
        found, errors = self._store.read_each(_rows, job_ids)
        rows = dict(found)
        told = [
            Discrepancy(Invariant.ROW_UNREADABLE, job_id, type(error).__name__)
            for job_id, error in errors.items()
        ]
        for job_id, facts in zip(job_ids, in_redis, strict=True):
            if job_id not in errors:
                told += discrepancies_of(job_id, rows.get(job_id), facts)
        return told

    def _in_redis(self, job_ids: Sequence[JobId]) -> list[RedisFacts]:
        pipeline: Any = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hmget(self._keys.job(job_id), *_FIELDS)
            pipeline.pttl(self._keys.job(job_id))
            pipeline.pttl(self._keys.stream(job_id))
        facts = []
        found = list(zip(job_ids, in_rows(each_answer(pipeline), 3), strict=True))
        waiting = (self._lane_entry(job_id, values) for job_id, (values, _, _) in found)
        standing = self._places.standing(each for each in waiting if each is not None)
        for job_id, (values, life, stream_life) in found:
            facts.append(self._facts(job_id, values, life, stream_life, job_id in standing))
        return facts

    def _lane_entry(self, job_id: JobId, values: Any) -> LaneEntry | None:
        """What a job's lane has of it, if it waits."""
        if isinstance(values, Exception) or values[0] != JobState.PLACED.value.encode():
            return None
        _, _, ticket, pool, priority, tenant, *_ = map(_text, values)
        lanes = (
            self._keys.pool_jobs(PoolName(pool), waiting_class, TenantId(tenant))
            for waiting_class in (priority, f"{ALONE}{priority}")
        )
        return LaneEntry(job_id, tuple(lanes), f"{job_id} {ticket}")

    def _facts(
        self, job_id: JobId, values: Any, life_ms: int, stream_life_ms: int, stands_in_lane: bool
    ) -> RedisFacts:
        given: dict[str, Any] = {"life_ms": life_ms, "stream_life_ms": stream_life_ms}
        pipeline: Any
        if isinstance(values, Exception):
            return RedisFacts(state="", dispatch=0, ticket="", unreadable="it is no hash", **given)
        state, dispatch, ticket, pool, priority, _, worker, group, asked, following = map(_text, values)
        given |= {"state": state, "ticket": ticket, "asked": last_told(state, asked, priority, following)}
        if life_ms == NO_KEY:
            return RedisFacts(dispatch=0, **given)
        if state not in _STATES or not dispatch.isdecimal() or len(dispatch) > 10:
            return RedisFacts(dispatch=0, unreadable=f"state {state!r}, dispatch {dispatch!r}", **given)
        given["dispatch"] = int(dispatch)
        if group and state in (JobState.PLACED, JobState.RUNNING):
            # No longer than a worker has slots.
            suspects = f"{self._keys.prefix}:suspects:{pool}:{group}"
            pipeline = self._client.pipeline(transaction=False)
            pipeline.lpos(suspects, job_id)
            (place,) = each_answer(pipeline)
            given["is_among_suspects"] = isinstance(place, int)
        if state == JobState.PLACED:
            given["stands_in_lane"] = stands_in_lane
        elif state == JobState.RUNNING:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.zscore(self._keys.leases, f"j {job_id}")
            pipeline.hexists(f"{self._keys.prefix}:drawn:{worker}", job_id)
            lease, is_drawn = each_answer(pipeline)
            given |= {"has_lease": isinstance(lease, float), "is_drawn": is_drawn is True}
        return RedisFacts(**given)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")


def _job_ids(connection: Connection, after: JobId, limit: int) -> list[JobId]:
    query = select(jobs.c.job_id).where(jobs.c.job_id > after).order_by(jobs.c.job_id).limit(limit)
    return list(connection.execute(query).scalars())


def _known(connection: Connection, job_ids: list[JobId]) -> set[JobId]:
    query = select(jobs.c.job_id).where(is_among(is_postgres(connection), jobs.c.job_id))
    return set(connection.execute(query, {"ids": job_ids}).scalars())


def _rows(connection: Connection, job_ids: list[JobId]) -> list[tuple[JobId, RowFacts]]:
    postgres, given = is_postgres(connection), {"ids": job_ids}
    held: dict[tuple[str, str], tuple[str, int]] = {}
    query: Any = select(holds.c.job_id, holds.c.kind, holds.c.name, holds.c.dispatch)
    for hold in connection.execute(query.where(is_among(postgres, holds.c.job_id)), given):
        held[hold.job_id, hold.kind] = (hold.name, hold.dispatch)
    query = select(dispatches.c.job_id, dispatches.c.dispatch).where(is_among(postgres, dispatches.c.job_id))
    owed = {
        row.job_id: row.dispatch for row in connection.execute(query.order_by(dispatches.c.dispatch), given)
    }
    query = select(dead_letters.c.job_id).where(is_among(postgres, dead_letters.c.job_id))
    letters = set(connection.execute(query, given).scalars())
    query = select(
        *(jobs.c.job_id, jobs.c.state, jobs.c.dispatch, jobs.c.pool, jobs.c.priority),
        *(jobs.c.updated_at, jobs.c.finished_at),
        jobs.c.result.is_not(None).label("has_result"),
        jobs.c.error.is_not(None).label("has_error"),
    ).where(is_among(postgres, jobs.c.job_id))
    return [
        (
            JobId(row.job_id),
            RowFacts(
                state=JobState(row.state),
                dispatch=row.dispatch,
                pool=row.pool,
                priority=row.priority,
                changed_at=row.updated_at,
                has_end_time=row.finished_at is not None,
                has_result=bool(row.has_result),
                has_error=bool(row.has_error),
                has_letter=row.job_id in letters,
                holds_quota=(row.job_id, QUOTA) in held,
                capacity=held.get((row.job_id, CAPACITY)),
                outbox=owed.get(row.job_id),
            ),
        )
        for row in connection.execute(query, given)
    ]
