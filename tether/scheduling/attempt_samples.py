"""What attempts say of the model that they ran, one by one and together: pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import median, median_high

from tether.ids import JobId, TenantId, WorkerId


@dataclass(frozen=True, kw_only=True)
class AttemptSample:
    """What one attempt says of its model in its region. Times are Redis's, in milliseconds since the epoch.

    Attributes:
      at, began_at: When it ended, and when it was drawn.
      blame: From 0 to 1, how surely the model failed; None where the end says nothing of it.
      ms_per_token: What it took for a token of output; 0 where that was not measured.
    """

    at: int
    began_at: int
    job_id: JobId
    tenant: TenantId
    worker: WorkerId
    blame: float | None = 0.0
    ms_per_token: float = 0.0


def least_share(samples: Sequence[AttemptSample], weigh: Callable[[AttemptSample], float]) -> float:
    """The mean weight of all samples, or of those without any one tenant or any one worker, if that is less;
    0 where there are none."""
    if not samples:
        return 0.0
    total = math.fsum(weigh(one) for one in samples)
    shares = [total / len(samples)]
    groupings: tuple[Callable[[AttemptSample], Hashable], ...] = (
        lambda one: one.tenant,
        lambda one: one.worker,
    )
    for group_of in groupings:
        weights: defaultdict[Hashable, list[float]] = defaultdict(list)
        for one in samples:
            weights[group_of(one)].append(weigh(one))
        for group in weights.values():
            others = len(samples) - len(group)
            if others:
                shares.append(max(0.0, total - math.fsum(group)) / others)
    return min(shares)


def newest_of_tenants(samples: Sequence[AttemptSample], count: int) -> list[AttemptSample]:
    """Of each tenant the newest, at most so many."""
    kept: list[AttemptSample] = []
    counts: Counter[TenantId] = Counter()
    for one in sorted(samples, key=lambda each: each.at, reverse=True):
        counts[one.tenant] += 1
        if counts[one.tenant] <= count:
            kept.append(one)
    return kept


def normal_speed(measured: Sequence[AttemptSample]) -> float:
    """Milliseconds for a token: the median of the workers' medians; the slower of two.

    A worker that says that it is much faster than it is would otherwise make all others slow.
    """
    of_workers: defaultdict[WorkerId, list[float]] = defaultdict(list)
    for one in measured:
        of_workers[one.worker].append(one.ms_per_token)
    return median_high(median(speeds) for speeds in of_workers.values())
