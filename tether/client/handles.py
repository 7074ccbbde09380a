"""Handles of submitted jobs: their stream, result, status and end."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from tether.client.async_calls import AsyncCalls
from tether.client.backend import Backend, JobStatus, StreamEvent, Subscription
from tether.errors import JobCancelled, JobExpired, JobFailed, ResultTimeout, TetherError
from tether.jobs import JobState, Piece


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a job made.

    Attributes:
      text: Its text.
      token_ids: The ids of its tokens.
      input_tokens: Tokens of the prompt.
      finish_reason: ``stop`` or ``length``.
    """

    job_id: str
    text: str
    token_ids: tuple[int, ...]
    input_tokens: int
    finish_reason: str


class Gathering:
    """The tokens of a stream as they come, restarts heeded.

    Attributes:
      pieces: All that stand now.
    """

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self.pieces: list[Piece] = []

    def add(self, event: StreamEvent) -> None:
        if event.kind == "restarted":
            del self.pieces[event.offset :]
        self.pieces += event.pieces

    def result(self, last: StreamEvent) -> Result:
        """The result, or the error that the last event tells of."""
        if last.kind == "failed":
            raise failure_of(self._job_id, last)
        return Result(
            job_id=self._job_id,
            text="".join(piece.text for piece in self.pieces),
            token_ids=tuple(piece.token_id for piece in self.pieces),
            input_tokens=int(last.details.get("input_tokens", 0)),
            finish_reason=str(last.details.get("reason", "")),
        )


def failure_of(job_id: str, event: StreamEvent) -> JobFailed:
    """The error that a job's last event tells of."""
    state = event.details.get("state")
    if state == JobState.CANCELLED:
        return JobCancelled(f"job {job_id} was cancelled")
    if state == JobState.EXPIRED:
        return JobExpired(
            f"job {job_id} was not done by its deadline: give it a later one, or a higher priority"
        )
    reason = event.details.get("code", "unknown")
    message = event.details.get("message", "")
    return JobFailed(f"job {job_id} failed for good ({reason}){': ' if message else ''}{message}")


def _event(found: StreamEvent | TetherError) -> StreamEvent:
    if isinstance(found, TetherError):
        raise found
    return found


def _late(job_id: str, timeout: float | None) -> ResultTimeout:
    return ResultTimeout(f"job {job_id} has not ended within {timeout} s; it goes on, and can be asked again")


@dataclass(frozen=True)
class JobHandle:
    """One job. It can be made anew from the job's id, in any process."""

    job_id: str
    backend: Backend
    correlation_id: str = ""
    retry_token: str = ""
    is_new: bool = False

    def events(self, *, offset: int = 0, timeout: float | None = None) -> Generator[StreamEvent, None, None]:
        """Everything that happens from token ``offset`` on, to the end.

        Args:
          timeout: Longest wait for the next event, in seconds.

        Raises:
          JobNotFound: There is no such job.
          ResultTimeout: Nothing came for so long.
          ClientClosed: The client was closed meanwhile.
        """
        inbox: queue.SimpleQueue[StreamEvent | TetherError] = queue.SimpleQueue()
        subscription = self.backend.follow(self.job_id, offset, inbox.put)
        try:
            while True:
                try:
                    event = _event(inbox.get(timeout=timeout))
                except queue.Empty:
                    raise _late(self.job_id, timeout) from None
                yield event
                if event.is_last:
                    return
        finally:
            subscription.close()

    def stream(self, *, timeout: float | None = None) -> Iterator[str]:
        """The text as it is made.

        Raises:
          JobFailed: It failed, was cancelled or expired.
          ResultTimeout: Nothing came for ``timeout`` seconds.
          ClientClosed: The client was closed meanwhile.
        """
        with contextlib.closing(self.events(timeout=timeout)) as events:
            for event in events:
                if event.kind == "delta":
                    yield event.text
                elif event.kind == "failed":
                    raise failure_of(self.job_id, event)

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end.

        Args:
          timeout: Longest wait for the end, in seconds.

        Raises:
          JobFailed: It failed, was cancelled or expired.
          ResultTimeout: It has not ended by then.
          ClientClosed: The client was closed meanwhile.
        """
        gathering = Gathering(self.job_id)
        inbox: queue.SimpleQueue[StreamEvent | TetherError] = queue.SimpleQueue()
        deadline = None if timeout is None else time.monotonic() + timeout
        subscription = self.backend.follow(self.job_id, 0, inbox.put)
        try:
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                try:
                    event = _event(inbox.get(timeout=left))
                except queue.Empty:
                    raise _late(self.job_id, timeout) from None
                gathering.add(event)
                if event.is_last:
                    return gathering.result(event)
        finally:
            subscription.close()

    def status(self) -> JobStatus:
        """What is known of it now."""
        return self.backend.status(self.job_id)

    def cancel(self) -> JobState:
        """Ask for its end. Answers its state then: a running job ends when its worker hears of it."""
        return self.backend.cancel(self.job_id)


@dataclass(frozen=True)
class AsyncJobHandle:
    """One job, for programs on an event loop. See :class:`JobHandle`."""

    job_id: str
    backend: Backend
    calls: AsyncCalls = field(repr=False, compare=False)
    correlation_id: str = ""
    retry_token: str = ""
    is_new: bool = False

    async def events(
        self, *, offset: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[StreamEvent, None]:
        """Everything that happens from token ``offset`` on, to the end."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[StreamEvent | TetherError] = asyncio.Queue()

        def deliver(found: StreamEvent | TetherError) -> None:
            # A loop that is closed listens no more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(inbox.put_nowait, found)

        following = self.calls.begin(self.backend.follow, self.job_id, offset, deliver)
        try:
            subscription = await asyncio.wrap_future(following)
        except asyncio.CancelledError:
            # The call goes on in its thread, and nobody would close what it answers.
            following.add_done_callback(_close)
            raise
        try:
            while True:
                try:
                    async with asyncio.timeout(timeout):
                        event = _event(await inbox.get())
                except TimeoutError:
                    raise _late(self.job_id, timeout) from None
                yield event
                if event.is_last:
                    return
        finally:
            subscription.close()

    async def stream(self, *, timeout: float | None = None) -> AsyncGenerator[str, None]:
        """The text as it is made."""
        async with contextlib.aclosing(self.events(timeout=timeout)) as events:
            async for event in events:
                if event.kind == "delta":
                    yield event.text
                elif event.kind == "failed":
                    raise failure_of(self.job_id, event)

    async def result(self, timeout: float | None = None) -> Result:
        """Wait for the end."""
        gathering = Gathering(self.job_id)
        try:
            async with asyncio.timeout(timeout):
                async with contextlib.aclosing(self.events()) as events:
                    async for event in events:
                        gathering.add(event)
                        if event.is_last:
                            return gathering.result(event)
        except TimeoutError:
            raise _late(self.job_id, timeout) from None
        raise AssertionError("a stream ends with its last event")

    async def status(self) -> JobStatus:
        """What is known of it now."""
        return await self.calls.call(self.backend.status, self.job_id)

    async def cancel(self) -> JobState:
        """Ask for its end."""
        return await self.calls.call(self.backend.cancel, self.job_id)


def _close(following: Future[Subscription]) -> None:
    if not following.cancelled() and following.exception() is None:
        following.result().close()
