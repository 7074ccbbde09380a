"""The reservation manager: durable first, then handed over to Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import redis

from tether.broker.pools import Dispatch, Placed, Pools
from tether.errors import CommitUnknown
from tether.jobs import JobState
from tether.scheduling.dispatches import dispatch_of
from tether.store.admissions import Admission, AdmissionKind, NewJob, admit
from tether.store.placements import record_placed
from tether.store.store import Store
from tether.telemetry.logs import get_logger

CHUNK = 256
"""Jobs that are placed together."""

REST_AFTER_OUTAGE_SECONDS = 5.0
"""For how long nothing is placed here after Redis did not answer: the outbox relay does it."""


class ReservationManager:
    """Writes jobs with their holds and outbox rows, and carries these out. Safe to use from many threads."""

    def __init__(self, store: Store, pools: Pools, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._pools = pools
        self._clock = clock
        self._away_until = 0.0
        self._log = get_logger("tether.scheduling")

    def reserve(self, new_jobs: Sequence[NewJob]) -> list[Admission]:
        """Admit jobs and place those that are due. When it answers, what was accepted is durable.

        Whatever Redis says after that changes nothing in the answer.

        Raises:
          StoreUnavailable: Nothing was written; where it is a ``CommitUnknown``, that is not known.
        """
        admissions: list[Admission] = []
        # All are written at once, and placed as their commits come: what waits here for long, the relay would
        # place too.
        futures = self._store.write_many(admit, new_jobs)
        for start in range(0, len(new_jobs), CHUNK):
            part = new_jobs[start : start + CHUNK]
            answers = self._answers(part, futures[start : start + CHUNK])
            admissions += answers
            self.hand_over(
                [
                    dispatch_of(job, answer.dispatch, answer.pool)
                    for job, answer in zip(part, answers, strict=True)
                    if answer.kind is AdmissionKind.ACCEPTED
                    and answer.pool is not None
                    and answer.state is JobState.ACCEPTED
                    and job.not_before <= job.now_ms
                ]
            )
        return admissions

    def _answers(self, new_jobs: Sequence[NewJob], futures: Sequence[Future[Admission]]) -> list[Admission]:
        try:
            return [future.result() for future in futures]
        except CommitUnknown:
            # The same keys again: whatever was written the first time is found, and nothing is made twice.
            answers = [future.result() for future in self._store.write_many(admit, new_jobs)]
        return [
            replace(answer, kind=AdmissionKind.ACCEPTED) if answer.job_id == job.job_id else answer
            for job, answer in zip(new_jobs, answers, strict=True)
        ]

    def hand_over(self, dispatches: Sequence[Dispatch]) -> None:
        """Place dispatches whose outbox rows are committed, and note that; the relay does what fails here."""
        if not dispatches or self._clock() < self._away_until:
            return
        try:
            answers = self._pools.place(dispatches)
        except redis.RedisError as error:
            self._away_until = self._clock() + REST_AFTER_OUTAGE_SECONDS
            self._log.warning(
                "Accepted, and not placed yet: Redis does not take it.", error=type(error).__name__
            )
            return
        placed = [
            (dispatch.job_id, dispatch.dispatch)
            for dispatch, answer in zip(dispatches, answers, strict=True)
            if answer in (Placed.PLACED, Placed.KNOWN)
        ]
        # Nobody waits for this: a row that stays is placed again, which changes nothing.
        self._store.write_many(record_placed, placed)
