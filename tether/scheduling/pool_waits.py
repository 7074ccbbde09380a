"""Why a job has not begun that waits in a pool, in words, from what is known of the pool: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName, TenantId, WorkerId


@dataclass(frozen=True, kw_only=True)
class WaitedPool:
    """A pool that a job waits in.

    Attributes:
      name: The pool's.
      model: The model of the job.
      view: The pool; None where nobody announces it.
      is_served_elsewhere: Whether workers of another pool serve the model.
      jobs: Jobs in it that have not ended, this one among them.
      shared: Jobs of other pools that its workers have.
      held: Why workers are held back from it, as far as that is known.
      failing: Why workers cannot load its model.
    """

    name: PoolName
    model: str
    view: PoolView | None
    is_served_elsewhere: bool = False
    jobs: int = 0
    shared: float = 0.0
    held: Mapping[WorkerId, str] = field(default_factory=lambda: MappingProxyType({}))
    failing: Mapping[WorkerId, str] = field(default_factory=lambda: MappingProxyType({}))


def why_in_pool(pool: WaitedPool, tenant: TenantId) -> str:
    """Why nobody has begun with a job of a tenant's; empty where none of this keeps it: a worker has loaded
    the model, and there is a slot for each job."""
    view = pool.view
    if view is None or view.workers <= 0:
        if pool.is_served_elsewhere:
            return (
                f"no worker draws from pool {pool.name} now. Another pool that serves model {pool.model!r} "
                "gets the job, unless a worker comes back soon"
            )
        return f"no worker serves model {pool.model!r} now"
    if view.able(tenant) <= 0 and not view.unloadable:
        return f"all workers of pool {pool.name} are held back{_first_of(pool.held, ', as worker')}"
    words = [] if view.warm else [_why_not_loaded(pool, view)]
    return "; ".join(words + _why_busy(pool, view.slots or 1))


def _why_not_loaded(pool: WaitedPool, view: PoolView) -> str:
    if pool.failing:
        worker, why = next(iter(pool.failing.items()))
        others = f"; {len(pool.failing) - 1} more cannot either" if len(pool.failing) > 1 else ""
        return f"worker {worker} cannot load model {pool.model!r}, and tries again by itself: {why}{others}"
    takes = f": it takes about {math.ceil(view.load_seconds)} s" if view.load_seconds > 0 else ""
    return f"no worker of pool {pool.name} has loaded model {pool.model!r} yet{takes}"


def _why_busy(pool: WaitedPool, slots: int) -> list[str]:
    shared = round(pool.shared)
    if pool.jobs + shared <= slots:
        return []
    others = f", and its workers have {shared} of other pools," if shared > 0 else ""
    return [f"pool {pool.name} has {_counted(pool.jobs, 'job')}{others} for {_counted(slots, 'slot')}"]


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _first_of(reasons: Mapping[WorkerId, str], words: str) -> str:
    return next((f"{words} {worker}: {why}" for worker, why in reasons.items()), "")
