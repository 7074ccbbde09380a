"""One request and its response on a connection."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from urllib.parse import quote, urlencode

from tether.client.http.connecting import Deadline, HttpSocket
from tether.client.http.wire import BadResponse, BodyReader, ResponseHead, split_head

CHUNK_BYTES = 65_536

ANSWERED = select.POLLIN | select.POLLHUP | select.POLLERR
"""What poll says of a connection on which something has come, or its end."""


class ConnectionEnded(ConnectionError):
    """The connection was closed before the response was complete.

    Attributes:
      is_stale: Whether nothing at all came on a connection that had been kept: the server had given it up.
    """

    def __init__(self, *, is_stale: bool = False) -> None:
        super().__init__()
        self.is_stale = is_stale


class HttpRequest:
    """What is sent: the target with its query, and headers besides those of the client."""

    def __init__(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> None:
        self.method = method
        self.target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
        self.headers = headers
        self.body = body


class HttpExchange:
    """One request and its response. It belongs to whoever opened it, who closes it."""

    def __init__(
        self,
        used: HttpSocket,
        give_back: Callable[[HttpSocket, bool], object],
        *,
        was_kept: bool,
        is_secure: bool,
    ) -> None:
        """
        Args:
          give_back: Takes the socket at the end, and whether it can be used again.
        """
        self._socket = used
        self._give_back = give_back
        self._is_secure = is_secure
        self._was_kept = was_kept
        self._is_whole = True
        self._reader: BodyReader | None = None
        self._first = b""
        self._early = bytearray()
        """What came while the request was sent."""
        self.head: ResponseHead

    def send(self, head: bytes, body: bytes | None, deadline: Deadline) -> None:
        """Send a request. A server may answer before it has read all: then the rest is left out."""
        try:
            self._send_all(head, deadline)
            if body:
                self._send_all(body, deadline)
        except (BrokenPipeError, ConnectionResetError):
            # It may have said why.
            self._is_whole = False

    def _send_all(self, data: bytes, deadline: Deadline) -> None:
        view = memoryview(data)
        while view and self._is_whole:
            # Over TLS what can be read need not be an answer.
            if not self._is_secure:
                found = self._socket.poll(select.POLLOUT | ANSWERED, deadline.left())
                if not found:
                    raise TimeoutError
                if found & ANSWERED and self._is_answered(deadline):
                    self._is_whole = False
                    return
                if not found & select.POLLOUT:
                    continue
            view = view[self._socket.send(view[:CHUNK_BYTES], deadline) :]

    def _is_answered(self, deadline: Deadline) -> bool:
        data = self._socket.receive(CHUNK_BYTES, deadline)
        self._early += data
        try:
            # Interim responses answer nothing.
            return not data or split_head(self._early) is not None
        except BadResponse:
            return True

    def receive_head(self, deadline: Deadline) -> None:
        """
        Raises:
          BadResponse: It is no response of HTTP/1.1.
          ConnectionEnded: There is none.
        """
        received = self._early
        while (split := split_head(received)) is None:
            try:
                data = self._socket.receive(CHUNK_BYTES, deadline)
            except ConnectionResetError:
                if received or not self._was_kept:
                    raise
                data = b""
            if not data:
                raise ConnectionEnded(is_stale=self._was_kept and not received)
            received += data
        self.head, rest = split
        self._reader = BodyReader(self.head)
        self._first = self._reader.feed(rest) if rest else b""

    def read(self, deadline: Deadline) -> bytes:
        """The next bytes of the body, as soon as there are any; nothing at its end.

        Raises:
          BadResponse: It is not framed as HTTP/1.1 says.
          ConnectionEnded: The connection ended before the body.
        """
        assert self._reader is not None
        found, self._first = self._first, b""
        while not found and not self._reader.is_complete:
            try:
                found = self._reader.feed(self._socket.receive(CHUNK_BYTES, deadline))
            except EOFError:
                raise ConnectionEnded from None
        return found

    @property
    def is_complete(self) -> bool:
        """Whether the whole response has come."""
        return self._reader is not None and self._reader.is_complete

    def begin_to_poll(self) -> int:
        """From now on only :meth:`read_now` is called. Answers the socket's number, for others to poll."""
        return self._socket.begin_to_poll()

    def read_now(self) -> bytes | None:
        """The bytes of the body that have come; nothing at its end, None where none have yet.

        Raises:
          BadResponse: It is not framed as HTTP/1.1 says.
          ConnectionEnded: The connection ended before the body.
        """
        assert self._reader is not None
        found, self._first = self._first, b""
        if not found and not self._reader.is_complete:
            data = self._socket.receive_now(CHUNK_BYTES)
            try:
                found = b"" if data is None else self._reader.feed(data)
            except EOFError:
                raise ConnectionEnded from None
        return found or (b"" if self._reader.is_complete else None)

    def close(self) -> None:
        """Give the connection back: to be used again if the whole response was read."""
        reader = self._reader
        is_reusable = (
            self._is_whole
            and reader is not None
            and reader.is_complete
            and not reader.rest
            and self.head.is_reusable
        )
        self._give_back(self._socket, is_reusable)
