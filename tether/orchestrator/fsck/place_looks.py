"""Places in Redis that name jobs and workers, looked at from their own side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import redis

from tether.broker.keys import ALONE, WAITING_CLASSES, Keys
from tether.broker.pools.key_owners import KeyKind, owned_key
from tether.broker.redis.connections import each_answer, is_wrong_type
from tether.discovery.over_redis.worker_health import read_held_back
from tether.ids import WorkerId
from tether.jobs import JobState
from tether.orchestrator.fsck.invariants import Discrepancy, Invariant
from tether.store.epoch import epoch
from tether.store.store import Store

BATCH = 250


class PlaceLook:
    """Leases, lists of what workers run, lanes, idle sets, woken workers and what was set aside.

    A subject is a kind and what is looked at, as ``lease <job>`` or ``lane <key>``.
    """

    def __init__(self, store: Store, client: redis.Redis, keys: Keys) -> None:
        self._store = store
        self._client: Any = client
        self._keys = keys

    def pages(self) -> Iterator[list[str]]:
        """All there is, page by page."""
        yield ["epoch -"]
        subjects = itertools.chain(self._of_core(), self._of_keys())
        while some := list(itertools.islice(subjects, BATCH)):
            yield list(dict.fromkeys(some))

    def look(self, subjects: Sequence[str]) -> list[Discrepancy]:
        """What is wrong with these."""
        told = []
        for subject in subjects:
            kind, _, name = subject.partition(" ")
            found = getattr(self, f"_look_at_{kind}")(name)
            if found is not None:
                told.append(Discrepancy(found[0], subject, found[1], found[1]))
        return told

    # What there is. A key of another type than ours is a matter of the job's or the scripts'.

    def _of_core(self) -> Iterator[str]:
        client, keys = self._client, self._keys
        for member, _ in _each(lambda: client.zscan_iter(keys.leases, count=BATCH)):
            kind, _, name = member.partition(b" ")
            if kind == b"j":
                yield f"lease {_text(name)}"
        for worker, _ in _each(lambda: client.hscan_iter(f"{keys.prefix}:core:woken", count=BATCH)):
            yield f"woken {_text(worker)}"
        for name, _ in _each(lambda: client.hscan_iter(keys.set_aside, count=BATCH)):
            yield f"aside {_text(name)}"

    def _of_keys(self) -> Iterator[str]:
        client, prefix = self._client, self._keys.prefix
        for name in client.scan_iter(match=f"{prefix}:*", count=BATCH):
            key = owned_key(prefix, name)
            if key is None:
                worker = name.removeprefix(f"{prefix}:health:".encode())
                if worker != name:
                    yield f"health {_text(worker)}"
                continue
            owner = _text(b" ".join(key.owner[:3]))
            if key.kind is KeyKind.LIST:
                yield f"lane {owner}"
            elif key.kind is KeyKind.TENANTS:
                yield f"class {owner}"
                if key.owner[1].startswith(ALONE.encode()):
                    yield f"alone {_text(key.owner[0])}"
            elif key.kind is KeyKind.IDLE:
                for worker in _each(lambda key=key: client.sscan_iter(key.name, count=BATCH)):
                    yield f"idle {owner} {_text(worker)}"
            elif key.kind is KeyKind.DRAWN:
                for job, _ in _each(lambda key=key: client.hscan_iter(key.name, count=BATCH)):
                    yield f"drawn {owner} {_text(job)}"

    # What must be true of each.

    def _look_at_epoch(self, _: str) -> tuple[Invariant, str] | None:
        expected = self._store.read(epoch)
        try:
            found = self._client.get(self._keys.epoch)
        except redis.ResponseError:
            found = b"no number"
        if found == str(expected).encode() or (expected == 0 and found is None):
            return None
        told = "none" if found is None else _text(found)
        return Invariant.EPOCH_DIFFERS, f"the database has {expected}, Redis {told}"

    def _look_at_lease(self, job: str) -> tuple[Invariant, str] | None:
        score, state = self._answers(
            ("zscore", self._keys.leases, f"j {job}"), ("hget", self._job(job), "state")
        )
        if not isinstance(score, float) or state == JobState.RUNNING.value.encode():
            return None
        return Invariant.LEASE_EXTRA, f"the job is {_told(state)}"

    def _look_at_drawn(self, name: str) -> tuple[Invariant, str] | None:
        worker, _, job = name.partition(" ")
        number, values = self._answers(
            ("hget", f"{self._keys.prefix}:drawn:{worker}", job), ("hmget", self._job(job), "state", "worker")
        )
        if not isinstance(number, bytes):
            return None
        state, its_worker = values if isinstance(values, list) else (None, None)
        if state == JobState.RUNNING.value.encode() and its_worker == worker.encode():
            return None
        return Invariant.DRAWN_EXTRA, f"the job is {_told(state)}, its worker {_told(its_worker)}"

    def _look_at_lane(self, name: str) -> tuple[Invariant, str] | None:
        pool, waiting_class, tenant = name.split(" ", 2)
        tenants = f"{self._keys.prefix}:pool:{pool}:{waiting_class}"
        count, score = self._answers(("llen", f"{tenants}:{tenant}"), ("zscore", tenants, tenant))
        if not isinstance(count, int) or count == 0 or isinstance(score, float):
            return None
        return Invariant.TENANT_MISSING, "its tenant is not among the pool's"

    def _look_at_class(self, name: str) -> tuple[Invariant, str] | None:
        pool, _, waiting_class = name.partition(" ")
        is_there, is_named = self._answers(
            ("exists", f"{self._keys.prefix}:pool:{pool}:{waiting_class}"),
            ("sismember", self._keys.pools, pool),
        )
        if is_there != 1 or is_named == 1:
            return None
        return Invariant.POOL_MISSING, "the pool has waiting jobs"

    def _look_at_alone(self, name: str) -> tuple[Invariant, str] | None:
        classes = [each for each in WAITING_CLASSES if each.startswith(ALONE)]
        count, is_known = self._answers(
            ("exists", *(f"{self._keys.prefix}:pool:{name}:{each}" for each in classes)),
            ("sismember", f"{self._keys.prefix}:core:alone", name),
        )
        if not isinstance(count, int) or count == 0 or is_known == 1:
            return None
        return Invariant.ALONE_MISSING, "jobs wait there to run alone"

    def _look_at_health(self, worker: str) -> tuple[Invariant, str] | None:
        time, score = self._answers(("time",), ("zscore", self._keys.held_workers, worker))
        now = time[0] * 1000 + time[1] // 1000
        held = read_held_back(self._client, self._keys, [WorkerId(worker)], now).get(WorkerId(worker))
        if not held or isinstance(score, float):
            return None
        return Invariant.HELD_MISSING, f"it is held back from {', '.join(sorted(held))}"

    def _look_at_idle(self, name: str) -> tuple[Invariant, str] | None:
        pool, _, worker = name.partition(" ")
        is_member, is_alive = self._answers(
            ("sismember", f"{self._keys.prefix}:pool:{pool}:idle", worker),
            ("exists", f"{self._keys.prefix}:idle:{worker}"),
        )
        if is_member != 1 or is_alive == 1:
            return None
        return Invariant.IDLE_EXTRA, "it has not drawn for a minute"

    def _look_at_woken(self, worker: str) -> tuple[Invariant, str] | None:
        pool, score = self._answers(
            ("hget", f"{self._keys.prefix}:core:woken", worker), ("zscore", self._keys.leases, f"w {worker}")
        )
        if not isinstance(pool, bytes) or isinstance(score, float):
            return None
        return Invariant.WOKEN_EXTRA, f"for {_text(pool)}"

    def _look_at_aside(self, name: str) -> tuple[Invariant, str] | None:
        (where,) = self._answers(("hget", self._keys.set_aside, name))
        return (Invariant.SET_ASIDE, f"by {_text(where)}") if isinstance(where, bytes) else None

    def _answers(self, *commands: tuple[str, ...]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command, *arguments in commands:
            getattr(pipeline, command)(*arguments)
        return each_answer(pipeline)

    def _job(self, job: str) -> str:
        return f"{self._keys.prefix}:job:{job}"


def _each(scan: Any) -> Iterator[Any]:
    try:
        yield from scan()
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise


def _text(value: Any) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _told(value: Any) -> str:
    return _text(value) if isinstance(value, bytes) else "unknown"
