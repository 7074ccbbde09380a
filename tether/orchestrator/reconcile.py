"""After a loss in Redis: what the database says is there, is put back; what it knows better, is taken out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tether.broker.pools import Pools
from tether.jobs import FINAL_STATES, JobState, Priority
from tether.scheduling.dispatches import dispatch_of
from tether.store.epoch import epoch, raise_epoch
from tether.store.placements import DueDispatch, placed_rows, raise_dispatches, states
from tether.store.store import Store
from tether.telemetry.logs import get_logger

BATCH = 256
FIRST_EPOCH = 1
LOOK_SECONDS = 0.5
"""How often it is looked whether Redis lost something."""

_WAITING = (JobState.PARKED, JobState.WAITING_RETRY)
_IN_REDIS = (JobState.PLACED, JobState.RUNNING)


class Reconcile:
    """Looks whether Redis was restarted or emptied, and reconciles then, and every few minutes.

    Emptied, or set back to an older epoch: the epoch and the dispatches are raised, so that nothing that
    workers still do counts, and the outbox relay places all anew. Restarted: whatever was placed is placed
    again, which changes nothing where it is still there.
    """

    name = "reconcile"

    def __init__(
        self, store: Store, pools: Pools, *, interval: float, life_ms: int, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._pools = pools
        self._interval_ms = interval * 1000
        self._life_ms = life_ms
        self._now_ms = now_ms
        self._run_id: str | None = None
        self._done_at = 0
        self._ended_before: set[tuple[str, int]] = set()
        self._log = get_logger("tether.orchestrator")

    def __call__(self) -> float:
        run_id, in_redis = self._look()
        expected = self._store.read(epoch)
        if in_redis != expected or expected == 0:
            self._rebuild(max(expected, in_redis))
        elif run_id == self._run_id and self._now_ms() - self._done_at < self._interval_ms:
            return LOOK_SECONDS
        self._reconcile()
        self._run_id, self._done_at = run_id, self._now_ms()
        return LOOK_SECONDS

    def _look(self) -> tuple[str, int]:
        client = self._pools.client
        run_id = str(client.info("server")["run_id"])
        found = client.get(self._pools.keys.epoch)
        return run_id, int(found) if isinstance(found, bytes) and found.isdigit() else 0

    def _rebuild(self, at_least: int) -> None:
        """Begin a new epoch. Workers are refused until it stands in Redis, which is last."""
        # Redis has the higher one where the database was set back.
        new = self._store.write_alone(raise_epoch, at_least).result()
        if new == FIRST_EPOCH:
            self._log.info("The first epoch begins.", epoch=new)
        else:
            self._log.warning("Redis lost its jobs: placing all anew.", epoch=new)
        for rows in self._placed():
            ids = [row.job_id for row in rows]
            self._store.write_alone(raise_dispatches, ids, self._now_ms()).result()
        self._pools.client.set(self._pools.keys.epoch, new)

    def _placed(self) -> Iterator[Sequence[DueDispatch]]:
        after = ""
        while rows := self._store.read(placed_rows, after, BATCH):
            after = rows[-1].job_id
            yield rows

    def _reconcile(self) -> None:
        ended = set()
        for rows in self._placed():
            known = self._pools.known([row.job_id for row in rows])
            pairs = list(zip(rows, known, strict=True))
            lost = [row for row, found in pairs if found is None or found.dispatch < row.dispatch]
            self._pools.place([dispatch_of(row, row.dispatch, row.pool, lossy=True) for row in lost])
            for row, found in pairs:
                if found and found.dispatch == row.dispatch and found.state not in _IN_REDIS:
                    ended.add((row.job_id, row.dispatch))
        # What had ended already at the last look was handed back to nobody: its entry is gone.
        for job_id, dispatch in ended & self._ended_before:
            self._pools.hand_back(job_id, dispatch)
        self._ended_before = ended
        in_redis = self._jobs_in_redis()
        while job_ids := list(dict.fromkeys(itertools.islice(in_redis, BATCH))):
            self._correct(job_ids)

    def _jobs_in_redis(self) -> Iterator[str]:
        """Ids of jobs that run or wait in Redis, some more than once."""
        client: Any = self._pools.client
        keys = self._pools.keys
        for member, _ in client.zscan_iter(keys.leases, count=BATCH):
            kind, _, job_id = member.decode().partition(" ")
            if kind == "j":
                yield job_id
        for pool in client.smembers(keys.pools):
            for priority in Priority:
                tenants = client.zrange(keys.pool_tenants(pool.decode(), priority), 0, -1)
                for tenant in tenants:
                    yield from self._in_list(keys.pool_jobs(pool.decode(), priority, tenant.decode()))

    def _in_list(self, key: str) -> Iterator[str]:
        for start in itertools.count(0, BATCH):
            entries: Any = self._pools.client.lrange(key, start, start + BATCH - 1)
            for entry in entries:
                yield entry.decode().partition(" ")[0]
            if len(entries) < BATCH:
                return

    def _correct(self, job_ids: list[str]) -> None:
        """Take out of Redis what is no longer its own."""
        rows = self._store.read(states, job_ids)
        final = [(job, state, "") for job, (state, _) in rows.items() if state in FINAL_STATES]
        self._pools.seal_many(final, self._life_ms)
        known = dict(zip(job_ids, self._pools.known(job_ids), strict=True))
        for job_id, (state, dispatch) in rows.items():
            found = known[job_id]
            if state in FINAL_STATES or found is None:
                continue
            if state in _WAITING:
                self._pools.withdraw(job_id, dispatch, running=True)
            elif found.dispatch < dispatch:
                self._pools.withdraw(job_id, dispatch - 1, running=True)
