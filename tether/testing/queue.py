"""The fake's queue: all jobs, a clock that stands until it is moved, and the steps that end jobs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping

from tether.errors import InvalidRequest, JobNotFound, TetherError
from tether.histories import RUNNING
from tether.ids import BootId, DrawId, JobId, PoolName, TenantId
from tether.jobs import OWNER, JobError, JobRequest, JobState, Owner
from tether.outcomes import Fence, Outcome, OutcomeKind
from tether.scheduling.retry_policy import RetryPolicy, decide
from tether.streams.events import failure_details
from tether.testing.jobs import FakeJob
from tether.testing.models import (
    Answer,
    FakeModel,
    as_models,
    count_tokens,
    job_error_from,
    make,
    prompt_of,
    registry_of,
)

FAKE_WORKER = BootId("fake.1")
"""Who runs all jobs."""

AT_ONCE = RetryPolicy(base_ms=0, cap_ms=0)
"""Failed jobs are tried again without a wait."""


def fake_pool(request: JobRequest) -> PoolName:
    """The pool of a job: where, and on what, it asks to run."""
    return PoolName(f"gpu.{request.gpu_class or 'fake'}.{request.region or 'local'}.{request.model}")


class FakeQueue:
    """What all backends of one fake share. Safe to use from many threads; nothing in it waits.

    Attributes:
      lock: Held while anything changes. Models are asked under it.
      models, registry: What there is to ask for.
      jobs: All of them by id.
      keys: Their ids by tenant, correlation id and retry token.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel | Answer] | None,
        *,
        retry_policy: RetryPolicy,
        autorun: bool,
        now_ms: int | None,
        seed: int,
    ) -> None:
        self.lock = threading.RLock()
        self.models = as_models(models)
        self.registry = registry_of(self.models)
        self.jobs: dict[JobId, FakeJob] = {}
        self.keys: dict[tuple[TenantId, str, str], JobId] = {}
        self.now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        self.random = random.Random(seed)
        self._policy = retry_policy
        self._autorun = autorun

    def find(self, job_id: JobId, tenant: TenantId | None) -> FakeJob:
        """A tenant's job.

        Raises:
          JobNotFound: There is none.
        """
        job = self.jobs.get(job_id)
        if job is None or tenant not in (None, job.tenant):
            raise JobNotFound(f"there is no job {repr(job_id)[:100]}, or it belongs to another tenant")
        return job

    def jobs_of(self, tenant: TenantId) -> list[FakeJob]:
        """A tenant's jobs, in the order of submission."""
        return [job for job in self.jobs.values() if job.tenant == tenant]

    def open_jobs(self) -> list[FakeJob]:
        return [job for job in self.jobs.values() if not job.state.is_final]

    # Steps.

    def step(self) -> bool:
        """Do one thing: expire, begin an attempt, or take it on by one event. False where nothing is due."""
        with self.lock:
            job = self._next()
            if job is None:
                return False
            self._step(job)
            return True

    def run_pending(self) -> int:
        """Run what is due now, at most one attempt of each job, and return the number of jobs."""
        with self.lock:
            count = 0
            for job in sorted(self._idle_jobs(), key=lambda job: job.order):
                # The model of one before may have ended it.
                if job.state.is_final or job.is_busy or not self._is_due(job):
                    continue
                count += 1
                self._step(job)
                while job.attempt is not None:
                    self._step(job)
            return count

    def run_all(self) -> None:
        """Run until every job has ended, moving the clock over delays and waits."""
        with self.lock:
            while self._idle_jobs():
                if not self.run_pending():
                    self.now_ms = max(self.now_ms, min(self._wakes_at(job) for job in self._idle_jobs()))

    def advance(self, seconds: float) -> None:
        """Move the clock.

        Raises:
          InvalidRequest: It would go back.
        """
        if not 0 <= seconds < 1e10:
            raise InvalidRequest(f"the clock cannot be advanced by {seconds!r} s: seconds must be 0 or more")
        with self.lock:
            self.now_ms += round(seconds * 1000)
            self.expire()
            self.run_by_itself()

    def run_by_itself(self) -> None:
        """Run what is due, where the fake does that without being told."""
        while self._autorun and self.run_pending():
            continue

    def expire(self) -> None:
        """End what waits beyond its deadline; a running attempt is told."""
        for job in self.open_jobs():
            if self._is_late(job):
                self.end(job, JobState.EXPIRED)

    def end(self, job: FakeJob, end: JobState) -> None:
        """Ask for a job's end, as a client or the deadline does. A running attempt hears of it in its next
        step."""
        if job.state.is_final:
            return
        job.requested = job.requested or end
        if job.state is not JobState.RUNNING:
            self._conclude(job, job.requested, OWNER[job.state])

    def _next(self) -> FakeJob | None:
        due = [job for job in self._idle_jobs() if self._is_due(job)]
        return min(due, key=lambda job: (job.attempt is None, job.order), default=None)

    def _idle_jobs(self) -> list[FakeJob]:
        """Open jobs but for those whose models are being asked: these may use the fake themselves."""
        return [job for job in self.open_jobs() if not job.is_busy]

    def _is_due(self, job: FakeJob) -> bool:
        return job.state is JobState.RUNNING or job.due_at <= self.now_ms or self._is_late(job)

    def _is_late(self, job: FakeJob) -> bool:
        return any(limit <= self.now_ms for limit in self._limits_of(job))

    def _wakes_at(self, job: FakeJob) -> int:
        return min([job.due_at, *self._limits_of(job)])

    def _limits_of(self, job: FakeJob) -> list[int]:
        """When the job expires; what has begun does not for want of that."""
        limits = (job.request.deadline, 0 if job.records else job.request.expires_at)
        return [limit for limit in limits if limit]

    def _step(self, job: FakeJob) -> None:
        if self._is_late(job):
            self.end(job, JobState.EXPIRED)
            if job.state.is_final:
                return
        if job.attempt is None:
            job.attempt = self._attempt(job)
        job.is_busy = True
        try:
            if next(job.attempt, self) is self:
                job.attempt = None
        finally:
            job.is_busy = False

    def _attempt(self, job: FakeJob) -> Iterator[None]:
        """An attempt, one event a step."""
        if job.state is JobState.WAITING_RETRY:
            job.say("rerouted")
        if job.state is not JobState.ACCEPTED:
            job.dispatch += 1
        job.move(JobState.PLACED, Owner.DATABASE)
        job.move(JobState.RUNNING, Owner.REDIS)
        job.begin_attempt(FAKE_WORKER, fake_pool(job.request), self.now_ms)
        job.say("started", attempt=1, dispatch=job.dispatch)
        yield
        model = self.models[self.registry.find(job.request.model).name]
        if job.failed < model.fail_times:
            self._fail(job, job_error_from(_told_to_fail(job.failed + 1, model.fail_times)))
            return
        output = make(model, prompt_of(job.request), job.request.sampling)
        for piece in output.pieces[len(job.pieces) :]:
            if self._hears_of_end(job):
                return
            job.say("delta", (piece,))
            yield
        if self._hears_of_end(job):
            return
        if output.error is not None:
            self._fail(job, output.error)
            return
        job.input_tokens = count_tokens(job.request)
        self._conclude(job, JobState.SUCCEEDED, Owner.REDIS, reason=output.reason)

    def _hears_of_end(self, job: FakeJob) -> bool:
        if self._is_late(job):
            job.requested = job.requested or JobState.EXPIRED
        if job.requested is not None:
            self._conclude(job, job.requested, Owner.REDIS)
        return job.state.is_final

    def _fail(self, job: FakeJob, error: JobError) -> None:
        verdict = decide(
            Outcome(
                job_id=job.job_id,
                kind=OutcomeKind.FAILED,
                fence=Fence(job.dispatch, 1, DrawId("fake:1")),
                error=error,
            ),
            failed_before=job.failed,
            requested=job.requested,
            policy=self._policy.for_job(
                max_attempts=job.request.max_attempts,
                base_ms=job.request.retry_base_ms,
                retry_on=" ".join(job.request.retry_on),
            ),
            chance=self.random.random(),
            now_ms=self.now_ms,
            retry_token=f"retry-{job.number}-{self.random.getrandbits(64):016x}",
        )
        job.failed += 1
        job.error = error
        job.end_attempt(OutcomeKind.FAILED.value, self.now_ms, error)
        job.letter = verdict.letter
        if verdict.state.is_final:
            self._conclude(job, verdict.state, Owner.REDIS)
        else:
            job.move(verdict.state, Owner.REDIS)
            job.due_at = verdict.due_at

    def _conclude(self, job: FakeJob, state: JobState, by: Owner, *, reason: str = "") -> None:
        if job.records and job.records[-1].cause == RUNNING:
            job.end_attempt(state.value, self.now_ms)
        job.move(state, by)
        job.finished_at = self.now_ms
        if state is JobState.SUCCEEDED:
            job.error = None
            job.say("finished", reason=reason, input_tokens=job.input_tokens)
        else:
            job.say("failed", **failure_details(state, job.error))


class _ToldToFail(TetherError):
    code = "engine_failed"
    retryable = True


def _told_to_fail(number: int, times: int) -> _ToldToFail:
    return _ToldToFail(f"attempt {number} of {times} that were set to fail")
