"""Single calls over HTTP: each is sent, its answer judged, and tried again where that can help."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from yarl import URL

from tether.client.endpoint import Endpoint
from tether.client.http.patience import Pace, Patience
from tether.client.http.responses import Failure, HttpResponse, judge, retry_after_seconds, unexpected
from tether.errors import ConfigError, GatewayUnavailable, UnexpectedAnswer, mask_url
from tether.version import __version__

CONNECT_SECONDS = 10.0
MAX_BYTES = 64 * 1024 * 1024
"""Of an answer."""

SLOWEST = 4
"""A whole call may take so many times the wait for its answer's next bytes."""

_EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Call:
    """What is asked for."""

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: bytes | None = None


@dataclass(frozen=True)
class HttpCalls:
    """Makes the calls to one gateway.

    Attributes:
      read_timeout: Longest wait for the next bytes of an answer, in seconds.
      silence: The same for a stream, which sends a sign of life every 15 s.
    """

    endpoint: Endpoint
    pace: Pace = field(default_factory=Pace)
    read_timeout: float = 30.0
    silence: float = 45.0

    @property
    def place(self) -> str:
        """The gateway's address, fit for a message."""
        return mask_url(self.endpoint.url)

    def open_session(self) -> ClientSession:
        """A session with the key in every request. Called on the loop that uses it."""
        return ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "authorization": f"Bearer {self.endpoint.api_key}",
                "user-agent": f"tether/{__version__}",
            },
        )

    async def answer(self, session: ClientSession, call: Call) -> dict[str, Any]:
        """The document that a call is answered with. It is tried again while patience lasts.

        Raises:
          TetherError: It was refused, or not answered.
        """
        patience = Patience(self.pace)
        while isinstance(found := await self.attempt(session, call), Failure):
            if not await patience.wait(found):
                raise found.error
        return found

    async def attempt(self, session: ClientSession, call: Call) -> dict[str, Any] | Failure:
        """One try."""
        timeout = ClientTimeout(
            total=SLOWEST * self.read_timeout, sock_connect=CONNECT_SECONDS, sock_read=self.read_timeout
        )
        headers = {"accept": "application/json"}
        if call.body is not None:
            headers["content-type"] = "application/json"
        try:
            async with session.request(
                call.method,
                URL(self.endpoint.url + call.path),
                params=call.query or None,
                data=call.body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                return await self._judge(response)
        except (ClientError, TimeoutError, OSError) as error:
            return self.failure(error, submits=call.method == "POST")

    async def open_stream(
        self, session: ClientSession, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str]
    ) -> ClientResponse | Failure:
        """One try to open a stream. The response belongs to the caller, who closes it."""
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self.silence)
        try:
            response = await session.get(
                URL(self.endpoint.url + path),
                params=query or None,
                # What is compressed is kept back until there is enough of it.
                headers={"accept": _EVENTS, "accept-encoding": "identity", **headers},
                timeout=timeout,
                allow_redirects=False,
            )
            if response.status == 200 and response.content_type == _EVENTS:
                return response
            async with response:
                async with asyncio.timeout(self.read_timeout):
                    found = await self._judge(response)
                if isinstance(found, Failure):
                    return found
                return Failure(unexpected(self._answer(response, b"")), False, response.status)
        except (ClientError, TimeoutError, OSError) as error:
            return self.failure(error)

    async def _judge(self, response: ClientResponse) -> dict[str, Any] | Failure:
        body = bytearray()
        while chunk := await response.content.readany():
            body += chunk
            if len(body) > MAX_BYTES:
                response.close()
                error = UnexpectedAnswer(f"{self.place} responded with more than {MAX_BYTES} bytes")
                return Failure(error, False, response.status)
        return judge(self._answer(response, bytes(body)))

    def _answer(self, response: ClientResponse, body: bytes) -> HttpResponse:
        told = response.headers.get("retry-after")
        return HttpResponse(
            place=self.place,
            status=response.status,
            content_type=response.content_type if "content-type" in response.headers else "",
            retry_after=retry_after_seconds(told, int(time.time() * 1000)),
            body=body,
        )

    def late(self) -> GatewayUnavailable:
        """What a call raises whose time is over before it is answered."""
        return GatewayUnavailable(
            f"the gateway at {self.place} did not respond in time: check that it is running and that the URL "
            "is correct (TETHER_URL). A job that was just submitted may have been accepted: submit it again "
            "with the same keys"
        )

    def failure(self, error: BaseException, *, submits: bool = False) -> Failure:
        """What an error of the connection means.

        Args:
          submits: Whether jobs may have been accepted.
        """
        if isinstance(error, aiohttp.InvalidURL):
            return Failure(ConfigError(f"the URL {self.place} is invalid (TETHER_URL)"), False)
        if isinstance(error, aiohttp.ClientResponseError):
            return Failure(
                UnexpectedAnswer(
                    f"the server at {self.place} does not speak HTTP/1.1 as a gateway does "
                    f"({type(error).__name__}): check the URL (TETHER_URL)"
                ),
                False,
            )
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
            why = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
            told = getattr(why, "verify_message", "") or getattr(why, "reason", "") or type(why).__name__
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


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name cannot be resolved"
    if isinstance(error, TimeoutError):
        return "it did not respond in time"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "the connection was closed before the response was complete"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
