"""The fake's side of a client's calls, port by port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tether.admission.fits_model import check_for_model
from tether.admission.open_job_quota import over_quota
from tether.errors import ClientClosed, KeyConflict, TetherError
from tether.explanations import (
    Explanation,
    JobPlacements,
    PlacementOrigin,
    PlacementRecord,
    PoolExplanation,
    why_chosen,
)
from tether.histories import RUNNING, JobHistory
from tether.ids import JobId, TenantId
from tether.job_filters import JobFilter
from tether.jobs import JobRequest, JobState, Submitted, new_job_id
from tether.statuses import JobPage, JobStatus, ModelInfo, check_page, status_of
from tether.streams.events import Deliver, check_offset
from tether.streams.reader import StreamPosition
from tether.testing.jobs import FakeJob, FakeSubscription
from tether.testing.queue import FakeQueue, fake_pool


class FakeJobPort:
    """See :class:`~tether.client.job_port.JobPort`."""

    def __init__(
        self, queue: FakeQueue, tenant: TenantId, quota: int | None, retry_of: JobId | None = None
    ) -> None:
        """
        Args:
          retry_of: The dead job that what is submitted retries.
        """
        self._queue = queue
        self._tenant = tenant
        self._quota = quota
        self._retry_of = retry_of

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        with self._queue.lock:
            answers: list[Submitted | Exception] = [self._submit(request) for request in requests]
            self._queue.run_by_itself()
            return answers

    def status(self, job_id: JobId) -> JobStatus:
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            return status_of(
                job,
                job.request,
                pool=fake_pool(job.request),
                attempts=job.failed + (job.state is JobState.SUCCEEDED),
                offset=len(job.pieces),
                output_tokens=len(job.pieces) if job.state.is_final else 0,
                deadline=job.request.deadline or None,
                expires_at=None if job.records else job.request.expires_at or None,
                waits_for="",
                expected_at=None,
            )

    def history(self, job_id: JobId) -> JobHistory:
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            records = [
                replace(each, offset=len(job.pieces)) if each.cause == RUNNING else each
                for each in job.records
            ]
            ended_at = max((each.ended_at or 0 for each in records), default=0)
            return JobHistory(
                job_id=job.job_id,
                state=job.state,
                priority=job.priority,
                dispatch=job.dispatch,
                pool=fake_pool(job.request),
                since=job.finished_at or ended_at or job.created_at,
                due_at=job.due_at if job.state is JobState.WAITING_RETRY else None,
                attempts=tuple(records),
            )

    def placements(self, job_id: JobId) -> JobPlacements:
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            begun: dict[int, int] = {}
            for each in job.records:
                begun.setdefault(each.dispatch, each.started_at or job.created_at)
            return JobPlacements(
                job_id=job.job_id,
                state=job.state,
                placements=tuple(
                    PlacementRecord(
                        dispatch=dispatch,
                        origin=PlacementOrigin.CHOSEN,
                        decided_at=job.created_at if dispatch == 1 else begun.get(dispatch),
                        pool=fake_pool(job.request),
                        explanation=_explanation(job.request),
                        wait_seconds=0.0,
                        total_seconds=0.0,
                        begun_at=begun.get(dispatch),
                        waited_seconds=0.0 if dispatch in begun else None,
                    )
                    for dispatch in range(1, max(job.dispatch, 1) + 1)
                ),
            )

    def explain(self, request: JobRequest) -> Explanation:
        with self._queue.lock:
            check_for_model(request, self._queue.registry.find(request.model), self._queue.now_ms)
            return _explanation(request)

    def cancel(self, job_id: JobId) -> JobState:
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            self._queue.end(job, JobState.CANCELLED)
            return job.state

    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        check_page(cursor, limit)
        mine = [self.status(job.job_id) for job in self._queue.jobs_of(self._tenant)]
        by_id = sorted(mine, key=lambda status: status.job_id, reverse=True)
        found = [status for status in by_id if _matches(status, job_filter)]
        later = [status for status in found if cursor is None or status.job_id < cursor]
        return JobPage(tuple(later[:limit]), later[limit - 1].job_id if len(later) > limit else None)

    def _submit(self, request: JobRequest) -> Submitted | TetherError:
        queue, now_ms = self._queue, self._queue.now_ms
        try:
            check_for_model(request, queue.registry.find(request.model), now_ms)
        except TetherError as error:
            return error
        # The clock stands: within one millisecond ids are in the order of submission all the same.
        job_id = new_job_id(now_ms, bytes(2) + len(queue.jobs).to_bytes(5, "big") + queue.random.randbytes(3))
        retry_token = request.retry_token or job_id
        correlation_id = request.correlation_id or retry_token
        key = (self._tenant, correlation_id, retry_token)
        if key in queue.keys:
            return self._known(request, queue.jobs[queue.keys[key]])
        held = sum(job.tenant == self._tenant for job in queue.open_jobs())
        if self._quota is not None and held >= self._quota:
            return over_quota(self._tenant, held)
        queue.keys[key] = job_id
        is_due = request.not_before <= now_ms
        job = queue.jobs[job_id] = FakeJob(
            job_id=job_id,
            number=len(queue.jobs),
            tenant=self._tenant,
            request=replace(request, correlation_id=correlation_id, retry_token=retry_token),
            created_at=now_ms,
            due_at=max(request.not_before, now_ms),
            state=JobState.ACCEPTED if is_due else JobState.PARKED,
            dispatch=1 if is_due else 0,
            retry_of=self._retry_of,
        )
        return Submitted(job_id, correlation_id, retry_token, job.state, True)

    def _known(self, request: JobRequest, job: FakeJob) -> Submitted | TetherError:
        mine = job.request
        if request.digest() != mine.digest():
            return KeyConflict(
                f"correlation id {mine.correlation_id!r} with retry token {mine.retry_token!r} belongs to "
                f"job {job.job_id}, which is a different request: send the same request, or use other keys"
            )
        return Submitted(job.job_id, mine.correlation_id, mine.retry_token, job.state, False)


class FakeModelPort:
    """See :class:`~tether.client.model_port.ModelPort`."""

    def __init__(self, queue: FakeQueue) -> None:
        self._queue = queue

    def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(name=model.name, version=model.version, context=model.context, workers=1)
            for model in self._queue.registry.models
        ]


class FakeStreamPort:
    """See :class:`~tether.client.ports.StreamPort`."""

    def __init__(self, queue: FakeQueue, tenant: TenantId) -> None:
        self._queue = queue
        self._tenant = tenant
        self._subscriptions: list[FakeSubscription] = []
        self._is_closed = False

    def follow(
        self, job_id: JobId, offset: int, deliver: Deliver, *, within: float | None = None
    ) -> FakeSubscription:
        check_offset(offset)
        if self._is_closed:
            raise ClientClosed("the client is closed: create another one")
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            subscription = FakeSubscription(deliver, StreamPosition(offset))
            job.follow(subscription)
            self._subscriptions.append(subscription)
            return subscription

    def close(self) -> None:
        """Tell all who still follow a stream that nothing more comes."""
        with self._queue.lock:
            self._is_closed = True
            for subscription in self._subscriptions:
                subscription.end()
            self._subscriptions.clear()

    # What a test does.


def _explanation(request: JobRequest) -> Explanation:
    """The one pool that the fake has for a job: it waits for nothing, and nothing is weighed."""
    pool = PoolExplanation(
        pool=fake_pool(request),
        cost_seconds=0.0,
        wait_seconds=0.0,
        total_seconds=0.0,
        ahead=0.0,
        slots=1,
        tokens_per_second=1.0,
        is_measured=False,
        load_seconds=0.0,
    )
    return Explanation(pool=pool.pool, why=why_chosen(pool.pool, (pool,)), pools=(pool,))


def _matches(status: JobStatus, job_filter: JobFilter) -> bool:
    after, before = job_filter.created_after, job_filter.created_before
    return (
        (not job_filter.states or status.state in job_filter.states)
        and job_filter.model in (None, status.model)
        and job_filter.labels.items() <= status.labels.items()
        and (after is None or status.created_at >= after)
        and (before is None or status.created_at < before)
    )
