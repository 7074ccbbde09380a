"""What waits in a pool, moved to others or cancelled: a bounded part of it at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tether.broker.pools.outcome_backlog import unsettled_outcomes
from tether.broker.pools.pools import Pools
from tether.broker.pools.waiting_lanes import WaitingDispatch
from tether.broker.pools.withdrawn_lanes import pages_withdrawn
from tether.ids import JobId, PoolName
from tether.jobs import JobState
from tether.scheduling.cancellation import Cancellation
from tether.store.end_requests import Request
from tether.store.moved_jobs import JobMove, note_moves
from tether.store.outbox import RANKS, OwedDispatch, owed_in_lane, owing_lanes
from tether.store.parking import OwedParking, ParkOwed
from tether.store.store import Store
from tether.store.waiting_jobs import MAX_TIME_MS

MAX_JOBS_PER_CALL = 256
"""Jobs that one call changes at most."""

MAX_PAGES_PER_CALL = 256
"""Pages that one call looks at: many may hold nothing but what cannot be changed."""

MAX_LANES_PER_CALL = 1_024

MAX_UNSETTLED_OUTCOMES = 512
"""Nothing more is withdrawn while so many outcomes are not settled: what others end shall not wait behind."""

_PAGE = 64
_park_at_once = ParkOwed(lambda hand_overs: 0)


@dataclass
class PoolChange:
    """What one call has done.

    Attributes:
      done: Jobs that were moved or cancelled.
      errors: Why others could not be.
      has_more: Whether there may be more: the call ended since it had done as much as one does.
    """

    done: int = 0
    errors: dict[JobId, Exception] = field(default_factory=dict)
    has_more: bool = False


class PoolChanges:
    """Moves or cancels what waits in a pool, in Redis and in the outbox. What runs is left alone.

    Each call begins anew, holds no lock longer than for one page, and may be repeated: who dies half-way
    leaves each job either where it was or waiting to be placed. Thread-safe.
    """

    def __init__(self, store: Store, pools: Pools, ending: Cancellation, now_ms: Callable[[], int]) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch.
        """
        self._store = store
        self._pools = pools
        self._ending = ending
        self._now_ms = now_ms

    def move(self, pool: PoolName, to: PoolName | None, limit: int) -> PoolChange:
        """Give jobs that wait in a pool back, to be placed again: in ``to`` where that can serve them, else
        in another than they had, where any can.

        What waits in Redis is withdrawn, and settled by an orchestrator.

        Raises:
          StoreUnavailable, OUTAGE_ERRORS: The database or Redis is away. Some may have been moved.
        """
        change = PoolChange()

        def chosen(job_ids: Sequence[JobId]) -> set[JobId]:
            # Noted first: whoever places them next must know.
            noted = self._store.write_each(note_moves, [JobMove(job_id, pool, to) for job_id in job_ids])
            _keep_errors(change, job_ids, noted)
            return {job_id for job_id, answer in zip(job_ids, noted, strict=True) if answer is True}

        for page in self._owed_pages(pool):
            left = page
            while left:
                if change.done >= limit:
                    change.has_more = True
                    return change
                # What fails leaves its place to what stands behind it.
                wanted, left = left[: limit - change.done], left[limit - change.done :]
                noted = chosen([owed.job_id for owed in wanted])
                parkings = [
                    OwedParking(owed.job_id, owed.dispatch, pool, self._now_ms())
                    for owed in wanted
                    if owed.job_id in noted
                ]
                answers = self._store.write_each(_park_at_once, parkings)
                _keep_errors(change, [item.job_id for item in parkings], answers)
                change.done += sum(answer is True for answer in answers)

        def choose(waiting: Sequence[WaitingDispatch]) -> Sequence[WaitingDispatch]:
            wanted = waiting[: limit - change.done]
            noted = chosen([each.job_id for each in wanted])
            return [each for each in wanted if each.job_id in noted]

        for withdrawn in self._withdrawn_pages(pool, change, limit, choose):
            change.done += len(withdrawn)
        return change

    def purge(self, pool: PoolName, limit: int) -> PoolChange:
        """Cancel jobs that wait in a pool.

        What waits in Redis is withdrawn first, so that nobody begins it, and ends once that is settled.

        Raises:
          StoreUnavailable, OUTAGE_ERRORS: The database or Redis is away. Some may have been cancelled.
        """
        change = PoolChange()
        for page in self._owed_pages(pool):
            left = page
            while left:
                if change.done >= limit:
                    change.has_more = True
                    return change
                # What fails leaves its place to what stands behind it.
                wanted, left = left[: limit - change.done], left[limit - change.done :]
                self._cancel(change, [owed.job_id for owed in wanted])

        def choose(waiting: Sequence[WaitingDispatch]) -> Sequence[WaitingDispatch]:
            return waiting[: limit - change.done]

        for withdrawn in self._withdrawn_pages(pool, change, limit, choose):
            self._cancel(change, withdrawn)
        return change

    def _cancel(self, change: PoolChange, job_ids: Sequence[JobId]) -> None:
        now_ms = self._now_ms()
        requests = [Request(None, job_id, JobState.CANCELLED, now_ms) for job_id in job_ids]
        answers = self._ending.end(requests)
        _keep_errors(change, job_ids, answers)
        change.done += sum(isinstance(answer, JobState) for answer in answers)

    def _withdrawn_pages(
        self,
        pool: PoolName,
        change: PoolChange,
        limit: int,
        choose: Callable[[Sequence[WaitingDispatch]], Sequence[WaitingDispatch]],
    ) -> Iterator[list[JobId]]:
        """The jobs of each page that was withdrawn, until the call has done enough: that is noted."""
        client, keys = self._pools.client, self._pools.keys
        pages = pages_withdrawn(self._pools, pool, choose=choose)
        for count in itertools.count(1):
            unsettled = unsettled_outcomes(client, keys, MAX_UNSETTLED_OUTCOMES)
            if change.done >= limit or count > MAX_PAGES_PER_CALL or unsettled >= MAX_UNSETTLED_OUTCOMES:
                change.has_more = True
                return
            page = next(pages, None)
            if page is None:
                return
            change.errors |= page.errors
            yield [each.job_id for each in page.withdrawn]

    def _owed_pages(self, pool: PoolName) -> Iterator[list[OwedDispatch]]:
        """What the outbox owes to a pool, a page of a lane at a time; each is read once."""
        for rank in RANKS.values():
            # No pool's name has a space: the lanes of this one follow its name.
            after = str(pool)
            for _ in range(MAX_LANES_PER_CALL // _PAGE):
                lanes = [lane.name for lane in self._store.read(owing_lanes, rank, after, _PAGE)]
                theirs = [name for name in lanes if name.partition(" ")[0] == pool]
                for name in theirs:
                    yield from self._pages_of_lane(rank, name)
                if len(theirs) < _PAGE:
                    break
                after = theirs[-1]

    def _pages_of_lane(self, rank: int, name: str) -> Iterator[list[OwedDispatch]]:
        behind: tuple[int, JobId] | None = None
        for _ in range(MAX_PAGES_PER_CALL):
            page = self._store.read(owed_in_lane, rank, name, MAX_TIME_MS, _PAGE, behind)
            if page:
                yield page
            if len(page) < _PAGE:
                return
            behind = (page[-1].due_at, page[-1].job_id)


def _keep_errors(change: PoolChange, job_ids: Sequence[JobId], answers: Sequence[object]) -> None:
    for job_id, answer in zip(job_ids, answers, strict=True):
        if isinstance(answer, Exception):
            change.errors[job_id] = answer
