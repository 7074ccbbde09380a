"""The reservation manager: durable first, then handed over to Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.pools import Dispatch, Placed, Pools
from tether.jobs import JobState
from tether.scheduling.dispatches import of_new_job
from tether.store.admissions import Admission, AdmissionKind, NewJob, admit
from tether.store.placements import record_placed
from tether.store.store import Store

REST_AFTER_OUTAGE_SECONDS = 1.0
"""For how long nothing is placed here after Redis did not answer: the outbox relay does it."""


class ReservationManager:
    """Writes jobs with their holds and outbox rows, and carries these out. Safe to use from many threads."""

    def __init__(self, store: Store, pools: Pools, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._pools = pools
        self._clock = clock
        self._away_until = 0.0
        self._log = structlog.stdlib.get_logger("tether.scheduling")

    def reserve(self, new_jobs: Sequence[NewJob]) -> list[Admission]:
        """Admit jobs and place those that are due. When it answers, what was accepted is durable.

        Whatever Redis says after that changes nothing in the answer.

        Raises:
          StoreUnavailable: Nothing was written; where it is a ``CommitUnknown``, that is not known.
        """
        futures = self._store.write_many(admit, new_jobs)
        admissions = [future.result() for future in futures]
        due = [
            of_new_job(job, admission.dispatch)
            for job, admission in zip(new_jobs, admissions, strict=True)
            if admission.kind is AdmissionKind.ACCEPTED
            and admission.state is JobState.ACCEPTED
            and job.not_before <= job.now_ms
        ]
        self.hand_over(due)
        return admissions

    def hand_over(self, dispatches: Sequence[Dispatch]) -> None:
        """Place dispatches whose outbox rows are committed, and note that; the relay does what fails here."""
        if not dispatches or self._clock() < self._away_until:
            return
        try:
            answers = self._pools.place(dispatches)
        except OUTAGE_ERRORS as error:
            self._away_until = self._clock() + REST_AFTER_OUTAGE_SECONDS
            self._log.warning("Accepted, and not placed yet: Redis is away.", error=type(error).__name__)
            return
        placed = [
            (dispatch.job_id, dispatch.dispatch)
            for dispatch, answer in zip(dispatches, answers, strict=True)
            if answer is not Placed.CLOSED
        ]
        # Nobody waits for this: a row that stays is placed again, which changes nothing.
        self._store.write_many(record_placed, placed)
