"""Handles of submitted jobs, for programs on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from dataclasses import dataclass, field

from tether.client.async_calls import AsyncCalls
from tether.client.handles import Gathering, Result, event_in, failure_of, late_result
from tether.client.pickles import WithoutClient
from tether.client.ports import Backend
from tether.errors import TetherError
from tether.explanations import JobPlacements
from tether.histories import JobHistory
from tether.ids import JobId
from tether.jobs import JobState
from tether.statuses import JobStatus
from tether.streams.events import StreamEvent, StreamSubscription


@dataclass(frozen=True)
class AsyncJobHandle(WithoutClient):
    """One job, for programs on an event loop. See :class:`~tether.client.handles.JobHandle`."""

    job_id: JobId
    backend: Backend
    calls: AsyncCalls = field(repr=False, compare=False)
    correlation_id: str = ""
    retry_token: str = ""
    is_new: bool = False
    degraded_from: str | None = None

    async def events(
        self, *, offset: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[StreamEvent, None]:
        """Iterate over all events from token ``offset`` on, to the last."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[StreamEvent | TetherError] = asyncio.Queue()

        def deliver(event: StreamEvent | TetherError) -> None:
            # A loop that is closed listens no more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        follow = self.backend.stream_port.follow
        following = self.calls.begin(follow, self.job_id, offset, deliver, within=timeout)
        try:
            async with asyncio.timeout(timeout):
                subscription = await asyncio.wrap_future(following)
        except (asyncio.CancelledError, TimeoutError) as error:
            # The call goes on in its thread, and nobody would close what it answers.
            following.add_done_callback(_close)
            if isinstance(error, TetherError | asyncio.CancelledError):
                raise
            raise late_result(self.job_id, timeout) from None
        try:
            while True:
                try:
                    async with asyncio.timeout(timeout):
                        event = event_in(await inbox.get())
                except TimeoutError:
                    raise late_result(self.job_id, timeout) from None
                yield event
                if event.is_last:
                    return
        finally:
            subscription.close()

    async def stream(self, *, timeout: float | None = None) -> AsyncGenerator[str, None]:
        """Iterate over the text as it is generated."""
        async with contextlib.aclosing(self.events(timeout=timeout)) as events:
            async for event in events:
                if event.kind == "delta":
                    yield event.text
                elif event.kind == "failed":
                    raise failure_of(self.job_id, event)

    async def result(self, timeout: float | None = None) -> Result:
        """Wait until the job has finished, and return its result."""
        gathering = Gathering(self.job_id)
        try:
            async with asyncio.timeout(timeout):
                # What opens the stream on a thread is not left behind there.
                async with contextlib.aclosing(self.events(timeout=timeout)) as events:
                    async for event in events:
                        gathering.add(event)
                        if event.is_last:
                            return gathering.result(event)
        except TimeoutError:
            raise late_result(self.job_id, timeout) from None
        raise AssertionError("a stream ends with its last event")

    async def status(self) -> JobStatus:
        """What is known of it now."""
        return await self.calls.call(self.backend.job_port.status, self.job_id)

    async def history(self) -> JobHistory:
        """Return every attempt of the job."""
        return await self.calls.call(self.backend.job_port.history, self.job_id)

    async def placements(self) -> JobPlacements:
        """See :meth:`~tether.client.handles.JobHandle.placements`."""
        return await self.calls.call(self.backend.job_port.placements, self.job_id)

    async def cancel(self) -> JobState:
        """Request cancellation, and return its state."""
        return await self.calls.call(self.backend.job_port.cancel, self.job_id)

    async def reprioritise(self, priority: str) -> JobState:
        """See :meth:`JobHandle.reprioritise`."""
        from tether.job_changes import read_priority

        wanted = read_priority(priority)
        return await self.calls.call(lambda: self.backend.change_port.reprioritise(self.job_id, wanted))


def _close(following: Future[StreamSubscription]) -> None:
    if not following.cancelled() and following.exception() is None:
        following.result().close()
