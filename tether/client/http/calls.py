"""Single calls over HTTP: each is sent, its answer judged, and tried again where that can help."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tether.client.endpoint import Endpoint
from tether.client.http.connecting import Deadline, HttpSocket
from tether.client.http.connections import HttpConnections
from tether.client.http.exchanges import ConnectionEnded, HttpExchange, HttpRequest
from tether.client.http.patience import Pace, Patience
from tether.client.http.responses import Failure, HttpResponse, judge, retry_after_seconds, unexpected
from tether.client.http.wire import BadResponse
from tether.errors import GatewayUnavailable, UnexpectedAnswer, mask_url
from tether.version import __version__

MAX_BYTES = 64 * 1024 * 1024
"""Of an answer."""

SLOWEST = 4
"""A whole call may take so many times the wait for its answer's next bytes."""

_EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Call:
    """What is asked for.

    Attributes:
      submits: Whether it submits jobs, which may be accepted though no answer comes.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    submits: bool = False


class HttpCalls:
    """Makes the calls to one gateway, each on the thread that wants it. Owns the connections, to
    :meth:`stop`."""

    def __init__(
        self,
        endpoint: Endpoint,
        pace: Pace,
        *,
        read_timeout: float = 30.0,
        silence: float = 45.0,
        ends_at: float = math.inf,
    ) -> None:
        """
        Args:
          read_timeout: Longest wait for the next bytes of an answer, in seconds.
          silence: The same for a stream, which sends a sign of life every 15 s.
          ends_at: When no call is waited for any longer, in seconds of the monotonic clock.
        """
        self.pace = pace
        self.place = mask_url(endpoint.url)
        """The gateway's address, fit for a message."""
        self.silence = silence
        self._read_timeout = read_timeout
        self._ends_at = ends_at
        headers = (("authorization", f"Bearer {endpoint.api_key}"), ("user-agent", f"tether/{__version__}"))
        self.connections = HttpConnections(endpoint.url, headers)
        self._stopped = self.connections.new_wait()

    def patience(self, ends_at: float = math.inf) -> Patience:
        """That of a call which begins now.

        Args:
          ends_at: When it pauses no longer, in seconds of the monotonic clock.
        """
        return Patience(
            self.pace, lambda seconds: self.pause(min(seconds, max(ends_at - time.monotonic(), 0.0)))
        )

    def pause(self, seconds: float) -> None:
        """Wait between two tries.

        Raises:
          ClientClosed: The client was closed, before or meanwhile.
          GatewayUnavailable: The time for all calls is over.
        """
        self.pace.pause(self._stopped, min(seconds, max(self._ends_at - time.monotonic(), 0.0)))
        self.connections.check()
        self._check_time()

    def _check_time(self) -> None:
        if time.monotonic() >= self._ends_at:
            raise self.late()

    def answer(self, call: Call) -> dict[str, Any]:
        """The document that a call is answered with. It is tried again while patience lasts.

        Raises:
          TetherError: It was refused, or not answered.
        """
        patience = self.patience()
        while isinstance(found := self.attempt(call), Failure):
            if not patience.wait(found):
                raise found.error
        return found

    def attempt(self, call: Call) -> dict[str, Any] | Failure:
        """One try.

        Raises:
          ClientClosed: The client was closed, before or meanwhile.
          GatewayUnavailable: The time for all calls is over.
        """
        headers = [("accept", "application/json"), ("accept-encoding", "identity")]
        if call.body is not None:
            headers.append(("content-type", "application/json"))
        request = HttpRequest(call.method, call.path, call.query, headers, call.body)
        ends_at = min(self._ends_at, time.monotonic() + SLOWEST * self._read_timeout)
        try:
            exchange = self.connections.open(request, self._read_timeout, ends_at)
            with contextlib.closing(exchange):
                return self._judge(exchange, Deadline(self._read_timeout, ends_at))
        except (OSError, ValueError) as error:
            return self._failed(error, submits=call.submits)

    def open_stream(
        self,
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Sequence[tuple[str, str]],
        attend: Callable[[HttpSocket | None], object],
        *,
        is_new: bool,
        opens_by: float = math.inf,
    ) -> HttpExchange | Failure:
        """One try to open a stream. The exchange belongs to the caller, who closes it.

        Args:
          attend: Called with each socket before it is used, for who may want to abort it; with None where it
            may serve others from then on.
          is_new: Whether somebody waits for it to be opened, for no longer than for a call.
          opens_by: When that is waited for no longer, in seconds of the monotonic clock.

        Raises:
          ClientClosed: The client was closed, before or meanwhile.
          GatewayUnavailable: The time for all calls is over.
        """
        # What is compressed is kept back until there is enough of it.
        accepted = (("accept", _EVENTS), ("accept-encoding", "identity"))
        request = HttpRequest("GET", path, query, (*accepted, *headers))
        ends_at = min(self._ends_at if is_new else math.inf, opens_by)
        opened_by = min(ends_at, time.monotonic() + SLOWEST * self._read_timeout)
        try:
            exchange = self.connections.open(request, self.silence, opened_by, attend)
            if exchange.head.status == 200 and exchange.head.content_type == _EVENTS:
                return exchange
            with contextlib.ExitStack() as stack:
                stack.callback(exchange.close)
                stack.callback(attend, None)
                rest_ends_at = min(ends_at, time.monotonic() + self._read_timeout)
                found = self._judge(exchange, Deadline(self._read_timeout, rest_ends_at))
                if isinstance(found, Failure):
                    return found
                return Failure(unexpected(self._response(exchange, b"")), False, exchange.head.status)
        except (OSError, ValueError) as error:
            return self._failed(error, is_bound=is_new)

    def _judge(self, exchange: HttpExchange, deadline: Deadline) -> dict[str, Any] | Failure:
        body = bytearray()
        while data := exchange.read(deadline):
            body += data
            if len(body) > MAX_BYTES:
                error = UnexpectedAnswer(f"{self.place} responded with more than {MAX_BYTES} bytes")
                return Failure(error, False, exchange.head.status)
        return judge(self._response(exchange, bytes(body)))

    def _response(self, exchange: HttpExchange, body: bytes) -> HttpResponse:
        head = exchange.head
        return HttpResponse(
            place=self.place,
            status=head.status,
            content_type=head.content_type,
            retry_after=retry_after_seconds(head.headers.get("retry-after"), int(time.time() * 1000)),
            body=body,
        )

    def late(self) -> GatewayUnavailable:
        """What a call raises whose time is over before it is answered."""
        return GatewayUnavailable(
            f"the gateway at {self.place} did not respond in time: check that it is running and that the URL "
            "is correct (TETHER_URL). A job that was just submitted may have been accepted: submit it again "
            "with the same keys"
        )

    def _failed(
        self, error: OSError | ValueError, *, submits: bool = False, is_bound: bool = True
    ) -> Failure:
        self.connections.check()
        if is_bound and isinstance(error, TimeoutError):
            self._check_time()
        return self._failure(error, submits=submits)

    def _failure(self, error: OSError | ValueError, *, submits: bool) -> Failure:
        """What an error of the connection means.

        Args:
          submits: Whether jobs may have been accepted.
        """
        if isinstance(error, BadResponse):
            return Failure(
                UnexpectedAnswer(
                    f"the server at {self.place} does not speak HTTP/1.1 as a gateway does "
                    f"({error}): check the URL (TETHER_URL)"
                ),
                False,
            )
        told = tls_reason(error) if self.connections.is_secure else ""
        if told:
            return Failure(
                GatewayUnavailable(
                    f"the TLS connection to {self.place} failed ({told}): check its "
                    "certificate, and whether it "
                    "serves https"
                ),
                False,
            )
        message = (
            f"the gateway at {self.place} cannot be reached ({reason_of(error)}): check that it is running "
            "and that the URL is correct (TETHER_URL), and try again"
        )
        if submits:
            message += ". The submission may have been accepted: submit it again with the same keys"
        return Failure(GatewayUnavailable(message), True)


def tls_reason(error: BaseException) -> str:
    """Why TLS itself failed; empty where something else did."""
    import ssl

    # A connection that just ends may be made again.
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ""
    return str(getattr(error, "verify_message", "") or error.reason or type(error).__name__)


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, socket.gaierror):
        return "its host name cannot be resolved"
    if isinstance(error, TimeoutError):
        return "it did not respond in time"
    # Errors of TLS have numbers of their own.
    if isinstance(error, ConnectionEnded) or type(error).__module__ == "ssl":
        return "the connection was closed before the response was complete"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
