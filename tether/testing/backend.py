"""The in-memory backend of a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from tether.ids import JobId, TenantId
from tether.jobs import DEFAULT_TENANT, JobRequest
from tether.scheduling.retry_policy import RetryPolicy
from tether.statuses import JobStatus
from tether.testing.dead_messages import FakeDeadMessagePort
from tether.testing.job_changes import FakeChangePort
from tether.testing.letters import FakeLetterPort
from tether.testing.models import Answer, FakeModel
from tether.testing.ports import FakeJobPort, FakeModelPort, FakeStreamPort
from tether.testing.queue import AT_ONCE, FakeQueue


class FakeBackend:
    """An in-memory backend, as in ``Tether(backend=FakeBackend())``.

    Its clock stands still until it is advanced.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel | Answer] | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        quota: int | None = None,
        autorun: bool = True,
        retry_policy: RetryPolicy = AT_ONCE,
        now_ms: int | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
          models: The models by name: a function of the prompt or a :class:`FakeModel`; by default ``echo``.
          tenant: The tenant to act for.
          quota: Maximum number of open jobs of each tenant; None is unlimited.
          autorun: Whether due jobs run to completion within ``submit`` and ``advance``. Without it they run
            when :meth:`step`, :meth:`run_pending` or :meth:`run_all` is called.
          retry_policy: Whether and when failed jobs are retried; by default immediately.
          now_ms: The clock's start, in milliseconds since the epoch; by default now.
          seed: Seeds job ids and backoff.
        """
        self._queue = FakeQueue(models, retry_policy=retry_policy, autorun=autorun, now_ms=now_ms, seed=seed)
        self._quota = quota
        self.model_port = FakeModelPort(self._queue)
        self.every_change_port = FakeChangePort(self._queue, None)
        self.every_letter_port = FakeLetterPort(self._queue, None, quota)
        self.dead_message_port = FakeDeadMessagePort()
        self._speak_for(TenantId(tenant))

    def _speak_for(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self.job_port = FakeJobPort(self._queue, tenant, self._quota)
        self.change_port = FakeChangePort(self._queue, tenant)
        self.stream_port = FakeStreamPort(self._queue, tenant)
        self.letter_port = FakeLetterPort(self._queue, tenant, self._quota)

    def for_tenant(self, tenant: str) -> Self:
        """Return a backend of another tenant with the same queue, models and clock."""
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__
        other._speak_for(TenantId(tenant))
        return other

    # The backend of a client.

    @property
    def submission_port(self) -> FakeJobPort:
        return self.job_port

    def now_ms(self) -> int:
        return self._queue.now_ms

    def close(self) -> None:
        """End all streams that are still being followed."""
        self.stream_port.close()

    def step(self) -> bool:
        """Do one step: begin an attempt, generate one token, end. Running attempts come first, then due jobs
        by priority and order of submission. Return False if there is nothing to do now."""
        return self._queue.step()

    def run_pending(self) -> int:
        """Run what is due now, at most one attempt of each job, and return the number of jobs."""
        return self._queue.run_pending()

    def run_all(self) -> None:
        """Run until every job has ended; the clock skips delays and backoff."""
        self._queue.run_all()

    def advance(self, seconds: float) -> None:
        """Advance the clock, in seconds. Jobs past their deadline expire; with ``autorun``, due jobs run."""
        self._queue.advance(seconds)

    def jobs(self) -> list[JobStatus]:
        """Return all jobs of the tenant, in the order of submission."""
        with self._queue.lock:
            return [self.job_port.status(job.job_id) for job in self._queue.jobs_of(self._tenant)]

    def request(self, job_id: str) -> JobRequest:
        """Return a job's request, with its keys filled in.

        Raises:
          JobNotFound: There is no such job.
        """
        with self._queue.lock:
            return self._queue.find(JobId(job_id), self._tenant).request
