"""Reads a stream of server-sent events as its bytes arrive (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BYTES = 64 * 1024 * 1024
"""Of one line, and of the data of one event."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_DIGITS = 9


@dataclass(frozen=True)
class ServerSentEvent:
    """One event.

    Attributes:
      kind: Its type; ``message`` where it has none.
      data: Its data, the lines of it joined by line feeds.
      last_id: The id of the last event that had one, this one included; empty where none had.
    """

    kind: str
    data: str
    last_id: str


class EventParser:
    """Makes events of bytes, however these are cut. Unlike a browser it refuses what is not UTF-8: text with
    replaced characters would be wrong without anybody knowing.

    Attributes:
      retry_ms: How long to wait before a connection that broke is made anew, as the stream last said; None
        where it said nothing.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self.retry_ms: int | None = None
        self._max_bytes = max_bytes
        self._begun: list[bytes] = []
        self._begun_size = 0
        self._skips_line_feed = False
        self._is_first_line = True
        self._kind = ""
        self._data: list[str] = []
        self._data_size = 0
        self._last_id = ""

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that these bytes complete. The iterator must be used up before the next bytes are fed.

        Raises:
          ValueError: A line is not UTF-8, or something is longer than may be. The parser is of no more use.
        """
        if not chunk:
            return
        if self._skips_line_feed and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        # A carriage return ends its line at once: the line feed that may follow belongs to it.
        self._skips_line_feed = chunk.endswith(b"\r")
        *ended, rest = _LINE_END.split(chunk)
        for line in ended:
            self._begin(line)
            whole = b"".join(self._begun)
            self._begun.clear()
            self._begun_size = 0
            event = self._take(whole)
            if event is not None:
                yield event
        self._begin(rest)

    def _begin(self, part: bytes) -> None:
        if part:
            self._begun.append(part)
            self._begun_size += len(part)
            if self._begun_size > self._max_bytes:
                raise ValueError(f"a line of the stream has more than {self._max_bytes} bytes")

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._complete()
        name, _, value = line.partition(b":")
        if not name:
            return None
        self._set(name.decode(), value.removeprefix(b" ").decode())
        return None

    def _set(self, name: str, value: str) -> None:
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
            self._data_size += len(value)
            if self._data_size > self._max_bytes:
                raise ValueError(f"an event of the stream has more than {self._max_bytes} characters")
        elif name == "id":
            if "\0" not in value:
                self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
            self.retry_ms = int(value)

    def _complete(self) -> ServerSentEvent | None:
        kind, data = self._kind, self._data
        self._kind, self._data, self._data_size = "", [], 0
        if not data:
            return None
        return ServerSentEvent(kind or "message", "\n".join(data), self._last_id)
