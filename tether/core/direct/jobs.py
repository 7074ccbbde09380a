"""Jobs, straight from the database and Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import redis

from tether.broker.pools.known_jobs import KnownJob
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.client.lifetime import Lifetime
from tether.core.control_plane import ControlPlane
from tether.core.direct.job_waits import JobWaits
from tether.core.job_histories import history_of
from tether.core.job_placements import placements_of
from tether.core.live_states import LiveStates
from tether.explanations import Explanation, JobPlacements
from tether.histories import JobHistory
from tether.ids import JobId, TenantId
from tether.job_filters import JobFilter
from tether.job_names import check_job_id, no_such_job
from tether.jobs import JobRequest, JobState, Submitted
from tether.scheduling.infer_messages import submission_of
from tether.statuses import JobPage, JobStatus, check_page, status_of
from tether.store import queries
from tether.store.decisions import decisions_of
from tether.store.end_requests import Request
from tether.store.failures import after_commit
from tether.store.job_lists import MAX_SCANNED, scan_jobs
from tether.store.letter_retries import retried_jobs
from tether.store.rows import JobRow
from tether.store.store import Store

_DECIDED_BY_REDIS = frozenset(
    {JobState.PLACED, JobState.RUNNING, JobState.SUCCEEDED, JobState.CANCELLED, JobState.EXPIRED}
)
"""States of which the database only makes a record: whoever saw a stream's end finds it in the status."""

MIN_ROWS = 20
"""Rows that are read at once, of which Redis may know that they are in other states."""


