"""The fake's side of a client's calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from tether.client.backend import Deliver, JobPage, JobStatus, ModelInfo, Submitted, check_offset, check_page
from tether.errors import ClientClosed, KeyConflict, QuotaExceeded, TetherError
from tether.gateway.validation import check_for_model
from tether.jobs import JobFilter, JobRequest, JobState, new_job_id
from tether.scheduling.retry_policy import RetryPolicy
from tether.testing.jobs import FakeJob, FakeSubscription
from tether.testing.models import Answer, FakeModel
from tether.testing.queue import AT_ONCE, FakeQueue


class FakeBackend:
    """A backend in this process's memory, as in ``Tether(backend=FakeBackend())``.

    Its clock stands until it is moved.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel | Answer] | None = None,
        *,
        tenant: str = "default",
        quota: int | None = None,
        autorun: bool = True,
        retry_policy: RetryPolicy = AT_ONCE,
        now_ms: int | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
          models: What there is to ask for, by name: a function of the prompt or a :class:`FakeModel`. Where
            None, there is ``echo``.
          tenant: On whose behalf.
          quota: Most open jobs of each tenant; None is no limit.
          autorun: Whether jobs that are due run to their end within ``submit`` and ``advance``. Without it
            they run when :meth:`step`, :meth:`run_pending` or :meth:`run_all` is called.
          retry_policy: Whether and when failed jobs are tried again; by default at once.
          now_ms: Where the clock stands, in milliseconds since the epoch; at this moment where None.
          seed: Of job ids and of the waits before retries.
        """
        self._queue = FakeQueue(models, retry_policy=retry_policy, autorun=autorun, now_ms=now_ms, seed=seed)
        self._tenant = tenant
        self._quota = quota
        self._subscriptions: list[FakeSubscription] = []
        self._is_closed = False

    def for_tenant(self, tenant: str) -> Self:
        """A backend of another tenant on the same queue, models and clock."""
        other = object.__new__(type(self))
        other.__dict__ |= {**self.__dict__, "_tenant": tenant, "_subscriptions": []}
        return other

    # The backend of a client.

    def now_ms(self) -> int:
        return self._queue.now_ms

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        with self._queue.lock:
            answers: list[Submitted | Exception] = [self._submit(request) for request in requests]
            self._queue.run_by_itself()
            return answers

    def status(self, job_id: str) -> JobStatus:
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            return JobStatus(
                job_id=job_id,
                correlation_id=job.request.correlation_id,
                retry_token=job.request.retry_token,
                state=job.state,
                model=job.request.model,
                priority=job.request.priority,
                labels=job.request.labels,
                pool=f"gpu.fake.local.{job.request.model}",
                dispatch=job.dispatch,
                attempts=job.failed,
                offset=len(job.pieces),
                created_at=job.created_at,
                finished_at=job.finished_at,
                error=job.error,
                input_tokens=job.input_tokens,
                output_tokens=len(job.pieces) if job.state.is_final else 0,
            )

    def cancel(self, job_id: str) -> JobState:
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            self._queue.end(job, JobState.CANCELLED)
            return job.state

    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        check_page(cursor, limit)
        by_id = sorted(self.jobs(), key=lambda status: status.job_id, reverse=True)
        found = [status for status in by_id if _matches(status, job_filter)]
        later = [status for status in found if cursor is None or status.job_id < cursor]
        return JobPage(tuple(later[:limit]), later[limit - 1].job_id if len(later) > limit else None)

    def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(name=model.name, version=model.version, context=model.context, workers=1)
            for model in self._queue.registry.models
        ]

    def follow(self, job_id: str, offset: int, deliver: Deliver) -> FakeSubscription:
        check_offset(offset)
        if self._is_closed:
            raise ClientClosed("the client is closed: make a new one")
        with self._queue.lock:
            job = self._queue.find(job_id, self._tenant)
            subscription = FakeSubscription(deliver, offset)
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

    def step(self) -> bool:
        """Do one thing: begin an attempt, make one token, end. Attempts that run come first, then what is
        due by priority and order of submission. Answers False where there is nothing to do now."""
        return self._queue.step()

    def run_pending(self) -> int:
        """Run what is due now, each job by one attempt at most. Answers how many jobs that were."""
        return self._queue.run_pending()

    def run_all(self) -> None:
        """Run until every job has ended; the clock moves over delays and waits."""
        self._queue.run_all()

    def advance(self, seconds: float) -> None:
        """Move the clock, in seconds. What is past its deadline then expires; with ``autorun``, what is due
        runs."""
        self._queue.advance(seconds)

    def jobs(self) -> list[JobStatus]:
        """All jobs of the tenant, in the order of submission."""
        with self._queue.lock:
            mine = [job.job_id for job in self._queue.jobs.values() if job.tenant == self._tenant]
            return [self.status(job_id) for job_id in mine]

    def request(self, job_id: str) -> JobRequest:
        """What a job asks for, its keys filled in.

        Raises:
          JobNotFound: There is no such job.
        """
        with self._queue.lock:
            return self._queue.find(job_id, self._tenant).request

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
            return QuotaExceeded(
                f"tenant {self._tenant!r} has {held} open jobs and may not have more: wait until some end"
            )
        queue.keys[key] = job_id
        queue.jobs[job_id] = FakeJob(
            job_id=job_id,
            number=len(queue.jobs),
            tenant=self._tenant,
            request=replace(request, correlation_id=correlation_id, retry_token=retry_token),
            created_at=now_ms,
            due_at=max(request.not_before, now_ms),
        )
        return Submitted(job_id, correlation_id, retry_token, JobState.ACCEPTED, True)

    def _known(self, request: JobRequest, job: FakeJob) -> Submitted | TetherError:
        mine = job.request
        if request.digest() != mine.digest():
            return KeyConflict(
                f"correlation id {mine.correlation_id!r} with retry token {mine.retry_token!r} belongs to "
                f"job {job.job_id}, which asked for something else: send the same request, or take other keys"
            )
        return Submitted(job.job_id, mine.correlation_id, mine.retry_token, job.state, False)


def _matches(status: JobStatus, job_filter: JobFilter) -> bool:
    after, before = job_filter.created_after, job_filter.created_before
    return (
        (not job_filter.states or status.state in job_filter.states)
        and job_filter.model in (None, status.model)
        and job_filter.labels.items() <= status.labels.items()
        and (after is None or status.created_at >= after)
        and (before is None or status.created_at < before)
    )
