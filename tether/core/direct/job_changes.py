"""Changes of many jobs, straight in the database and Redis."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.client.lifetime import Lifetime
from tether.core.control_plane import ControlPlane
from tether.core.direct.jobs import JobOfTenant, JobReads
from tether.core.live_states import LiveStates
from tether.errors import TetherError
from tether.ids import JobId, TenantId
from tether.job_changes import JobChange, JobChanges, cancellable, check_change_limit
from tether.jobs import JobError, JobFilter, JobState
from tether.statuses import check_page
from tether.store.end_requests import Request, RequestedRow
from tether.telemetry.logs import get_logger

EVERY_TENANT = TenantId("*")
"""The party that changes of all tenants' jobs are, among those that wait for lists."""

_log = get_logger("tether.core")


class DirectChangePort:
    """See :class:`~tether.client.ports.JobChangePort`.

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


def _unchanged(one: JobOfTenant) -> JobChange:
    return JobChange(job_id=one.status.job_id, tenant_id=one.tenant_id, state=one.status.state)


def _told(job_id: JobId, error: Exception) -> JobError:
    if isinstance(error, TetherError):
        wait_ms = round((error.retry_after or 0) * 1000)
        return JobError(error.code, error.outward or str(error), error.retryable, wait_ms)
    _log.error("A job could not be changed.", job=job_id, error=repr(error))
    return JobError(TetherError.code, f"internal error: {type(error).__name__}")
