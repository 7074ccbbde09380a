"""The client for programs on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import NoReturn, Self, Unpack

from tether.client import lazy
from tether.client.api import CANNOT_BE_PICKLED, PAGE, accepted, submit_checked
from tether.client.async_calls import AsyncCalls
from tether.client.async_dead_letters import AsyncDeadLetters
from tether.client.async_dead_messages import AsyncDeadQueues
from tether.client.async_handles import AsyncJobHandle
from tether.client.async_many_jobs import AsyncManyJobs
from tether.client.gateways import PATIENCE_SECONDS, open_gateway
from tether.client.ports import Backend
from tether.explanations import Explanation
from tether.ids import TenantId
from tether.job_filters import JobFilter, make_filter
from tether.job_names import job_named
from tether.jobs import DEFAULT_TENANT, JobRequest, Submitted
from tether.requests.fields import SubmitOptions
from tether.requests.options import make_request
from tether.statuses import JobStatus, ModelInfo


class AsyncTether:
    """:class:`~tether.client.api.Tether` for programs on an event loop, which is never blocked."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        backend: Backend | None = None,
    ) -> None:
        """See :class:`~tether.client.api.Tether`."""
        self._backend = backend or open_gateway(url, api_key, patience)
        self._calls = AsyncCalls()

    @classmethod
    async def direct(
        cls, settings: lazy.Settings | None = None, *, tenant: str = DEFAULT_TENANT
    ) -> lazy.AsyncDirectTether:
        """See :meth:`~tether.client.api.Tether.direct`."""
        from tether.core.direct.backend import open_direct

        return lazy.AsyncDirectTether(await asyncio.to_thread(open_direct, settings, TenantId(tenant)))

    async def submit(self, model: str, prompt: str = "", **options: Unpack[SubmitOptions]) -> AsyncJobHandle:
        """See :meth:`~tether.client.api.Tether.submit`."""
        request = make_request(model, prompt, now_ms=self._backend.now_ms(), **options)
        answers = await self._calls.call(self._backend.submission_port.submit, [request])
        return self._handle(accepted(answers[0]))

    async def submit_many(self, requests: Sequence[JobRequest]) -> list[AsyncJobHandle]:
        """See :meth:`~tether.client.api.Tether.submit_many`."""
        answers = await self._calls.call(submit_checked, self._backend, requests)
        return [self._handle(accepted(answer)) for answer in answers]

    async def explain(self, model: str, prompt: str = "", **options: Unpack[SubmitOptions]) -> Explanation:
        """See :meth:`~tether.client.api.Tether.explain`."""
        request = make_request(model, prompt, now_ms=self._backend.now_ms(), **options)
        return await self._calls.call(self._backend.job_port.explain, request)

    def job(self, job_id: str) -> AsyncJobHandle:
        """See :meth:`~tether.client.api.Tether.job`."""
        return AsyncJobHandle(job_named(job_id), self._backend, self._calls)

    def jobs(
        self,
        *,
        state: str | Sequence[str] = (),
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> AsyncIterator[JobStatus]:
        """See :meth:`~tether.client.api.Tether.jobs`."""
        job_filter = make_filter(
            state, model, labels, created_after=created_after, created_before=created_before
        )
        return self._jobs(job_filter)

    async def _jobs(self, job_filter: JobFilter) -> AsyncIterator[JobStatus]:
        cursor = None
        while True:
            page = await self._calls.call(self._backend.job_port.find, job_filter, cursor, PAGE)
            for status in page.jobs:
                yield status
            cursor = page.next_cursor
            if cursor is None:
                return

    async def models(self) -> list[ModelInfo]:
        """See :meth:`~tether.client.api.Tether.models`."""
        return await self._calls.call(self._backend.model_port.models)

    @property
    def many_jobs(self) -> AsyncManyJobs:
        """See :attr:`Tether.many_jobs`."""
        return AsyncManyJobs(self._backend.change_port, self._calls)

    @property
    def every_job(self) -> AsyncManyJobs:
        """See :attr:`Tether.every_job`."""
        return AsyncManyJobs(self._backend.every_change_port, self._calls)

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        """See :attr:`Tether.dead_letters`."""
        return AsyncDeadLetters(self._backend.letter_port, self._calls)

    @property
    def every_dead_letter(self) -> AsyncDeadLetters:
        """See :attr:`Tether.every_dead_letter`."""
        return AsyncDeadLetters(self._backend.every_letter_port, self._calls)

    @property
    def dead_messages(self) -> AsyncDeadQueues:
        """See :attr:`Tether.dead_messages`."""
        return AsyncDeadQueues(self._backend.dead_message_port, self._calls)

    def _handle(self, submitted: Submitted) -> AsyncJobHandle:
        return AsyncJobHandle(
            submitted.job_id,
            self._backend,
            self._calls,
            submitted.correlation_id,
            submitted.retry_token,
            submitted.is_new,
            submitted.degraded_from,
        )

    async def close(self) -> None:
        """Give everything back."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._backend.close()
        self._calls.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError(CANNOT_BE_PICKLED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
