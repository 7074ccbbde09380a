"""Takes in the bodies of requests: within limits, and away from the event loop where that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from starlette.requests import ClientDisconnect, Request

from tether.client.async_calls import AsyncCalls
from tether.errors import MalformedBody, RequestTimeout, RequestTooLarge, TetherError
from tether.gateway.body_budget import BodyBudget
from tether.gateway.json_bodies import parse_json
from tether.gateway.turns import TenantTurns
from tether.ids import TenantId

BODY_SECONDS = 60.0
"""How long a body may take to come: so long at most, bytes are promised to who does not send them."""

INLINE_BYTES = 16_384
"""Bodies up to this size are read on the event loop: it takes 5 ms at most, and a thread would cost more than
most of them."""

READINGS = 1
"""Larger bodies that are read at once. Threads share one interpreter: more would take as long in all, and
leave less of it to the event loop."""

_Read = TypeVar("_Read")

BodyReader = Callable[[Mapping[str, Any]], _Read]
"""Makes something of the object in a body. It may run on any thread."""


@dataclass(frozen=True)
class BodyLimit:
    """How long a route's bodies may be.

    Attributes:
      max_bytes: Their length.
      setting: Where that can be raised; empty where it cannot.
    """

    max_bytes: int
    setting: str = ""

    def exceeded(self) -> RequestTooLarge:
        """Return what a longer one is refused with."""
        advice = f", or raise {self.setting}" if self.setting else ""
        return RequestTooLarge(f"the body has more than {self.max_bytes} bytes: make it smaller{advice}")


class RequestBodies:
    """Takes in bodies. It belongs to one event loop."""

    def __init__(self, calls: AsyncCalls, budget: BodyBudget) -> None:
        """
        Args:
          calls: On whose threads large bodies are read.
          budget: What they may hold together.
        """
        self.calls = calls
        self.budget = budget
        self.turns = TenantTurns(READINGS)

    def receive(self, request: Request, tenant_id: TenantId, limit: BodyLimit) -> ReceivedBody:
        """Return the body of a request: an asynchronous context, in which it is there whole."""
        return ReceivedBody(self, request, tenant_id, limit)


class ReceivedBody:
    """A body, and the bytes that it is promised, for as long as the context lasts: until its jobs are
    accepted, since until then they are held in one form or another.

    Entering the context takes the body in.

    Raises:
      TooManyRequests: There is no room for it now. Nothing of it has been read.
      RequestTooLarge: It has more bytes than the route takes.
      RequestTimeout: It takes too long to come.
      MalformedBody: It is encoded, or does not come whole.
    """

    def __init__(
        self, bodies: RequestBodies, request: Request, tenant_id: TenantId, limit: BodyLimit
    ) -> None:
        self._bodies = bodies
        self._request = request
        self._tenant_id = tenant_id
        self._limit = limit
        self._promised = 0
        self._content = b""

    async def __aenter__(self) -> Self:
        promised = _promised_length(self._request, self._limit)
        self._bodies.budget.take(self._tenant_id, promised)
        self._promised = promised
        try:
            self._content = await _read_content(self._request, self._limit)
        except BaseException:
            self._keep_promise_of(0)
            raise
        self._keep_promise_of(len(self._content))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keep_promise_of(0)

    def _keep_promise_of(self, size: int) -> None:
        if size != self._promised:
            self._bodies.budget.give_back(self._tenant_id, self._promised - size)
            self._promised = size

    async def read(self, reader: BodyReader[_Read]) -> _Read:
        """Return what the reader makes of the JSON object in it. To be called once: the body is gone then.

        Raises:
          MalformedBody: It holds none.
          RequestTooLarge: It holds more values than a body may.
          TetherError: The reader's own.
        """
        content, self._content = self._content, b""
        if len(content) <= INLINE_BYTES:
            return reader(parse_json(content))
        async with self._bodies.turns.turn(self._tenant_id):
            outcome = await self._bodies.calls.call(_read_json, content, reader)
        if isinstance(outcome, _Refused):
            raise outcome.error
        return outcome


@dataclass(frozen=True)
class _Refused:
    error: TetherError


def _read_json(content: bytes, reader: BodyReader[_Read]) -> _Read | _Refused:
    """Parse and read. What was parsed ends here, on this thread: that takes long, too, where it is large."""
    try:
        return reader(parse_json(content))
    except TetherError as error:
        # Its frames, and those of what it came from, would keep the values.
        error.__context__ = error.__cause__ = None
        return _Refused(error.with_traceback(None))


def _promised_length(request: Request, limit: BodyLimit) -> int:
    """Return the bytes that a body may come to.

    Raises:
      RequestTooLarge: It says itself that it has too many.
      MalformedBody: It is encoded.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() not in ("", "identity"):
        raise MalformedBody(
            f"the content encoding {encoding[:40]!r} is not supported: send the body without one"
        )
    length = request.headers.get("content-length", "")
    if not (length.isdigit() and len(length) < 20):
        return limit.max_bytes
    if int(length) > limit.max_bytes:
        raise limit.exceeded()
    return int(length)


async def _read_content(request: Request, limit: BodyLimit) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit.max_bytes:
                    raise limit.exceeded()
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {BODY_SECONDS:g} s: send it faster") from None
    except ClientDisconnect:
        raise MalformedBody("the connection ended before the body did") from None
    return bytes(content)
