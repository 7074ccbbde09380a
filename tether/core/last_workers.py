"""Pools that one worker alone serves, and what becomes of their jobs without it: pure."""

from __future__ import annotations

from dataclasses import dataclass

from tether.ids import PoolName


@dataclass(frozen=True, kw_only=True)
class LastWorkerPool:
    """A pool that one worker alone serves.

    Attributes:
      model, version: What it serves.
      waiting: Jobs that wait there, in Redis or for room in it.
      is_served_elsewhere: Whether workers of another pool serve the same.
    """

    pool: PoolName
    model: str
    version: str
    waiting: int
    is_served_elsewhere: bool


def last_worker_text(last: LastWorkerPool, *, grace_ms: int | None, parking_ms: int | None) -> str:
    """What becomes of a pool's jobs without its last worker.

    Args:
      grace_ms, parking_ms: The settings ``lost_pool_grace`` and ``lost_pool_parking``; None where they are
        not known.
    """
    jobs = f"{last.waiting} job{' waits' if last.waiting == 1 else 's wait'} there"
    if last.is_served_elsewhere:
        after = _time_text(grace_ms, "lost_pool_grace")
        then = f"other pools serve model {last.model} {last.version}: they get what waits after {after}"
    else:
        after = _time_text(parking_ms, "lost_pool_parking")
        then = (
            f"no other worker serves model {last.model} {last.version}: its jobs, new ones too, are parked "
            f"after {after}, and wait until one does"
        )
    return f"it is the last worker of pool {last.pool}. {jobs}; {then}"


def _time_text(ms: int | None, setting: str) -> str:
    return f"the gateway's scheduling.{setting}" if ms is None else f"{ms / 1000:g} s"
