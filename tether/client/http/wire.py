"""HTTP/1.1 as a client speaks it (RFC 9112): requests written and responses read, without a socket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

MAX_HEAD_BYTES = 65_536
"""Of a response, before its body, and of the interim ones before it."""

MAX_LINE_BYTES = 8_192
"""Of a line between the chunks of a body."""

_MAX_SIZE_DIGITS = 15
_END_OF_HEAD = b"\r\n\r\n"


class BadResponse(ValueError):
    """What came is not HTTP/1.1."""


class ResponseHead(NamedTuple):
    """What a response says before its body.

    Attributes:
      headers: By their names in lower case; of one that came several times the values joined by commas.
      is_reusable: Whether the connection can be used again after the body.
    """

    status: int
    headers: Mapping[str, str]
    is_reusable: bool

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case; empty where nothing is said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def write_request(
    method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes | None = None
) -> bytes:
    """The bytes of a request, without its body."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def split_head(received: bytes | bytearray) -> tuple[ResponseHead, bytes] | None:
    """The head with which the bytes begin, and the bytes after it; None while it is not complete.

    Interim responses (status 1xx) before it are passed over.

    Raises:
      BadResponse: It is no response of HTTP/1.1, or longer than may be.
    """
    rest = bytes(received)
    while True:
        if not _may_begin(rest):
            raise BadResponse("it does not begin with HTTP/1.")
        text, end, after = rest.partition(_END_OF_HEAD)
        if len(received) - len(after) > MAX_HEAD_BYTES:
            raise BadResponse(f"its head has more than {MAX_HEAD_BYTES} bytes")
        if not end:
            return None
        head = _read_head(text)
        if head.status >= 200:
            return head, after
        rest = after


def _may_begin(text: bytes) -> bool:
    return text[:7] == b"HTTP/1."[: len(text)]


def _read_head(text: bytes) -> ResponseHead:
    first, *lines = text.decode("latin-1").split("\r\n")
    version, _, said = first.partition(" ")
    status = said[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (status.isascii() and status.isdigit()):
        raise BadResponse("its first line is no status line")
    if said[3:4] not in ("", " ") or not 100 <= int(status) < 600 or status == "101":
        raise BadResponse("its status is impossible")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\0" in line:
            raise BadResponse("a line of its head is no header")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    wishes = {wish.strip().lower() for wish in headers.get("connection", "").split(",")}
    is_kept = "close" not in wishes if version == "HTTP/1.1" else "keep-alive" in wishes
    has_end = int(status) in (204, 304) or "content-length" in headers or "transfer-encoding" in headers
    return ResponseHead(int(status), headers, is_kept and has_end)


class BodyReader:
    """Takes a response's body out of the bytes that come, however these are cut.

    Attributes:
      is_complete: Whether the body has ended.
      rest: What came after its end.
    """

    def __init__(self, head: ResponseHead) -> None:
        """
        Raises:
          BadResponse: The head does not say how long the body is in a way that is known.
        """
        self.is_complete = False
        self.rest = b""
        self._is_chunked = False
        self._left: int | None = None
        """Bytes of the body, or of the chunk, that are still to come; None where only the end tells."""
        self._begun = b""
        self._is_in_chunk = self._is_in_trailer = False
        self._read_framing(head)

    def _read_framing(self, head: ResponseHead) -> None:
        if head.status in (204, 304):
            self.is_complete = True
            return
        coding = head.headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                raise BadResponse("its transfer coding is unknown")
            self._is_chunked = True
            return
        told = head.headers.get("content-length")
        if told is None:
            return
        lengths = {length.strip() for length in told.split(",")}
        length = lengths.pop()
        if lengths or not (length.isascii() and length.isdigit()) or len(length) > _MAX_SIZE_DIGITS:
            raise BadResponse("its length is impossible")
        self._left = int(length)
        self.is_complete = self._left == 0

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body among these. Empty ``data`` is the end of the connection.

        Raises:
          BadResponse: It is not framed as HTTP/1.1 says.
          EOFError: The connection ended before the body.
        """
        if self.is_complete:
            self.rest += data
            return b""
        if not data:
            if self._is_chunked or self._left is not None:
                raise EOFError
            self.is_complete = True
            return b""
        if self._is_chunked:
            return self._feed_chunks(data)
        if self._left is None:
            return data
        body = self._take(data)
        self.is_complete = self._left == 0
        return body

    def _take(self, data: bytes) -> bytes:
        assert self._left is not None
        taken, self.rest = data[: self._left], data[self._left :]
        self._left -= len(taken)
        return taken

    def _feed_chunks(self, data: bytes) -> bytes:
        found: list[bytes] = []
        rest = self._begun + data
        self._begun = b""
        while rest and not self.is_complete:
            if self._left:
                found.append(self._take(rest))
                rest, self.rest = self.rest, b""
                continue
            line, end, after = rest.partition(b"\r\n")
            if len(line) > MAX_LINE_BYTES:
                raise BadResponse("a line between its chunks is too long")
            if not end:
                self._begun = rest
                break
            rest = after
            self._take_line(line)
        if self.is_complete:
            self.rest = rest
        return b"".join(found)

    def _take_line(self, line: bytes) -> None:
        if self._is_in_trailer:
            self.is_complete = not line
        elif self._is_in_chunk:
            if line:
                raise BadResponse("a chunk is longer than it says")
            self._is_in_chunk = False
        else:
            self._left = _chunk_size(line)
            self._is_in_chunk = self._left > 0
            self._is_in_trailer = self._left == 0


def _chunk_size(line: bytes) -> int:
    text = line.partition(b";")[0].strip(b" \t")
    if not text or len(text) > _MAX_SIZE_DIGITS or text.strip(b"0123456789abcdefABCDEF"):
        raise BadResponse("the size of a chunk is impossible")
    return int(text, 16)
