"""Streams over HTTP: followed to their end, across every connection that breaks on the way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import ClientError, ClientResponse, ClientSession

from tether.client.http.calls import HttpCalls, reason_of
from tether.client.http.patience import Patience, wait_after
from tether.client.http.responses import Failure, failure_from_body
from tether.client.http.server_sent_events import EventParser, ServerSentEvent
from tether.client.http.thread import HttpThread
from tether.client.lifetime import closed
from tether.errors import TetherError
from tether.ids import JobId
from tether.statuses import check_job_id
from tether.streams.events import (
    EVENT_KINDS,
    INTERRUPTED,
    Deliver,
    StreamEvent,
    StreamSubscription,
    check_offset,
    event_id,
)
from tether.streams.reader import StreamPosition, read_event, read_event_json, take

MAX_HINT_SECONDS = 30.0
"""Longest wait before it comes back that a stream may ask for, in seconds."""

REST_SECONDS = 1.0
"""How long the end of a response is waited for after a stream's last event, to use its connection again."""


@dataclass(frozen=True)
class _Break:
    """Why a response ended before its stream.

    Attributes:
      least: Seconds to wait before the next one.
      is_odd: Whether what came was not what a gateway sends.
    """

    why: str
    least: float = 0.0
    is_odd: bool = False


class HttpStream:
    """One reader of one stream. Its task runs on the loop of the thread, from :meth:`open` until the last
    event, :meth:`close`, or the end of the thread."""

    def __init__(
        self, thread: HttpThread, calls: HttpCalls, job_id: JobId, offset: int, deliver: Deliver
    ) -> None:
        self._thread = thread
        self._calls = calls
        self._job_id = job_id
        self._deliver_to = deliver
        self._place = StreamPosition(offset)
        self._hint = 0.0
        self._failures = 0
        self._is_over = False
        self._has_complained = False
        self._task: asyncio.Task[None] | None = None
        self._response: ClientResponse | None = None
        self._log = logging.getLogger("tether.client")

    async def open(self, session: ClientSession) -> None:
        """Connect, and go on reading in a task.

        Raises:
          TetherError: The stream was refused, or could not be opened while patience lasted.
        """
        patience = Patience(self._calls.pace)
        while (failure := await self._connect(session)) is not None:
            if not await patience.wait(failure):
                raise failure.error
        self._task = asyncio.create_task(self._follow(session), name=f"stream of {self._job_id}")
        self._task.add_done_callback(self._end)

    def close(self) -> None:
        """Deliver no more, and close the connection. May be called on any thread, and repeated."""
        if not self._is_over:
            self._is_over = True
            self._thread.soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[None]) -> None:
        if self._response is not None:
            self._response.close()
        if task.cancelled():
            self._give_up(closed())
        elif (error := task.exception()) is not None:
            self._log.error("A stream cannot be followed.", extra={"job_id": self._job_id}, exc_info=error)
            self._give_up(TetherError(f"the stream cannot be followed ({type(error).__name__})"))

    async def _connect(self, session: ClientSession) -> Failure | None:
        query: list[tuple[str, str]] = []
        headers: dict[str, str] = {}
        if self._place.is_reached:
            headers["last-event-id"] = event_id(self._place.run, self._place.offset)
        elif self._place.offset:
            query.append(("offset", str(self._place.offset)))
        found = await self._calls.open_stream(session, f"/v1/jobs/{self._job_id}/stream", query, headers)
        if isinstance(found, Failure):
            return found
        self._response = found
        return None

    async def _follow(self, session: ClientSession) -> None:
        while True:
            assert self._response is not None
            broken = await self._read(self._response)
            if broken is None:
                await self._see_end_of(self._response)
                return
            self._response.close()
            self._response = None
            self._note(broken)
            await self._rest(broken.least)
            while (failure := await self._connect(session)) is not None:
                if failure.is_final:
                    self._give_up(failure.error)
                    return
                self._note(_Break(str(failure.error), is_odd=not failure.may_retry))
                await self._rest(failure.error.retry_after or 0.0)

    async def _rest(self, least: float) -> None:
        self._failures += 1
        wait = wait_after(self._failures, min(max(least, self._hint), MAX_HINT_SECONDS), self._calls.pace)
        await self._calls.pace.pause(wait)

    def _note(self, broken: _Break) -> None:
        # Once until something comes again: an outage may take long.
        if self._failures == 0:
            say: Callable[..., object] = self._log.warning if broken.is_odd else self._log.info
            say("A stream was interrupted. Reconnecting.", extra={"job_id": self._job_id, "why": broken.why})

    async def _read(self, response: ClientResponse) -> _Break | None:
        """Deliver what comes. Answers why it ended; None where the last was delivered."""
        parser = EventParser()
        try:
            while chunk := await response.content.readany():
                for told in parser.feed(chunk):
                    broken = self._take(told)
                    if broken is not None or self._is_over:
                        return broken
                if parser.retry_ms is not None:
                    self._hint = parser.retry_ms / 1000
        except (ClientError, TimeoutError, OSError) as error:
            return _Break(reason_of(error))
        except ValueError as error:
            return _Break(str(error), is_odd=True)
        return _Break("the response ended before the stream did")

    async def _see_end_of(self, response: ClientResponse) -> None:
        with contextlib.suppress(ClientError, TimeoutError, OSError):
            async with asyncio.timeout(REST_SECONDS):
                while await response.content.readany():
                    pass

    def _take(self, told: ServerSentEvent) -> _Break | None:
        if told.kind == INTERRUPTED:
            return self._take_interruption(told.data)
        if told.kind not in EVENT_KINDS:
            # A newer gateway tells more.
            return None
        step = take(self._place, read_event(told.kind, told.data))
        self._place = step.place
        if step.events and self._failures:
            self._failures = 0
            self._log.info("The stream goes on.", extra={"job_id": self._job_id})
        for event in step.events:
            self._pass_on(event)
        return _Break("tokens are missing from it", is_odd=True) if step.lacks_tokens else None

    def _take_interruption(self, data: str) -> _Break | None:
        value = read_event_json(data)
        try:
            failure = failure_from_body(200, {"error": value})
        except TetherError as error:
            return _Break(str(error), is_odd=True)
        if value["retryable"] is True:
            return _Break(str(failure.error), least=failure.error.retry_after or 0.0)
        self._give_up(failure.error)
        return None

    def _pass_on(self, event: StreamEvent) -> None:
        if not self._is_over:
            self._is_over = event.is_last
            self._deliver(event)

    def _give_up(self, error: TetherError) -> None:
        if not self._is_over:
            self._is_over = True
            self._deliver(error)

    def _deliver(self, found: StreamEvent | TetherError) -> None:
        try:
            self._deliver_to(found)
        except Exception:
            if not self._has_complained:
                self._has_complained = True
                self._log.exception(
                    "A consumer of a stream's events failed. Continuing.", extra={"job_id": self._job_id}
                )


class HttpStreamPort:
    """See :class:`~tether.client.ports.StreamPort`."""

    def __init__(self, thread: HttpThread, calls: HttpCalls) -> None:
        self._thread = thread
        self._calls = calls

    def follow(self, job_id: JobId, offset: int, deliver: Deliver) -> StreamSubscription:
        """See :meth:`~tether.client.ports.StreamPort.follow`.

        Once it is open, the stream is followed whatever happens to the gateway, until its last event or a
        refusal.
        """
        check_offset(offset)
        check_job_id(job_id)
        stream = HttpStream(self._thread, self._calls, job_id, offset, deliver)
        try:
            self._thread.call(stream.open)
        except BaseException:
            stream.close()
            raise
        return stream
