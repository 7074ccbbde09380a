"""The reservation manager: durable first, then handed over to Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import NamedTuple

import redis

from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.broker.pools.room import bytes_in_redis, max_waiting_at_submit
from tether.clocks import boot_seconds
from tether.config.sections import JobSettings
from tether.errors import CommitUnknown
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobState, Priority
from tether.store.admissions import Admission, AdmissionKind, NewJob, admit
from tether.store.capacity import Claim
from tether.store.decisions import Decision
from tether.store.placements import NotPlaced, PlacedDispatch, Placement, record_placed
from tether.store.placements import replace as replace_waiting
from tether.store.queries import KeyHolder, job_with_key
from tether.store.store import Store, each_result
from tether.telemetry.logs import get_logger

CHUNK = 256
"""Jobs that are placed together."""

MAX_AGE_OF_RESULT_TTL = 0.5
"""A job is placed here within this share of the time for which Redis knows ended jobs."""

REST_AFTER_OUTAGE_SECONDS = 5.0
"""For how long nothing is placed here after Redis was unavailable: the outbox relay does it."""


class ClaimedJob(NamedTuple):
    """A job that waits in the database, and where it may go.

    Attributes:
      from_dispatch: Its newest hand-over; 0 where there was none.
      claims: The pools that can serve it, the best first.
      now_ms: Milliseconds since the epoch.
      decision: What is kept of the choice.
    """

    job_id: JobId
    from_dispatch: int
    claims: tuple[Claim, ...]
    now_ms: int
    decision: Decision | None = None

    def placement(self, number: int) -> Placement:
        """Its placement in one of its pools, counted from 0."""
        to = self.claims[number]
        return Placement(self.job_id, self.from_dispatch, to.pool, self.now_ms, self.decision, to.bound)


class Hold(NamedTuple):
    """A place in a pool that a job has got, with the dispatch."""

    pool: PoolName
    dispatch: int


class ReservationManager:
    """Writes jobs with their holds and outbox rows, and places them. Thread-safe."""

    def __init__(
        self,
        store: Store,
        pools: Pools,
        *,
        result_ttl_ms: int = JobSettings().result_ttl,
        clock: Callable[[], float] = boot_seconds,
    ) -> None:
        """
        Args:
          result_ttl_ms: For how long Redis knows that a job has ended, in milliseconds.
          clock: Seconds; those for which this process or machine stood still count.
        """
        self._store = store
        self._pools = pools
        self._max_age = MAX_AGE_OF_RESULT_TTL * result_ttl_ms / 1000
        self._clock = clock
        self._away_until = 0.0
        self._log = get_logger("tether.scheduling")

    def reserve(self, new_jobs: Sequence[NewJob]) -> list[Admission | Exception]:
        """Admit jobs and place those that are due. When this returns, accepted jobs are durable; an error is
        in the place of each job that cannot be written.

        The result does not depend on Redis.

        Raises:
          StoreUnavailable: Nothing was written; if it is a ``CommitUnknown``, it is unknown whether it was.
        """
        admissions: list[Admission | Exception] = []
        # All are written at once, and placed as their commits come: what waits here for long, the relay would
        # place too.
        began = self._clock()
        futures = self._store.write_many(admit, new_jobs)
        for start in range(0, len(new_jobs), CHUNK):
            part = new_jobs[start : start + CHUNK]
            answers = self._answers(part, futures[start : start + CHUNK])
            answers = self._to_others(part, answers)
            admissions += answers
            self.hand_over(
                [
                    Dispatch.of(job.job, answer.dispatch, answer.pool)
                    for job, answer in zip(part, answers, strict=True)
                    if not isinstance(answer, Exception)
                    and answer.kind is AdmissionKind.ACCEPTED
                    and answer.pool is not None
                    and answer.state is JobState.ACCEPTED
                    and job.job.not_before <= job.now_ms
                ],
                since=began,
            )
        return admissions

    def _to_others(
        self, new_jobs: Sequence[NewJob], answers: Sequence[Admission | Exception]
    ) -> list[Admission | Exception]:
        """Place jobs for which their pool had no room in the next of their pools that has. What finds none
        waits in the database, accepted as it is."""
        refused = {
            answer.job_id: (job, answer)
            for job, answer in zip(new_jobs, answers, strict=True)
            if not isinstance(answer, Exception)
            and answer.kind is AdmissionKind.ACCEPTED
            and answer.state is JobState.PARKED
            and job.others
        }
        if not refused:
            return list(answers)
        results = self.claim(
            [ClaimedJob(id_, 0, job.others, job.now_ms, job.decision) for id_, (job, _) in refused.items()]
        )
        placed: dict[JobId, Admission] = {}
        for (job_id, (_, answer)), result in zip(refused.items(), results, strict=True):
            if isinstance(result, Hold):
                placed[job_id] = replace(
                    answer, state=JobState.ACCEPTED, dispatch=result.dispatch, pool=result.pool
                )
            elif isinstance(result, Exception):
                self._log.warning(
                    "Accepted, and parked: its pool has no room, and another could not be tried.",
                    job=job_id,
                    error=type(result).__name__,
                )
        return [
            answer if isinstance(answer, Exception) else placed.get(answer.job_id, answer)
            for answer in answers
        ]

    def claim(self, jobs: Sequence[ClaimedJob]) -> list[Hold | NotPlaced | Exception]:
        """Give jobs that wait in the database their next dispatch, each in the first of its pools that has
        room. Errors are in the places of their jobs."""
        results: list[Hold | NotPlaced | Exception] = [NotPlaced.NO_ROOM] * len(jobs)
        number, left = 0, [index for index, job in enumerate(jobs) if job.claims]
        while left:
            placements = [jobs[index].placement(number) for index in left]
            for index, placement, raised in zip(
                left, placements, self._store.write_each(replace_waiting, placements), strict=True
            ):
                results[index] = Hold(placement.pool, raised) if isinstance(raised, int) else raised
            number += 1
            left = [
                index
                for index in left
                if results[index] is NotPlaced.NO_ROOM and number < len(jobs[index].claims)
            ]
        return results

    def _answers(
        self, new_jobs: Sequence[NewJob], futures: Sequence[Future[Admission]]
    ) -> list[Admission | Exception]:
        try:
            return each_result(futures)
        except CommitUnknown:
            # The same keys again: whatever was written the first time is found, and nothing is made twice.
            answers = self._store.write_each(admit, new_jobs)
        return [
            replace(answer, kind=AdmissionKind.ACCEPTED)
            if not isinstance(answer, Exception) and answer.job_id == job.job_id
            else answer
            for job, answer in zip(new_jobs, answers, strict=True)
        ]

    def job_with_key(self, tenant_id: TenantId, correlation_id: str, retry_token: str) -> KeyHolder | None:
        """Return the job that has this idempotency key.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        return self._store.read(job_with_key, (tenant_id, correlation_id, retry_token))

    def hand_over(self, dispatches: Sequence[Dispatch], *, since: float | None = None) -> None:
        """Place dispatches whose outbox rows are committed, and record that. The relay places what fails, and
        what Redis has no room for. Raises nothing: they are accepted.

        Args:
          since: When their commit began, by the clock of this one; None for just now.
        """
        try:
            self._hand_over(dispatches, since)
        except Exception:
            self._log.exception("Accepted, but not placed or recorded here. The relay does it.")

    def _hand_over(self, dispatches: Sequence[Dispatch], since: float | None) -> None:
        if not dispatches or self._clock() < self._away_until:
            return
        try:
            # Whoever was paused since then may find jobs that the relay has placed meanwhile, and that ended
            # and left Redis: placed once more they would run again. Looked at last, right before it is done.
            fitting = self._fitting(dispatches)
            if since is not None and self._clock() - since > self._max_age:
                self._log.warning("Paused after a commit. The relay places what was accepted.")
                return
            answers = self._pools.place(fitting, max_waiting=self._max_waiting)
        except redis.RedisError as error:
            self._away_until = self._clock() + REST_AFTER_OUTAGE_SECONDS
            self._log.warning(
                "Accepted, but not placed yet: Redis is unavailable.", error=type(error).__name__
            )
            return
        placed = [
            PlacedDispatch(dispatch.job_id, dispatch.dispatch, dispatch.priority)
            for dispatch, answer in zip(fitting, answers, strict=True)
            if answer in (PlaceResult.PLACED, PlaceResult.KNOWN)
        ]
        # Nobody waits for this: a row that stays is placed again, which changes at most the job's priority.
        self._store.write_many(record_placed, placed)
        with contextlib.suppress(redis.RedisError):
            # All is placed that can be: the next finds out that Redis is unavailable.
            self._pools.room.refresh()

    def _fitting(self, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
        """Those for which Redis has room, until the first of each class for which it has none."""
        room: dict[Priority, float] = {}
        fitting = []
        for dispatch in dispatches:
            priority = dispatch.priority
            if priority not in room:
                room[priority] = self._pools.room.left_at_submit(priority)
            if room[priority] > 0:
                room[priority] -= bytes_in_redis(len(dispatch.body))
                fitting.append(dispatch)
        return fitting

    def _max_waiting(self, dispatch: Dispatch) -> int:
        return max_waiting_at_submit(self._pools.room.lane_bytes, len(dispatch.body))
