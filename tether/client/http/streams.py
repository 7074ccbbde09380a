"""Streams over HTTP: followed to their end, across every connection that breaks on the way."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tether.client.http.calls import HttpCalls, reason_of
from tether.client.http.connecting import HttpSocket
from tether.client.http.exchanges import HttpExchange
from tether.client.http.patience import wait_after
from tether.client.http.responses import Failure, failure_from_body
from tether.client.http.server_sent_events import EventParser, ServerSentEvent
from tether.client.http.stream_reader import StreamReader
from tether.client.lifetime import closed
from tether.errors import ClientClosed, ResultTimeout, TetherError
from tether.ids import JobId
from tether.streams.events import (
    EVENT_KINDS,
    INTERRUPTED,
    Deliver,
    StreamEvent,
    event_id,
)
from tether.streams.reader import StreamPosition, read_event, read_event_json, take
from tether.threads import OwnedThread

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
    """One reader of one stream. It is read by the client's :class:`StreamReader`; only while its connection
    is made anew it has a thread of its own, ``tether-http-again``."""

    def __init__(
        self,
        calls: HttpCalls,
        reader: StreamReader,
        job_id: JobId,
        offset: int,
        deliver: Deliver,
        forget: Callable[[HttpStream], object],
    ) -> None:
        """
        Args:
          forget: Called once it has nothing more to do.
        """
        self.due = math.inf
        self._calls = calls
        self._reader = reader
        self._job_id = job_id
        self._deliver_to = deliver
        self._forget = forget
        self._place = StreamPosition(offset)
        self._parser = EventParser()
        self._broken: _Break | None = None
        self._hint = 0.0
        self._failures = 0
        self._is_over = False
        self._has_complained = False
        self._exchange: HttpExchange | None = None
        self._lock = threading.Lock()
        self._socket: HttpSocket | None = None
        self._woken = calls.connections.new_wait()
        """Set where nothing is to be waited for any more."""
        self._again: OwnedThread | None = None
        self._log = logging.getLogger("tether.client")

    def open(self, within: float | None = None) -> None:
        """Connect, and have it read.

        Args:
          within: Longest wait for that, in seconds; None where only patience counts.

        Raises:
          ResultTimeout: It could not be opened within that time.
          TetherError: It was refused, or could not be opened while patience lasted.
        """
        may_be_read = False
        try:
            opens_by = math.inf if within is None else time.monotonic() + within
            patience = self._calls.patience(opens_by)
            while (failure := self._connect(is_new=True, opens_by=opens_by)) is not None:
                if time.monotonic() >= opens_by:
                    raise ResultTimeout(
                        f"the stream of job {self._job_id} could not be opened within {within:g} s; the job "
                        f"continues, and can be waited for again: {failure.error}"
                    )
                if not patience.wait(failure):
                    raise failure.error
            may_be_read = True
            self._reader.add(self)
        except BaseException as error:
            self.close()
            # After an interruption the reader may have it already: then it is ended there.
            if not may_be_read or isinstance(error, TetherError):
                self.end()
            raise

    def close(self) -> None:
        """Deliver no more, and close the connection. May be called on any thread, and repeated."""
        if not self._is_over:
            self._is_over = True
            self._woken.set()
            with self._lock:
                if self._socket is not None:
                    self._socket.abort()

    def _attend(self, used: HttpSocket | None) -> None:
        with self._lock:
            self._socket = used
            if used is not None and self._is_over:
                used.abort()

    def join(self, timeout: float | None) -> None:
        """Wait until its own thread has ended, where it has one."""
        if self._again is not None:
            self._again.join(timeout)

    def begin_to_poll(self) -> int:
        """See :class:`~tether.client.http.stream_reader.ReadStream`."""
        assert self._exchange is not None
        self.due = time.monotonic() + self._calls.silence
        return self._exchange.begin_to_poll()

    def read(self) -> bool:
        """See :class:`~tether.client.http.stream_reader.ReadStream`."""
        try:
            return self._read()
        except OSError as error:
            self._broken = _Break(reason_of(error))
        except ValueError as error:
            self._broken = _Break(str(error), is_odd=True)
        except Exception as error:
            self._fail(error)
        return False

    def _read(self) -> bool:
        assert self._exchange is not None
        data = self._exchange.read_now()
        if data is None:
            return True
        if data and not self._is_over:
            self.due = time.monotonic() + self._calls.silence
            for told in self._parser.feed(data):
                self._broken = self._take(told)
                if self._broken is not None:
                    return False
                if self._is_over:
                    self.due = time.monotonic() + REST_SECONDS
                    break
            if self._parser.retry_ms is not None:
                self._hint = self._parser.retry_ms / 1000
        if self._exchange.is_complete and not self._is_over:
            self._broken = _Break("the response ended before the stream did")
        return not self._exchange.is_complete

    def overdue(self) -> None:
        """See :class:`~tether.client.http.stream_reader.ReadStream`."""
        self._broken = _Break("it did not respond in time")

    def leave(self) -> bool:
        """See :class:`~tether.client.http.stream_reader.ReadStream`."""
        if not self._is_over and self._calls.connections.is_stopped:
            self._give_up(closed())
        if self._is_over:
            self.end()
            return True
        self._let_go()
        self._again = OwnedThread("http-again", self._come_back)
        try:
            self._again.start()
        except RuntimeError:
            return False
        return True

    def _come_back(self) -> None:
        try:
            if self._connect_again():
                self._reader.add(self)
                # From here on it is the reader's.
                return
        except ClientClosed as error:
            self._give_up(error)
        except Exception as error:
            self._fail(error)
        self.end()

    def _connect_again(self) -> bool:
        """Answers whether there is a connection; else nobody wants one."""
        assert self._broken is not None
        broken = self._broken
        while True:
            self._note(broken)
            if not self._rest(broken.least):
                return False
            failure = self._connect(is_new=False)
            if failure is None:
                return True
            if failure.is_final:
                self._give_up(failure.error)
            if self._is_over:
                return False
            broken = _Break(str(failure.error), failure.error.retry_after or 0.0, not failure.may_retry)

    def _fail(self, error: Exception) -> None:
        self._log.error("A stream cannot be followed.", extra={"job_id": self._job_id}, exc_info=error)
        self._give_up(TetherError(f"the stream cannot be followed ({type(error).__name__})"))

    def end(self) -> None:
        """Give back what it has, once nothing of it runs any more."""
        self._let_go()
        self._forget(self)

    def _let_go(self) -> None:
        # From here on it may serve others.
        with self._lock:
            self._socket = None
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    def _connect(self, *, is_new: bool, opens_by: float = math.inf) -> Failure | None:
        query: list[tuple[str, str]] = []
        headers: list[tuple[str, str]] = []
        if self._place.is_reached:
            headers.append(("last-event-id", event_id(self._place.run, self._place.offset)))
        elif self._place.offset:
            query.append(("offset", str(self._place.offset)))
        path = f"/v1/jobs/{self._job_id}/stream"
        found = self._calls.open_stream(path, query, headers, self._attend, is_new=is_new, opens_by=opens_by)
        if isinstance(found, Failure):
            return found
        self._exchange, self._parser, self._broken = found, EventParser(), None
        return None

    def _rest(self, least: float) -> bool:
        """Wait before the next try. Answers whether anybody still wants one."""
        self._failures += 1
        wait = wait_after(self._failures, min(max(least, self._hint), MAX_HINT_SECONDS), self._calls.pace)
        self._calls.pace.pause(self._woken, wait)
        self._calls.connections.check()
        return not self._is_over

    def _note(self, broken: _Break) -> None:
        # Once until something comes again: an outage may take long.
        if self._failures == 0:
            say: Callable[..., object] = self._log.warning if broken.is_odd else self._log.info
            say("A stream was interrupted. Reconnecting.", extra={"job_id": self._job_id, "why": broken.why})

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
