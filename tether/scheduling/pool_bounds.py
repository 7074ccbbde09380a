"""How many jobs a pool takes before others wait in the database, where none is bound to a pool. Pure."""

from __future__ import annotations

import math

from tether.broker.pools.room import CLASS_SHARES
from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.jobs import Priority
from tether.scheduling.affinity import assumed_slot_rate

TOKENS_PER_JOB = 256
"""Tokens of a job's answer, where it is not known which jobs come."""

BATCH_AGE_MS = 300_000
"""Age from which a batch job counts as a standard one."""

MAX_POOL_JOBS = 100_000
"""No pool takes more, whatever its workers say that they can do."""


def pool_bound(pool: PoolView, settings: SchedulingSettings) -> int:
    """The number of jobs that a pool takes: what its slots run, and what they do in ``pool_horizon`` beside.

    ``slots + max(pool_jobs, pool_horizon * slots * rate of a slot / 256)``
    """
    ahead = settings.pool_horizon / 1000 * pool.slots * assumed_slot_rate(pool) / TOKENS_PER_JOB
    return min(pool.slots + max(settings.pool_jobs, math.ceil(ahead)), MAX_POOL_JOBS)


def bound_of_class(bound: int, priority: Priority) -> int:
    """What of a pool's bound jobs of a class may fill; at least one."""
    return max(1, int(bound * CLASS_SHARES[priority]))
