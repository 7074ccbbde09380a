"""Changes of jobs that were submitted, straight in the database and Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis

from tether.broker.pools.lane_moves import ENDED, MoveResult
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.client.lifetime import Lifetime
from tether.core.control_plane import ControlPlane
from tether.core.direct.jobs import JobOfTenant, JobReads
from tether.core.live_states import LiveStates
from tether.errors import JobEnded, TetherError
from tether.ids import JobId, TenantId
from tether.job_changes import JobChange, JobChanges, cancellable, check_change_limit, reprioritisable
from tether.job_filters import JobFilter
from tether.job_names import check_job_id, no_such_job
from tether.jobs import JobError, JobState, Priority
from tether.scheduling.allowed_priorities import change_allowed
from tether.statuses import check_page
from tether.store.end_requests import Request, RequestedRow
from tether.store.failures import after_commit
from tether.store.priorities import PrioritisedRow, PriorityChange
from tether.telemetry.logs import get_logger

EVERY_TENANT = TenantId("*")
"""The party that changes of all tenants' jobs are, among those that wait for lists."""

_log = get_logger("tether.core")


class DirectChangePort:
    """See :class:`~tether.client.change_port.JobChangePort`.

    Args:
      tenant: Whose jobs; None for all tenants'.
    """

    def __init__(
        self, plane: ControlPlane, live: LiveStates, lifetime: Lifetime, tenant: TenantId | None
    ) -> None:
        self._plane = plane
        self._live = live
        self._lifetime = lifetime
        self._tenant = tenant

    def cancel_where(
        self, job_filter: JobFilter, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        with self._plane.list_reads.turn(self._tenant or EVERY_TENANT):
            return self.cancel_in_turn(job_filter, dry_run, cursor, limit)

    def cancel_in_turn(
        self, job_filter: JobFilter, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        """Like :meth:`cancel_where`, for a caller that holds a turn of the control plane's ``list_reads``."""
        found, following = self._matching(cancellable(job_filter), cursor, limit)
        if dry_run:
            return JobChanges(tuple(map(_unchanged, found)), following)
        with self._lifetime.call():
            return JobChanges(tuple(self._cancel(found)), following)

    def reprioritise(self, job_id: JobId, priority: Priority) -> JobState:
        check_job_id(job_id)
        with self._lifetime.call():
            reads = JobReads(self._plane, self._live, self._tenant)
            one = reads.one(job_id)
            if one.status.state.is_final:
                raise _has_ended(job_id, one.status.state)
            (answer,) = self._prioritised([one], priority)
            if answer is None:
                # Its time is over, and it was deleted.
                raise no_such_job(job_id)
            if isinstance(answer, Exception):
                raise answer
            with after_commit():
                return reads.one(job_id).status.state

    def reprioritise_where(
        self, job_filter: JobFilter, priority: Priority, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        with self._plane.list_reads.turn(self._tenant or EVERY_TENANT):
            return self.reprioritise_in_turn(job_filter, priority, dry_run, cursor, limit)

    def reprioritise_in_turn(
        self, job_filter: JobFilter, priority: Priority, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        """Like :meth:`reprioritise_where`, for a caller that holds a turn of the control plane's
        ``list_reads``."""
        found, following = self._matching(reprioritisable(job_filter), cursor, limit)
        if dry_run:
            return JobChanges(tuple(map(_unchanged, found)), following)
        with self._lifetime.call():
            answers = self._prioritised(found, priority)
        changes = [_changed(one, answer) for one, answer in zip(found, answers, strict=True)]
        return JobChanges(tuple(changes), following)

    def _prioritised(
        self, found: Sequence[JobOfTenant], priority: Priority
    ) -> list[JobState | Exception | None]:
        """The state of each job after its change; None where there is no such job any more."""
        now_ms = self._plane.clock.now_ms()
        changes = [PriorityChange(one.tenant_id, one.status.job_id, priority, now_ms) for one in found]
        rows = change_allowed(self._plane.scheduler.policies, self._plane.priorities, changes)
        in_redis = self._followed([row.job_id for row in rows if isinstance(row, PrioritisedRow)])
        return [
            _after(row, one, in_redis.get(row.job_id)) if isinstance(row, PrioritisedRow) else row
            for one, row in zip(found, rows, strict=True)
        ]

    def _followed(self, job_ids: Sequence[JobId]) -> Mapping[JobId, MoveResult | Exception]:
        if not self._live.is_away():
            try:
                with after_commit():
                    return self._plane.priorities.follow(job_ids)
            except OUTAGE_ERRORS:
                self._live.note_away()
        # Their rows have the new priority, which Redis is told of once it is back.
        return {}

    def _matching(
        self, job_filter: JobFilter, cursor: str | None, limit: int
    ) -> tuple[list[JobOfTenant], JobId | None]:
        check_change_limit(limit)
        check_page(cursor, limit)
        tenant = self._tenant or job_filter.tenant_id
        if job_filter.tenant_id not in (None, tenant):
            return [], None
        with self._lifetime.call():
            reads = JobReads(self._plane, self._live, tenant)
            return reads.page(job_filter, None if cursor is None else JobId(cursor), limit)

    def _cancel(self, found: Sequence[JobOfTenant]) -> list[JobChange]:
        now_ms = self._plane.clock.now_ms()
        requests = [Request(one.tenant_id, one.status.job_id, JobState.CANCELLED, now_ms) for one in found]
        answers = self._ended(requests)
        return [_cancelled(one, answer) for one, answer in zip(found, answers, strict=True)]

    def _ended(self, requests: Sequence[Request]) -> Sequence[JobState | Exception | None]:
        if not self._live.is_away():
            try:
                return self._plane.ending.end(requests)
            except OUTAGE_ERRORS:
                self._live.note_away()
        # The requests are durable, and carried out once Redis is back.
        return [
            row.state if isinstance(row, RequestedRow) else row for row in self._plane.ending.ask(requests)
        ]


def _cancelled(one: JobOfTenant, answer: JobState | Exception | None) -> JobChange:
    if isinstance(answer, JobState) and answer.is_final:
        return JobChange(job_id=one.status.job_id, tenant_id=one.tenant_id, state=answer)
    if answer is None or isinstance(answer, JobState | redis.RedisError):
        # It ends by its outcome; or what Redis holds of it cannot be read, and the request is tried again.
        return _unchanged(one)
    return JobChange(
        job_id=one.status.job_id,
        tenant_id=one.tenant_id,
        state=one.status.state,
        error=_told(one.status.job_id, answer),
    )


def _after(
    row: PrioritisedRow, one: JobOfTenant, in_redis: MoveResult | Exception | None
) -> JobState | Exception:
    if row.state.is_final:
        return _has_ended(row.job_id, row.state)
    if isinstance(in_redis, MoveResult) and in_redis in ENDED:
        return _has_ended(row.job_id, in_redis)
    # What Redis holds of it may be unreadable: it follows its row once it is placed anew.
    return JobState.RUNNING if in_redis is MoveResult.RUNNING else one.status.state


def _changed(one: JobOfTenant, answer: JobState | Exception | None) -> JobChange:
    if isinstance(answer, JobState):
        return JobChange(job_id=one.status.job_id, tenant_id=one.tenant_id, state=answer)
    error = no_such_job(one.status.job_id) if answer is None else answer
    return JobChange(
        job_id=one.status.job_id,
        tenant_id=one.tenant_id,
        state=one.status.state,
        error=_told(one.status.job_id, error),
    )


def _has_ended(job_id: JobId, state: str) -> JobEnded:
    return JobEnded(f"job {job_id} has ended ({state}): its priority can no longer be changed")


def _unchanged(one: JobOfTenant) -> JobChange:
    return JobChange(job_id=one.status.job_id, tenant_id=one.tenant_id, state=one.status.state)


def _told(job_id: JobId, error: Exception) -> JobError:
    if isinstance(error, TetherError):
        wait_ms = round((error.retry_after or 0) * 1000)
        return JobError(error.code, error.outward or str(error), error.retryable, wait_ms)
    _log.error("A job could not be changed.", job=job_id, error=repr(error))
    return JobError(TetherError.code, f"internal error: {type(error).__name__}")
