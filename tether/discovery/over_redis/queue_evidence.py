"""Reads from Redis what workers were seen to do there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import each_answer, without_retries
from tether.broker.scripts import Scripts, rows
from tether.discovery.fleet.liveness import Appearance, Draws, Evidence
from tether.discovery.over_redis.load_failures import MAX_FAILING_WORKERS, read_without_hope
from tether.discovery.over_redis.worker_health import MAX_HELD, read_held_back
from tether.ids import PoolName, WorkerId

MAX_TICK_PAUSE_MS = 1_000
"""If the last tick of the lease loop is older, Redis or all orchestrators are away, or just came back."""

_NO_TICK = (None, None, None)

_MAX_DIGITS = 16

_SCRIPTS = Scripts(Path(__file__).with_name("lua"))


class Noted(NamedTuple):
    """What Redis keeps.

    Attributes:
      now: Redis's time in ms.
      seen: What workers did, as words ``<kind> <worker> [<pool>]``, and when.
      asked: By worker the pools that it asked, as words ``<ms> <pool>...``, and more of these behind tabs.
      since: By worker since when it is known, as words ``<ms> <ms> <ms>``.
      orders: By worker its newest order.
      held: Workers that may be held back from pools.
      failing: Workers that cannot load models.
      tick: The last tick of the lease loop, and when its last pause began and ended.
    """

    now: int
    seen: Iterable[tuple[bytes, float]] = ()
    asked: Mapping[bytes, bytes] = {}
    since: Mapping[bytes, bytes] = {}
    orders: Mapping[bytes, bytes] = {}
    held: Sequence[bytes] = ()
    failing: Sequence[bytes] = ()
    tick: Sequence[bytes | None] = _NO_TICK


class QueueEvidence:
    """Safe to use from many threads. :meth:`close` closes its connections."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        """
        Args:
          client: Returns bytes.
        """
        self._keys = keys
        self._client = without_retries(client)
        self._owns_client = self._client is not client

    def read(self) -> Evidence:
        """
        Raises:
          OUTAGE_ERRORS: Redis cannot be asked now.
          redis.ResponseError: A key of another type stands where the notes do: who does not know what workers
            did must not judge them. The next draw clears it away.
        """
        noted = self._read_notes()
        workers = [WorkerId(_text(worker)) for worker in noted.held]
        held = read_held_back(self._client, self._keys, workers, noted.now)
        failing = [WorkerId(_text(worker)) for worker in noted.failing]
        without_hope = read_without_hope(self._client, self._keys, failing)
        evidence = replace(read_evidence(noted), held=held, without_hope=without_hope)
        former = _boot_ids_that_note_nothing(noted.orders, evidence)
        if not former:
            return evidence
        found = _SCRIPTS.run(self._client, "former_versions", self._keys.seen, *former)
        return _with_former_versions(evidence, former, found)

    def close(self) -> None:
        """Close the connections."""
        if self._owns_client:
            self._client.close()

    def _read_notes(self) -> Noted:
        # Commands, and no script: that would have to hold all of it as well, while everybody waits.
        keys, pipeline = self._keys, self._client.pipeline(transaction=False)
        pipeline.time()
        pipeline.zrange(keys.seen, 0, -1, withscores=True)
        pipeline.hgetall(keys.asked)
        pipeline.hgetall(keys.fleet_since)
        pipeline.hgetall(keys.fleet_order)
        pipeline.hmget(keys.lease_tick, "at", "paused", "resumed")
        pipeline.zrange(keys.held_workers, 0, MAX_HELD - 1, desc=True)
        pipeline.zrange(keys.failing_workers, 0, MAX_FAILING_WORKERS - 1, desc=True)
        time, seen, asked, since, order, tick, held, failing = each_answer(pipeline)
        for answer in (time, seen, asked):
            if isinstance(answer, redis.ResponseError):
                raise answer
        since, order, tick, held, failing = (
            None if isinstance(answer, redis.ResponseError) else answer
            for answer in (since, order, tick, held, failing)
        )
        return Noted(
            now=time[0] * 1000 + time[1] // 1000,
            seen=seen,
            asked=asked,
            since=since or {},
            orders=order or {},
            held=held or (),
            failing=failing or (),
            tick=tick or _NO_TICK,
        )


def read_evidence(noted: Noted) -> Evidence:
    """What can be read of what Redis keeps. The rest is left out."""
    asked: dict[Draws, int] = {}
    missed: dict[Draws, int] = {}
    renewed: dict[WorkerId, int] = {}
    reported: dict[WorkerId, int] = {}
    copied: dict[WorkerId, int] = {}
    for mark, at in noted.seen:
        match [_text(word) for word in mark.split()]:
            case ["m", doer, pool_name]:
                missed[Draws(WorkerId(doer), PoolName(pool_name))] = _whole(at)
            case ["r", doer]:
                renewed[WorkerId(doer)] = _whole(at)
            case ["d", doer]:
                reported[WorkerId(doer)] = _whole(at)
            case ["c", doer]:
                copied[WorkerId(doer)] = _whole(at)
    names: dict[bytes, PoolName] = {}
    for worker_name, notes in noted.asked.items():
        worker = WorkerId(_text(worker_name))
        for when, pools in _groups(notes):
            for name in pools:
                pool = names.get(name) or names.setdefault(name, PoolName(_text(name)))
                asked[Draws(worker, pool)] = when
    known = {
        WorkerId(_text(worker_name)): Appearance(*map(_number, times))
        for worker_name, text in noted.since.items()
        if len(times := text.split()) == len(Appearance._fields)
    }
    paused, resumed = _pause(noted.now, noted.tick)
    return Evidence(
        now=noted.now,
        asked=asked,
        missed=missed,
        renewed=renewed,
        reported=reported,
        copied=copied,
        known=known,
        paused=paused,
        resumed=resumed,
    )


def _groups(notes: bytes) -> Iterator[tuple[int, Sequence[bytes]]]:
    for group in notes.split(b"\t"):
        if words := group.split():
            yield _number(words[0]), words[1:]


def _pause(now: int, tick: Sequence[bytes | None]) -> tuple[int, int]:
    at, paused, resumed = map(_number, tick)
    # The lease loop has not noted yet that there was a pause, or that Redis is empty; or there still is one.
    if now - at > MAX_TICK_PAUSE_MS:
        return at, now
    return paused, resumed


def _boot_ids_that_note_nothing(orders: Mapping[bytes, bytes], evidence: Evidence) -> list[bytes]:
    noted = {draws.worker for draws in evidence.asked} | evidence.renewed.keys()
    return [
        worker + b"." + boot
        for worker, order in orders.items()
        if (boot := order.partition(b":")[0]).isdigit() and _text(worker) not in noted
    ]


def _with_former_versions(evidence: Evidence, boot_ids: Sequence[bytes], found: Sequence[Any]) -> Evidence:
    asked, renewed = dict(evidence.asked), dict(evidence.renewed)
    for boot_id, (age, pools, holds_jobs) in zip(boot_ids, rows(found, 3), strict=True):
        worker = WorkerId(_text(boot_id.partition(b".")[0]))
        for pool in pools.split():
            asked[Draws(worker, PoolName(_text(pool)))] = evidence.now - _number(age)
        if holds_jobs == b"1":
            renewed[worker] = evidence.now
    return replace(evidence, asked=asked, renewed=renewed)


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")


def _number(text: bytes | None) -> int:
    return int(text) if text is not None and text.isdigit() and len(text) <= _MAX_DIGITS else 0


def _whole(score: float) -> int:
    return int(score) if 0 <= score < float("inf") else 0
