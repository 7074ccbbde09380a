"""Reads what a Tether has when all is quiet again: its database, and what is left in its Redis."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chaos_snapshot import ChaosJob, ChaosSnapshot, Pieces
from sqlalchemy import Connection, func, select

from tether.broker.keys import Keys
from tether.broker.pools.key_owners import KeyKind, owned_key
from tether.jobs import FINAL_STATES
from tether.store.schema import attempts, counters, dead_letters, dispatches, holds, jobs
from tether.store.store import Store
from tether.streams.pieces import pieces_from_json

LOST_CAUSES = ("lease_lost", "died", "gone")
"""How attempts end whose worker was lost."""

_STREAMS = {"core:outcomes": "settle", "core:submits": "admit"}
_NAMESPACE_WIDE = frozenset(
    {
        *(f"core:{name}" for name in ("leases", "woken", "epoch", "worker_port", "restarts", "lease_tick")),
        *(f"core:{name}" for name in ("trust", "revoked", "trust_version", "asked", "seen", "set_aside")),
        *(f"core:{name}" for name in ("pools", "alone", "aging", "held", "health", "tick")),
        *(f"core:{name}" for name in ("breakers", "open_breakers", "late")),
        *(f"fleet:{name}" for name in ("presence", "expiry", "order", "since", "unroutable")),
        *("__heartbeats__", "infer.XQ", "infer.XQ.msgs"),
    }
)
"""One each in a namespace, of bounded size: they stay."""


def read_snapshot(store: Store, client: Any, keys: Keys) -> ChaosSnapshot:
    """All that the checker looks at.

    Args:
      client: Of Redis, without decoded replies.
    """
    return store.read(_read, leftovers(client, keys), time.monotonic() - time.time())


def unfinished(store: Store) -> int:
    """How many jobs are not final, or wait to be placed."""
    return store.read(_unfinished)


def progress(store: Store) -> tuple[int, int]:
    """How many jobs there are, and how many of them are final."""
    return store.read(_progress)


def _progress(connection: Connection) -> tuple[int, int]:
    states = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
    final = {state.value for state in FINAL_STATES}
    return sum(count for _, count in states), sum(count for state, count in states if state in final)


def _unfinished(connection: Connection) -> int:
    is_open = jobs.c.state.not_in([state.value for state in FINAL_STATES])
    open_jobs = connection.execute(select(func.count()).select_from(jobs).where(is_open)).scalar_one()
    waiting = connection.execute(select(func.count()).select_from(dispatches)).scalar_one()
    return int(open_jobs) + int(waiting)


def _read(connection: Connection, left: Mapping[str, str], monotonic_offset: float) -> ChaosSnapshot:
    columns = (attempts.c.job_id, attempts.c.kind, attempts.c.cause, attempts.c.outcome_at)
    settled = connection.execute(select(*columns)).all()
    wins: dict[str, list[float]] = defaultdict(list)
    for row in settled:
        if row.kind == "succeeded":
            wins[row.job_id].append((row.outcome_at or 0) / 1000 + monotonic_offset)
    held = connection.execute(select(counters).where(counters.c.held != 0)).all()
    letters = connection.execute(select(dead_letters.c.job_id)).scalars()
    return ChaosSnapshot(
        jobs={row.job_id: _job(row, wins.get(row.job_id, [])) for row in connection.execute(select(jobs))},
        letters=Counter(letters),
        outbox=tuple(connection.execute(select(dispatches.c.job_id)).scalars()),
        holds=tuple(connection.execute(select(holds.c.job_id)).scalars()),
        counters={f"{row.kind} {row.name}": row.held for row in held},
        redis=left,
        attempts_lost=sum(row.cause in LOST_CAUSES for row in settled),
    )


def _job(row: Any, wins: Sequence[float]) -> ChaosJob:
    pieces: Pieces | None = None
    reason = ""
    if row.result is not None:
        result = json.loads(row.result)
        pieces = tuple((piece.token_id, piece.text) for piece in pieces_from_json(result))
        reason = result["finish_reason"]
    return ChaosJob(
        job_id=row.job_id,
        tenant=row.tenant_id,
        key=row.retry_token,
        state=row.state,
        has_deadline=row.deadline > 0,
        pieces=pieces,
        finish_reason=reason,
        output_tokens=row.output_tokens,
        wins=len(wins),
        won_at=min(wins, default=0.0),
    )


def leftovers(client: Any, keys: Keys) -> dict[str, str]:
    """Keys of the namespace whose owner is gone where nothing runs or waits, and why each is one.

    Keys with a life of their own are none: they go by themselves.
    """
    prefix = f"{keys.prefix}:"
    names = sorted(client.scan_iter(match=f"{prefix}*", count=1000))
    return {
        name.decode().removeprefix(prefix): why
        for name in names
        for why in _why_left(client, keys, name, name.decode().removeprefix(prefix))
    }


def _why_left(client: Any, keys: Keys, name: bytes, short: str) -> Iterator[str]:
    owned = owned_key(keys.prefix, name)
    if short in _STREAMS:
        yield from _unread(client, name, _STREAMS[short])
    elif short == "core:leases":
        running = [member for member in client.zrange(name, 0, -1) if member.startswith(b"j ")]
        if running:
            yield f"{len(running)} attempts have leases, as {running[0].decode()}"
    elif owned is not None and owned.kind is KeyKind.IDLE:
        gone = [one for one in client.smembers(name) if not client.exists(_prefixed(keys, b"idle:" + one))]
        if gone:
            yield f"{len(gone)} workers that are gone stand in it, as {gone[0].decode()}"
    elif short not in _NAMESPACE_WIDE and client.pttl(name) == -1 and client.exists(name):
        if owned is None:
            yield "it has no life, and nobody owns a key of this name"
        elif owned.kind is not KeyKind.SERVED:
            yield f"a {owned.kind} without a life"


def _prefixed(keys: Keys, name: bytes) -> bytes:
    """A key of the namespace by what follows its prefix."""
    return keys.prefix.encode() + b":" + name


def _unread(client: Any, name: bytes, group: str) -> Iterator[str]:
    stream: Any = client.xinfo_stream(name)
    groups: Any = client.xinfo_groups(name)
    for each in groups:
        if each["name"] in (group, group.encode()):
            if each["pending"]:
                yield f"{each['pending']} entries were not acknowledged"
            if each["last-delivered-id"] != stream["last-generated-id"] and stream["length"]:
                yield "its newest entries were not read"
