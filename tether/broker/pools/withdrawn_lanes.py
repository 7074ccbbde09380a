"""Takes out of Redis what waits in a pool, one page at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import redis

from tether.broker.keys import WAITING_CLASSES
from tether.broker.pools.pools import Pools
from tether.broker.pools.waiting_lanes import (
    LanePlace,
    WaitingDispatch,
    tenants_waiting,
    waiting_dispatches,
)
from tether.broker.redis.connections import raise_if_refused
from tether.ids import JobId, PoolName, TenantId

LANES = 16
"""Lanes of a class that are read together."""

PAGE = 64
"""Jobs that are withdrawn together."""


class WithdrawnPage(NamedTuple):
    """What came of a page of jobs: those that were withdrawn, and why others could not be."""

    withdrawn: list[WaitingDispatch]
    errors: dict[JobId, Exception]


ChosenOfPage: TypeAlias = Callable[[Sequence[WaitingDispatch]], Sequence[WaitingDispatch]]
"""Returns those of a page of jobs that are to be withdrawn."""


def _all_of_page(waiting: Sequence[WaitingDispatch]) -> Sequence[WaitingDispatch]:
    return waiting


def pages_withdrawn(
    pools: Pools,
    pool: PoolName,
    tenants: Collection[TenantId] | None = None,
    choose: ChosenOfPage = _all_of_page,
) -> Iterator[WithdrawnPage]:
    """Withdraw what waits in a pool, a page of it at each step. A page may be empty.

    It goes over all lanes once. What cannot be withdrawn costs itself alone.

    Args:
      tenants: Whose jobs; None is everybody's.
      choose: Called with each page before any of it is withdrawn.
    """
    if tenants is None:
        yield from _withdraw_all(pools, pool, choose)
        return
    for waiting_class in WAITING_CLASSES:
        yield from _withdraw_lanes(
            pools, [LanePlace(pool, waiting_class, tenant) for tenant in sorted(tenants)], choose
        )


def _withdraw_all(pools: Pools, pool: PoolName, choose: ChosenOfPage) -> Iterator[WithdrawnPage]:
    for waiting_class in WAITING_CLASSES:
        behind = 0
        while True:
            try:
                tenants = tenants_waiting(pools.client, pools.keys, pool, waiting_class, behind, LANES)
            except redis.ResponseError as error:
                # Of another type than ours: whoever places next throws it away.
                raise_if_refused(error)
                break
            if not tenants:
                break
            lanes = [LanePlace(pool, waiting_class, tenant) for tenant in tenants]
            # Lanes that are empty are no longer among the class's: those that are left are passed over.
            behind += yield from _withdraw_lanes(pools, lanes, choose)


def first_jobs(pools: Pools, names: Sequence[PoolName]) -> dict[PoolName, JobId]:
    """One job that waits in each of these pools; a pool in whose first lane none is found is left out."""
    found: dict[PoolName, JobId] = {}
    for pool in names:
        for waiting_class in WAITING_CLASSES:
            try:
                tenants = tenants_waiting(pools.client, pools.keys, pool, waiting_class, 0, 1)
            except redis.ResponseError as error:
                raise_if_refused(error)
                continue
            lanes = [LanePlace(pool, waiting_class, tenant) for tenant in tenants]
            waiting = waiting_dispatches(pools.client, pools.keys, lanes, PAGE) if lanes else []
            if waiting:
                found[pool] = waiting[0].job_id
                break
    return found


def _withdraw_lanes(
    pools: Pools, lanes: list[LanePlace], choose: ChosenOfPage
) -> Generator[WithdrawnPage, None, int]:
    """Return how many lanes are left, since something in them could not be withdrawn."""
    left = 0
    while lanes:
        size = max(1, PAGE // len(lanes))
        waiting = waiting_dispatches(pools.client, pools.keys, lanes, size)
        withdrawn = _withdraw(pools, choose(waiting))
        further = []
        for lane, tidied in zip(lanes, pools.tidy_lists(lanes, size), strict=True):
            if isinstance(tidied, Exception):
                left += 1
                continue
            removed, seen = tidied
            start = lane.start + seen - removed
            if seen == size:
                further.append(lane._replace(start=start))
            elif start:
                left += 1
        lanes = further
        yield withdrawn
    return left


def _withdraw(pools: Pools, waiting: Sequence[WaitingDispatch]) -> WithdrawnPage:
    answers = list(zip(waiting, pools.withdraw_many(waiting, running=False), strict=True))
    return WithdrawnPage(
        [each for each, answer in answers if answer == "withdrawn"],
        {each.job_id: answer for each, answer in answers if isinstance(answer, Exception)},
    )
