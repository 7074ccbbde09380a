"""What an operator asks of a gateway: documents as they come, and the fleet's changes."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tether.client.endpoint import Endpoint
from tether.client.http.calls import Call, HttpCalls, reason_of
from tether.client.http.connecting import Deadline
from tether.client.http.exchanges import HttpExchange
from tether.client.http.patience import Pace, wait_after
from tether.client.http.responses import Failure, failure_from_body, read
from tether.client.http.server_sent_events import EventParser, ServerSentEvent
from tether.client.path_segments import path_segment
from tether.errors import GatewayUnavailable
from tether.streams.events import INTERRUPTED

_Value = TypeVar("_Value")

PREFIX = "/v1/operator"
CHANGES = f"{PREFIX}/fleet/changes"


class OperatorClient:
    """Makes an operator's calls, each on the thread that wants it. Owns the connections, to :meth:`close`."""

    def __init__(
        self, endpoint: Endpoint, pace: Pace, *, silence: float = 45.0, within: float | None = None
    ) -> None:
        """
        Args:
          pace: How calls are tried again that did not succeed.
          silence: Longest wait for a sign of life of a watched fleet, in seconds: one comes every 15 s.
          within: Seconds from now after which no call waits any longer; None where there is no such end.
        """
        ends_at = math.inf if within is None else time.monotonic() + within
        self._calls = HttpCalls(endpoint, pace, silence=silence, ends_at=ends_at)

    @property
    def place(self) -> str:
        """The gateway's address, fit for a message."""
        return self._calls.place

    def ask(
        self,
        method: str,
        *parts: str,
        query: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        values: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The document that a call is answered with. It is tried again while patience lasts.

        Args:
          parts: Of the path, behind that of all operators' routes.
          values: What the body has.

        Raises:
          InvalidRequest: A part of the path can be none.
          TetherError: It was refused, or not answered.
        """
        path = "/".join((PREFIX, *(path_segment(part) for part in parts)))
        body = None if values is None else json.dumps(values).encode()
        pairs = query.items() if isinstance(query, Mapping) else query
        return self._calls.answer(Call(method, path, tuple(pairs), body))

    def understood(self, reader: Callable[[Any], _Value], document: object) -> _Value:
        """What the reader makes of an answer.

        Raises:
          UnexpectedAnswer: It is none that the reader knows.
        """
        return read(reader, document, self._calls.place)

    def changes(self, *, ends_at: float = math.inf) -> Iterator[dict[str, Any]]:
        """The live workers, then each change of one, as the gateway tells of it. Where the connection breaks,
        that is told by ``disconnected``; it is made anew, and after ``connected`` all workers are told again.

        Args:
          ends_at: When the iterator ends, in seconds of the monotonic clock.

        Raises:
          TetherError: The stream was refused, or could not be opened while patience lasted.
        """
        patience = self._calls.patience()
        has_begun = is_cut = False
        failures = 0
        while True:
            failure: Failure | None = None
            for found in self._connection(ends_at):
                if isinstance(found, Failure):
                    failure = found
                    break
                if is_cut:
                    yield self._link(is_back=True)
                has_begun, is_cut, failures = True, False, 0
                if found is not None:
                    yield found
            if failure is None or time.monotonic() >= ends_at:
                return
            if not has_begun:
                if not patience.wait(failure):
                    raise failure.error
                continue
            if failure.is_final:
                raise failure.error
            if not is_cut:
                yield self._link(is_back=False)
            is_cut = True
            failures += 1
            wait = wait_after(failures, failure.error.retry_after or 0.0, self._calls.pace)
            self._calls.pause(max(min(wait, ends_at - time.monotonic()), 0.0))

    def close(self) -> None:
        """Close the connections. May be repeated."""
        self._calls.connections.stop()

    def __enter__(self) -> OperatorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _link(self, *, is_back: bool) -> dict[str, Any]:
        return {"kind": "connected" if is_back else "disconnected", "at": int(time.time() * 1000)}

    def _connection(self, ends_at: float) -> Iterator[dict[str, Any] | Failure | None]:
        """What comes over one connection: documents, None for a mere sign of life, and why it ended; nothing
        of that where its time is over."""
        opened = self._calls.open_stream(CHANGES, (), (), lambda used: None, is_new=True)
        if isinstance(opened, Failure):
            yield opened
            return
        with contextlib.closing(opened):
            try:
                yield from self._documents(opened, ends_at)
                why = "the response ended"
            except TimeoutError:
                if time.monotonic() >= ends_at:
                    return
                why = "it sent nothing for too long"
            except OSError as error:
                why = reason_of(error)
            except ValueError as error:
                why = str(error)
        told = f"the connection to the gateway at {self.place} was interrupted ({why})"
        yield Failure(GatewayUnavailable(told), True)

    def _documents(self, exchange: HttpExchange, ends_at: float) -> Iterator[dict[str, Any] | Failure | None]:
        parser = EventParser()
        while data := exchange.read(Deadline(self._calls.silence, ends_at)):
            events = list(parser.feed(data))
            if not events:
                yield None
            for event in events:
                yield self._taken(event)

    def _taken(self, event: ServerSentEvent) -> dict[str, Any] | Failure:
        value = json.loads(event.data)
        if not isinstance(value, dict):
            raise ValueError("an event is not a JSON object")
        if event.kind != INTERRUPTED:
            return value
        error = failure_from_body(200, {"error": value}).error
        return Failure(error, True) if value["retryable"] is True else Failure(error, False, 400)
