"""Reconciling and rebuilding on demand, beside an orchestrator or without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import redis
from sqlalchemy import Connection, func, select

from tether.broker.keys import Keys
from tether.orchestrator.reconcile import Reconcile
from tether.store.epoch import epoch, raise_epoch
from tether.store.loop_leases import has_holder
from tether.store.schema import IS_IN_REDIS, jobs
from tether.store.store import Store

RECONCILE = "reconcile"
"""The loop that reconciles, and its lease."""

PASSES = 2
"""What is missed by one walk may have moved meanwhile: only what two have missed is placed anew."""


@dataclass(frozen=True)
class RebuildReport:
    """What was done.

    Attributes:
      epoch: The one that holds now.
      jobs: Number of jobs that the database had in Redis when it began.
      by_orchestrator: Whether an orchestrator that runs did it.
    """

    epoch: int
    jobs: int
    by_orchestrator: bool


def reconcile_now(store: Store, step: Reconcile) -> int:
    """Reconcile, whoever else does too: every change is one that may be made twice.

    Returns:
      Number of jobs that the database had in Redis when it began.

    Raises:
      StoreUnavailable, OUTAGE_ERRORS: One of the two is away.
    """
    count = store.read(_jobs_in_redis)
    for _ in range(PASSES):
        step()
    return count


def rebuild_now(
    store: Store,
    client: redis.Redis,
    keys: Keys,
    step: Reconcile,
    *,
    now_ms: Callable[[], int],
    wait: Callable[[], bool],
) -> RebuildReport:
    """Begin a new epoch, and have all jobs placed anew: by the orchestrator that runs, else here.

    Args:
      step: Does it here.
      now_ms: Milliseconds since the epoch, by the clock of leases.
      wait: Waits a moment for the orchestrator. Returns False where it was waited for long enough: then it is
        done here.

    Raises:
      StoreUnavailable, OUTAGE_ERRORS: One of the two is away. It goes on once an orchestrator reaches both.
    """
    count = store.read(_jobs_in_redis)
    # Redis is of an older one from here on, which is what the loop looks for.
    wanted = store.write_alone(raise_epoch, _epoch_of(client, keys)).result()
    if store.read(has_holder, RECONCILE, now_ms()):
        while _epoch_of(client, keys) < wanted:
            if not wait():
                break
        else:
            return RebuildReport(store.read(epoch), count, True)
    step()
    return RebuildReport(store.read(epoch), count, False)


def _epoch_of(client: redis.Redis, keys: Keys) -> int:
    found = client.get(keys.epoch)
    return int(found) if isinstance(found, bytes) and found.isdigit() and len(found) <= 15 else 0


def _jobs_in_redis(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(jobs).where(IS_IN_REDIS)).scalar_one()
