"""The fake's changes of many jobs."""

from __future__ import annotations

from tether.errors import JobEnded
from tether.ids import JobId, TenantId
from tether.job_changes import (
    JobChange,
    JobChanges,
    cancellable,
    check_change_limit,
    reprioritisable,
)
from tether.job_filters import JobFilter
from tether.jobs import JobState, Priority
from tether.statuses import check_page
from tether.testing.jobs import FakeJob
from tether.testing.queue import FakeQueue, fake_pool


class FakeChangePort:
    """See :class:`~tether.client.change_port.JobChangePort`."""

    def __init__(self, queue: FakeQueue, tenant: TenantId | None) -> None:
        self._queue = queue
        self._tenant = tenant

    def cancel_where(
        self, job_filter: JobFilter, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        with self._queue.lock:
            found, following = self._matching(cancellable(job_filter), cursor, limit)
            for job in () if dry_run else found:
                self._queue.end(job, JobState.CANCELLED)
            return JobChanges(tuple(map(_change, found)), following)

    def reprioritise(self, job_id: JobId, priority: Priority) -> JobState:
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            if job.state.is_final:
                raise JobEnded(f"job {job_id} has ended as {job.state}")
            job.later_priority = priority
            return job.state

    def reprioritise_where(
        self, job_filter: JobFilter, priority: Priority, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        with self._queue.lock:
            found, following = self._matching(reprioritisable(job_filter), cursor, limit)
            for job in () if dry_run else found:
                job.later_priority = priority
            return JobChanges(tuple(map(_change, found)), following)

    def _matching(
        self, job_filter: JobFilter, cursor: str | None, limit: int
    ) -> tuple[list[FakeJob], JobId | None]:
        check_change_limit(limit)
        check_page(cursor, limit)
        newest = sorted(self._queue.jobs.values(), key=lambda job: job.job_id, reverse=True)
        found = [
            job
            for job in newest
            if self._tenant in (None, job.tenant)
            and (cursor is None or job.job_id < cursor)
            and _matches(job, job_filter)
        ]
        return found[:limit], found[limit - 1].job_id if len(found) > limit else None


def _change(job: FakeJob) -> JobChange:
    return JobChange(job_id=job.job_id, tenant_id=job.tenant, state=job.state)


def _matches(job: FakeJob, wanted: JobFilter) -> bool:
    after, before = wanted.created_after, wanted.created_before
    return (
        job.state in wanted.states
        and wanted.model in (None, job.request.model)
        and wanted.pool in (None, fake_pool(job.request))
        and wanted.tenant_id in (None, job.tenant)
        and wanted.labels.items() <= job.request.labels.items()
        and (after is None or job.created_at >= after)
        and (before is None or job.created_at < before)
    )
