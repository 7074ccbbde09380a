"""The fake's dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tether.dead_letters import (
    DeadLetter,
    LetterDetails,
    LetterFilter,
    LetterPage,
    LetterPlace,
    LetterPurge,
    LetterRetries,
    LetterRetry,
    LetterState,
    LetterSummary,
    RetryLink,
    check_letter_limit,
    cursor_of,
    place_of,
    why_dead,
)
from tether.errors import (
    LetterNotFound,
    LetterNotRetryable,
    RetryTokenSpent,
    RetryTokenUnknown,
    TetherError,
)
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobError
from tether.letter_filters import check_open
from tether.testing.jobs import FakeJob
from tether.testing.ports import FakeJobPort
from tether.testing.queue import FakeQueue


class FakeLetterPort:
    """See :class:`~tether.client.letter_port.LetterPort`."""

    def __init__(self, queue: FakeQueue, tenant: TenantId | None, quota: int | None) -> None:
        self._queue = queue
        self._tenant = tenant
        self._quota = quota

    def find(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        with self._queue.lock:
            found, following = self._page(letter_filter, cursor, limit)
            return LetterPage(tuple(_letter(job) for job in found), following)

    def letter(self, job_id: JobId) -> LetterDetails:
        with self._queue.lock:
            job = next((job for job in self._dead() if job.job_id == job_id), None)
            if job is None:
                raise LetterNotFound(f"there is no dead letter of job {job_id}")
            return LetterDetails(**vars(_letter(job)), chain=tuple(self._chain(job)))

    def retry(self, retry_token: str, force: bool = False) -> LetterRetry:
        with self._queue.lock:
            job = next(
                (job for job in self._dead() if job.letter and job.letter.retry_token == retry_token), None
            )
            if job is None:
                raise RetryTokenUnknown("no dead letter of yours has this retry token")
            return self._retry(job, force)

    def retry_where(
        self, letter_filter: LetterFilter, force: bool, cursor: str | None, limit: int
    ) -> LetterRetries:
        check_open(letter_filter)
        with self._queue.lock:
            found, following = self._page(letter_filter, cursor, limit)
            return LetterRetries(tuple(self._outcome(job, force) for job in found), following)

    def purge(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPurge:
        check_open(letter_filter)
        with self._queue.lock:
            found, following = self._page(letter_filter, cursor, limit)
            for job in found:
                job.closed, job.closed_at = LetterState.PURGED, self._queue.now_ms
            return LetterPurge(len(found), following)

    def summary(self) -> LetterSummary:
        with self._queue.lock:
            died = [job.finished_at for job in self._dead() if job.closed is LetterState.OPEN]
            oldest = min((each for each in died if each is not None), default=None)
            return LetterSummary(
                open=len(died), is_exact=True, oldest_at=oldest, retention_ms=None, next_expiry_at=None
            )

    def _dead(self) -> list[FakeJob]:
        jobs = self._queue.jobs.values()
        return [job for job in jobs if job.letter is not None and self._tenant in (None, job.tenant)]

    def _page(
        self, letter_filter: LetterFilter, cursor: str | None, limit: int
    ) -> tuple[list[FakeJob], str | None]:
        check_letter_limit(limit)
        after = place_of(cursor)
        by_place = {LetterPlace(job.finished_at or 0, job.job_id): job for job in self._dead()}
        places = [
            place
            for place in sorted(by_place, reverse=True)
            if (after is None or place < after) and _matches(_letter(by_place[place]), letter_filter)
        ]
        following = cursor_of(places[limit - 1]) if len(places) > limit else None
        return [by_place[place] for place in places[:limit]], following

    def _outcome(self, job: FakeJob, force: bool) -> LetterRetry:
        try:
            return self._retry(job, force)
        except TetherError as error:
            return LetterRetry(job_id=job.job_id, error=JobError(error.code, str(error), error.retryable))

    def _retry(self, job: FakeJob, force: bool) -> LetterRetry:
        if job.retried_as is not None:
            made = self._queue.jobs[job.retried_as]
            return LetterRetry(job_id=job.job_id, retried_as=made.job_id, state=made.state)
        if job.closed is not LetterState.OPEN:
            raise RetryTokenSpent(f"the dead letter of job {job.job_id} was {job.closed}")
        assert job.letter is not None
        if not job.letter.retryable and not force:
            raise LetterNotRetryable(
                f"job {job.job_id} died of an error that a retry meets again: retry it by force"
            )
        asked = replace(job.request, priority=job.priority)
        again = replace(asked, retry_token=job.letter.retry_token, not_before=0, delay_ms=0)
        if again.deadline:
            limit = max(again.deadline - max(job.created_at, job.request.not_before), 1)
            again = replace(again, time_limit_ms=limit, deadline=self._queue.now_ms + limit)
        if again.expires_at:
            limit = max(again.expires_at - max(job.created_at, job.request.not_before), 1)
            again = replace(again, expires_in_ms=limit, expires_at=self._queue.now_ms + limit)
        port = FakeJobPort(self._queue, job.tenant, self._quota, retry_of=job.job_id)
        (answer,) = port.submit([again])
        if isinstance(answer, Exception):
            raise answer
        job.retried_as, job.closed, job.closed_at = answer.job_id, LetterState.RETRIED, self._queue.now_ms
        return LetterRetry(
            job_id=job.job_id, retried_as=answer.job_id, state=answer.state, is_new=answer.is_new
        )

    def _chain(self, job: FakeJob) -> Iterator[RetryLink]:
        jobs = self._queue.jobs
        while job.retry_of is not None:
            job = jobs[job.retry_of]
        while True:
            yield RetryLink(job.job_id, job.state, job.created_at, job.letter.reason if job.letter else None)
            if job.retried_as is None:
                return
            job = jobs[job.retried_as]


def _letter(job: FakeJob) -> DeadLetter:
    assert job.letter is not None
    return DeadLetter(
        job_id=job.job_id,
        tenant_id=job.tenant,
        correlation_id=job.request.correlation_id,
        model=job.request.model,
        pool=PoolName(f"gpu.fake.local.{job.request.model}"),
        reason=job.letter.reason,
        why=why_dead(job.letter.reason),
        retryable=job.letter.retryable,
        error=job.error,
        attempts=tuple(job.records),
        retry_token="" if job.closed is LetterState.PURGED else job.letter.retry_token,
        state=job.closed,
        retry_of=job.retry_of,
        retried_as=job.retried_as,
        created_at=job.finished_at or 0,
        closed_at=job.closed_at,
    )


def _matches(letter: DeadLetter, wanted: LetterFilter) -> bool:
    states = {"open": ("open",), "retried": ("retried",)}.get(wanted.state, ("open", "retried"))
    after, before = wanted.created_after, wanted.created_before
    return (
        letter.state.value in states
        and all(
            getattr(wanted, name) in (None, getattr(letter, name))
            for name in ("reason", "model", "pool", "tenant_id")
        )
        and (after is None or letter.created_at >= after)
        and (before is None or letter.created_at < before)
    )
