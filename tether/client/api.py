"""Tether and its twin for event loops: the enqueue API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tether.client.async_calls import AsyncCalls
from tether.client.backend import Backend, JobStatus, ModelInfo, Submitted
from tether.client.gateways import PATIENCE_SECONDS, open_gateway
from tether.client.handles import AsyncJobHandle, JobHandle
from tether.client.requests import check_request, make_filter, make_request
from tether.errors import InvalidRequest
from tether.jobs import JobFilter, JobRequest, Message

if TYPE_CHECKING:
    from tether.client.direct_tether import AsyncDirectTether, DirectTether
    from tether.config import Settings


PAGE = 100
"""Jobs that are asked for together."""


class Tether:
    """Submits jobs. Safe to use from many threads; give it back with :meth:`close`, or use it in ``with``.

    ``Tether()`` talks to a gateway over HTTP. ``Tether.direct()`` talks to the database and Redis itself, for
    programs that may hold their passwords.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        backend: Backend | None = None,
    ) -> None:
        """
        Args:
          url: The gateway's address. Where None, that of ``TETHER_URL``, else of a ``tether up`` on this
            machine.
          api_key: The gateway's key for you. Where None, that of ``TETHER_API_KEY``, or of the ``tether up``.
          patience: How long calls are tried again while the gateway is away, in seconds. Streams are followed
            for as long as it takes.
          backend: What carries the calls, in place of a gateway.

        Raises:
          GatewayUnknown: No gateway is named, and none is found.
        """
        self._backend = backend or open_gateway(url, api_key, patience)

    @classmethod
    def direct(cls, settings: Settings | None = None, *, tenant: str = "default") -> DirectTether:
        """A client that talks to the database and Redis itself.

        Args:
          settings: Where they are, and which models there are; from ``tether.toml`` and the environment
            where None.
          tenant: On whose behalf.

        Raises:
          ConfigError: The settings are not valid.
          StoreError: The database cannot be used.
        """
        from tether.client.direct import open_direct
        from tether.client.direct_tether import DirectTether

        return DirectTether(open_direct(settings, tenant))

    def submit(
        self,
        model: str,
        prompt: str = "",
        *,
        messages: Sequence[Message | Mapping[str, str]] | None = None,
        priority: str = "standard",
        delay: float | timedelta | None = None,
        eta: datetime | None = None,
        time_limit: float | timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        adapter: str = "",
        correlation_id: str = "",
        retry_token: str = "",
        **sampling: Any,
    ) -> JobHandle:
        """Submit one job. When it answers, the job is durable.

        Args:
          model: Name of a configured model.
          prompt: The text to go on from.
          messages: In its place a conversation to answer: each message a :class:`~tether.jobs.Message`, or a
            mapping with ``role`` (``system``, ``user`` or ``assistant``) and ``content``.
          priority: ``interactive``, ``standard`` or ``batch``.
          delay: Time before which it does not run, in seconds.
          eta: The same as a point in time, with its time zone.
          time_limit: Time after which it expires, running or not, in seconds.
          labels: Marks of your own.
          adapter: Name of one of the model's adapters.
          correlation_id: Your name for it.
          retry_token: With the correlation id the idempotency key: the same twice is the same job.
          sampling: ``max_tokens``, ``temperature``, ``top_p``, ``top_k``, ``seed``, ``stop``.

        Raises:
          InvalidRequest: What is asked for is not possible; the message says why.
          UnknownModel: No such model is configured.
          KeyConflict: The idempotency key was used for another request.
          QuotaExceeded: The tenant has as many open jobs as it may have.
          StoreUnavailable: Nothing was accepted, or (``CommitUnknown``) that is not known: submit again with
            the same ``correlation_id`` and ``retry_token``.
        """
        request = make_request(
            model,
            prompt,
            now_ms=self._backend.now_ms(),
            messages=messages,
            priority=priority,
            delay=delay,
            eta=eta,
            time_limit=time_limit,
            labels=labels,
            adapter=adapter,
            correlation_id=correlation_id,
            retry_token=retry_token,
            sampling=sampling,
        )
        return self._handle(_accepted(self._backend.submit([request])[0]))

    def submit_many(self, requests: Sequence[JobRequest]) -> list[JobHandle]:
        """Submit many jobs in few transactions.

        Raises:
          TetherError: The first refusal, if there is one; the others were accepted all the same.
        """
        return [self._handle(_accepted(answer)) for answer in _submit_checked(self._backend, requests)]

    def job(self, job_id: str) -> JobHandle:
        """A handle of a job that was submitted anywhere. Whether it exists shows when it is used."""
        return JobHandle(job_id, self._backend)

    def jobs(
        self,
        *,
        state: str | Sequence[str] = (),
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[JobStatus]:
        """Your jobs, the newest first, read page by page as you go.

        Args:
          state: One of the states, or several.
          labels: All of these marks.
          created_after, created_before: From the first on, before the second; with their time zones.

        Raises:
          InvalidRequest: What is asked for is not possible; the message says why.
        """
        job_filter = make_filter(state, model, labels, created_after, created_before)
        return self._jobs(job_filter)

    def _jobs(self, job_filter: JobFilter) -> Iterator[JobStatus]:
        cursor = None
        while True:
            page = self._backend.find(job_filter, cursor, PAGE)
            yield from page.jobs
            cursor = page.next_cursor
            if cursor is None:
                return

    def models(self) -> list[ModelInfo]:
        """What can be asked for."""
        return self._backend.models()

    def _handle(self, found: Submitted) -> JobHandle:
        return JobHandle(found.job_id, self._backend, found.correlation_id, found.retry_token, found.is_new)

    def close(self) -> None:
        """Give everything back."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTether:
    """:class:`Tether` for programs on an event loop, which is never blocked."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        backend: Backend | None = None,
    ) -> None:
        """See :class:`Tether`."""
        self._backend = backend or open_gateway(url, api_key, patience)
        self._calls = AsyncCalls()

    @classmethod
    async def direct(cls, settings: Settings | None = None, *, tenant: str = "default") -> AsyncDirectTether:
        """See :meth:`Tether.direct`."""
        from tether.client.direct import open_direct
        from tether.client.direct_tether import AsyncDirectTether

        return AsyncDirectTether(await asyncio.to_thread(open_direct, settings, tenant))

    async def submit(
        self,
        model: str,
        prompt: str = "",
        *,
        messages: Sequence[Message | Mapping[str, str]] | None = None,
        priority: str = "standard",
        delay: float | timedelta | None = None,
        eta: datetime | None = None,
        time_limit: float | timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        adapter: str = "",
        correlation_id: str = "",
        retry_token: str = "",
        **sampling: Any,
    ) -> AsyncJobHandle:
        """See :meth:`Tether.submit`."""
        request = make_request(
            model,
            prompt,
            now_ms=self._backend.now_ms(),
            messages=messages,
            priority=priority,
            delay=delay,
            eta=eta,
            time_limit=time_limit,
            labels=labels,
            adapter=adapter,
            correlation_id=correlation_id,
            retry_token=retry_token,
            sampling=sampling,
        )
        answers = await self._calls.call(self._backend.submit, [request])
        return self._handle(_accepted(answers[0]))

    async def submit_many(self, requests: Sequence[JobRequest]) -> list[AsyncJobHandle]:
        """See :meth:`Tether.submit_many`."""
        answers = await self._calls.call(_submit_checked, self._backend, requests)
        return [self._handle(_accepted(answer)) for answer in answers]

    def job(self, job_id: str) -> AsyncJobHandle:
        """See :meth:`Tether.job`."""
        return AsyncJobHandle(job_id, self._backend, self._calls)

    def jobs(
        self,
        *,
        state: str | Sequence[str] = (),
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> AsyncIterator[JobStatus]:
        """See :meth:`Tether.jobs`."""
        job_filter = make_filter(state, model, labels, created_after, created_before)
        return self._jobs(job_filter)

    async def _jobs(self, job_filter: JobFilter) -> AsyncIterator[JobStatus]:
        cursor = None
        while True:
            page = await self._calls.call(self._backend.find, job_filter, cursor, PAGE)
            for status in page.jobs:
                yield status
            cursor = page.next_cursor
            if cursor is None:
                return

    async def models(self) -> list[ModelInfo]:
        """See :meth:`Tether.models`."""
        return await self._calls.call(self._backend.models)

    def _handle(self, found: Submitted) -> AsyncJobHandle:
        return AsyncJobHandle(
            found.job_id,
            self._backend,
            self._calls,
            found.correlation_id,
            found.retry_token,
            found.is_new,
        )

    async def close(self) -> None:
        """Give everything back."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._backend.close()
        self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _submit_checked(backend: Backend, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
    checked: list[JobRequest | InvalidRequest] = []
    for request in requests:
        try:
            checked.append(check_request(request))
        except InvalidRequest as error:
            checked.append(error)
    answers = iter(backend.submit([one for one in checked if isinstance(one, JobRequest)]))
    return [next(answers) if isinstance(one, JobRequest) else one for one in checked]


def _accepted(answer: Submitted | Exception) -> Submitted:
    if isinstance(answer, Exception):
        raise answer
    return answer
