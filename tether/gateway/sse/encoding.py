"""A job's events as the bytes of a stream of server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from tether.client.documents import json_bytes
from tether.errors import TetherError
from tether.gateway.responses import error_document
from tether.streams.events import INTERRUPTED, StreamEvent, event_id, event_to_json

RECONNECT_MS = 1_000
"""After so long a reader comes back whose connection broke."""

MAX_TOKENS_PER_FRAME = 512

RETRY_FIELD = f"retry: {RECONNECT_MS}\n".encode()
"""A field of the first event: alone, many parsers take it for an event without data."""

KEEPALIVE_COMMENT = b": still here\n"
"""A line, and no empty one after it: many parsers take that for the end of an event, though there is none."""


class EventEncoder(Protocol):
    """How events are written for one reader."""

    def unfit(self, event: StreamEvent) -> TetherError | None:
        """Why the stream ends before its end where this event comes; None where it goes on."""

    def of_event(self, event: StreamEvent) -> Iterator[bytes]:
        """An event as frames. What it means for later ones holds as soon as this returns."""

    def of_error(self, error: TetherError) -> bytes:
        """The frame with which the stream ends before its end."""


class JobEventEncoder:
    """Writes all that happens to a job. One for each reader: its first event says when to reconnect."""

    def __init__(self) -> None:
        self._fields_of_first = RETRY_FIELD

    def unfit(self, event: StreamEvent) -> TetherError | None:
        """Every event has a frame of its own."""
        return None

    def of_event(self, event: StreamEvent) -> Iterator[bytes]:
        return frames_of(event, self._take_fields_of_first())

    def of_error(self, error: TetherError) -> bytes:
        return self._take_fields_of_first() + frame_of_error(error)

    def _take_fields_of_first(self) -> bytes:
        fields, self._fields_of_first = self._fields_of_first, b""
        return fields


def frames_of(event: StreamEvent, fields: bytes = b"") -> Iterator[bytes]:
    """An event as frames.

    A long delta becomes several, so that a reader can go on from within it.

    Args:
      fields: Further fields of the first frame.
    """
    if len(event.pieces) <= MAX_TOKENS_PER_FRAME:
        yield fields + _frame_of(event)
        return
    begin = event.offset - len(event.pieces)
    for start in range(0, len(event.pieces), MAX_TOKENS_PER_FRAME):
        pieces = event.pieces[start : start + MAX_TOKENS_PER_FRAME]
        frame = _frame_of(replace(event, offset=begin + start + len(pieces), pieces=pieces))
        yield fields + frame if not start else frame


def _frame_of(event: StreamEvent) -> bytes:
    data = json_bytes(event_to_json(event))
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event_id(event.run, event.offset).encode(),
        event.kind.encode(),
        data,
    )


def frame_of_error(error: TetherError) -> bytes:
    """The event with which a stream ends before its end. It has no id: where the reader stands stays."""
    return b"event: %b\ndata: %b\n\n" % (INTERRUPTED.encode(), json_bytes(error_document(error)["error"]))