class DirectJobPort:
    """See :class:`~tether.client.job_port.JobPort`.

    Attributes:
      reads: The tenant's jobs.
    """

    def __init__(self, plane: ControlPlane, live: LiveStates, lifetime: Lifetime, tenant: TenantId) -> None:
        self._plane = plane
        self.reads = JobReads(plane, live, tenant)
        self._live = live
        self._lifetime = lifetime
        self._tenant = tenant

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        with self._lifetime.call():
            envelopes = [self._plane.scheduler.envelope(request, self._tenant) for request in requests]
            submissions = [submission_of(answer) for answer in self._plane.broker.enqueue_many(envelopes)]
        return [self._lifetime.meant(s) if isinstance(s, Exception) else s for s in submissions]

    def status(self, job_id: JobId) -> JobStatus:
        with self._lifetime.call():
            return self.reads.one(job_id).status

    def history(self, job_id: JobId) -> JobHistory:
        with self._lifetime.call():
            return self.reads.history(job_id).history

    def placements(self, job_id: JobId) -> JobPlacements:
        with self._lifetime.call():
            return self.reads.placements(job_id).placements

    def explain(self, request: JobRequest) -> Explanation:
        with self._lifetime.call():
            return self._plane.scheduler.explain(request, self._tenant)

    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        check_page(cursor, limit)
        with self._lifetime.call(), self._plane.list_reads.turn(self._tenant):
            return self._find(job_filter, None if cursor is None else JobId(cursor), limit)

    def find_in_turn(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        """Like :meth:`find`, for a caller that holds a turn of the control plane's ``list_reads``."""
        check_page(cursor, limit)
        with self._lifetime.call():
            return self._find(job_filter, None if cursor is None else JobId(cursor), limit)

    def _find(self, job_filter: JobFilter, after: JobId | None, limit: int) -> JobPage:
        found, following = self.reads.page(job_filter, after, limit)
        return JobPage(tuple(one.status for one in found), following)

    def cancel(self, job_id: JobId) -> JobState:
        check_job_id(job_id)
        with self._lifetime.call():
            return self._cancel(job_id)

    def _cancel(self, job_id: JobId) -> JobState:
        request = Request(self._tenant, job_id, JobState.CANCELLED, self._plane.clock.now_ms())
        if self._live.is_away():
            row = self._plane.ending.ask([request])[0]
            if isinstance(row, Exception):
                raise row
            state = None if row is None else row.state
        else:
            try:
                answer = self._plane.ending.end([request])[0]
            except OUTAGE_ERRORS:
                # The request is durable, and carried out once Redis is back.
                self._live.note_away()
                return self._state_in_database(job_id)
            if isinstance(answer, redis.RedisError):
                # What Redis holds of this job cannot be read. The request stands, and is tried again.
                return self._state_in_database(job_id)
            if isinstance(answer, Exception):
                raise answer
            state = answer
        if state is None:
            raise no_such_job(job_id)
        if state.is_final:
            return state
        with after_commit():
            return self.status(job_id).state

    def _state_in_database(self, job_id: JobId) -> JobState:
        with after_commit():
            return job_of_tenant(self._plane.store, job_id, self._tenant).state


class JobOfTenant(NamedTuple):
    """The status of a job, and whose it is."""

    tenant_id: TenantId
    status: JobStatus


class HistoryOfTenant(NamedTuple):
    """The history of a job, and whose it is."""

    tenant_id: TenantId
    history: JobHistory


class PlacementsOfTenant(NamedTuple):
    """How a job came to its pools, and whose it is."""

    tenant_id: TenantId
    placements: JobPlacements


class JobReads:
    """Reads jobs as the database and Redis have them. Blocks; safe to use from many threads."""

    def __init__(self, plane: ControlPlane, live: LiveStates, tenant: TenantId | None) -> None:
        """
        Args:
          tenant: Whose jobs; None for all tenants'.
        """
        self._plane = plane
        self._live = live
        self._tenant = tenant
        self._waits = JobWaits(plane, live)

    def one(self, job_id: JobId) -> JobOfTenant:
        """One job.

        Raises:
          JobNotFound: There is no such job of this tenant's.
        """
        row = job_of_tenant(self._plane.store, job_id, self._tenant)
        known = {} if row.state.is_final else self._live.known([job_id])
        found = self._statuses([row], known)[0]
        return found._replace(status=self._waits.told(row, found.status, known.get(job_id)))

    def history(self, job_id: JobId) -> HistoryOfTenant:
        """The attempts of one job.

        Raises:
          JobNotFound: There is no such job of this tenant's.
        """
        row, history = self._history(job_id)
        return HistoryOfTenant(row.tenant_id, history)

    def placements(self, job_id: JobId) -> PlacementsOfTenant:
        """How one job came to its pools.

        Raises:
          JobNotFound: There is no such job of this tenant's.
        """
        row, history = self._history(job_id)
        kept = self._plane.store.read(decisions_of, job_id)
        return PlacementsOfTenant(row.tenant_id, placements_of(history, kept, row.not_before))

    def _history(self, job_id: JobId) -> tuple[JobRow, JobHistory]:
        row = job_of_tenant(self._plane.store, job_id, self._tenant)
        # Redis first: what leaves it meanwhile is in the database then.
        live = self._live.attempts(job_id)
        known = self._plane.store.read(queries.attempts_of, job_id)
        row = job_of_tenant(self._plane.store, job_id, self._tenant)
        in_redis = None if live is None else KnownJob(live.state, live.fence.dispatch, live.offset)
        status = _status(row, None if row.state.is_final else in_redis)
        return row, history_of(row, status, known, live)

    def page(
        self, job_filter: JobFilter, after: JobId | None, limit: int
    ) -> tuple[list[JobOfTenant], JobId | None]:
        """Some jobs, newest first, and the id behind which the list goes on; None at its end."""
        asked = in_database(job_filter)
        found: list[JobOfTenant] = []
        left = MAX_SCANNED
        while left > 0:
            # One more than the page tells whether another page follows.
            wanted = max(limit + 1 - len(found), MIN_ROWS)
            listed = self._plane.store.read(scan_jobs, self._tenant, asked, after, wanted, left)
            # While Redis owns a job, the database knows no better than that it was handed over.
            known = self._live.known([row.job_id for row in listed.rows if not row.state.is_final])
            for one in self._statuses(listed.rows, known):
                if not job_filter.states or one.status.state in job_filter.states:
                    found.append(one)
            if len(found) > limit:
                return found[:limit], found[limit - 1].status.job_id
            after = listed.after
            if after is None:
                break
            left -= listed.scanned
        return found, after

    def _statuses(self, rows: Sequence[JobRow], known: Mapping[JobId, KnownJob | None]) -> list[JobOfTenant]:
        dead = [row.job_id for row in rows if row.state is JobState.DEAD]
        retries = dict(self._plane.store.read_each(retried_jobs, dead)[0]) if dead else {}
        return [
            JobOfTenant(row.tenant_id, _status(row, known.get(row.job_id), retries.get(row.job_id)))
            for row in rows
        ]


def job_of_tenant(store: Store, job_id: JobId, tenant: TenantId | None) -> JobRow:
    """The row of a job; with None of any tenant's.

    Raises:
      JobNotFound: There is no such job of this tenant's.
    """
    check_job_id(job_id)
    row = store.read(queries.job, job_id, tenant)
    if row is None:
        raise no_such_job(job_id)
    return row


def _status(row: JobRow, known: KnownJob | None, retried_as: JobId | None = None) -> JobStatus:
    state, offset = row.state, row.output_tokens
    if known is not None and known.dispatch == row.dispatch:
        offset = known.offset
        if known.state in _DECIDED_BY_REDIS:
            state = JobState(known.state)
    output_tokens = offset if state.is_final else row.output_tokens
    # Until its end is recorded, the attempt that succeeded is not among those of the row.
    attempts = row.attempts + (state is JobState.SUCCEEDED and not row.state.is_final)
    return status_of(
        row,
        state=state,
        offset=offset,
        output_tokens=output_tokens,
        attempts=attempts,
        retried_as=retried_as,
        deadline=row.deadline or None,
        expires_at=None if known is not None and known.has_begun else row.expires_at or None,
        waits_for="",
        expected_at=None,
    )


def in_database(job_filter: JobFilter) -> JobFilter:
    """The same with the states in which the database may hold such jobs: what runs, it has as placed."""
    states = set(job_filter.states)
    if states & _DECIDED_BY_REDIS:
        states |= {JobState.PLACED, JobState.RUNNING}
    return replace(job_filter, states=tuple(sorted(states)))
