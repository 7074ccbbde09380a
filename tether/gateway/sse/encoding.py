"""A job's events as the bytes of a stream of server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from tether.client.documents import error_to_json, json_bytes
from tether.errors import TetherError
from tether.streams.events import INTERRUPTED, StreamEvent, event_id, event_to_json

RECONNECT_MS = 1_000
"""After so long a reader comes back whose connection broke."""

MAX_TOKENS_PER_FRAME = 512

FIRST_FRAME = f"retry: {RECONNECT_MS}\n\n".encode()
KEEPALIVE_FRAME = b": still here\n\n"


class EventEncoder(Protocol):
    """How events are written for one reader.

    Attributes:
      first: What is sent before any event.
    """

    @property
    def first(self) -> bytes: ...

    def unfit(self, event: StreamEvent) -> TetherError | None:
        """Why the stream ends before its end where this event comes; None where it goes on."""

    def of_event(self, event: StreamEvent) -> Iterator[bytes]:
        """An event as frames. What it means for later ones holds as soon as this returns."""

    def of_error(self, error: TetherError) -> bytes:
        """The frame with which the stream ends before its end."""


class JobEventEncoder:
    """Writes all that happens to a job."""

    first = FIRST_FRAME

    def unfit(self, event: StreamEvent) -> TetherError | None:
        """Every event has a frame of its own."""
        return None

    def of_event(self, event: StreamEvent) -> Iterator[bytes]:
        return frames_of(event)

    def of_error(self, error: TetherError) -> bytes:
        return frame_of_error(error)


def frames_of(event: StreamEvent) -> Iterator[bytes]:
    """An event as frames.

    A long delta becomes several, so that a reader can go on from within it.
    """
    if len(event.pieces) <= MAX_TOKENS_PER_FRAME:
        yield _frame_of(event)
        return
    begin = event.offset - len(event.pieces)
    for start in range(0, len(event.pieces), MAX_TOKENS_PER_FRAME):
        pieces = event.pieces[start : start + MAX_TOKENS_PER_FRAME]
        yield _frame_of(replace(event, offset=begin + start + len(pieces), pieces=pieces))


def _frame_of(event: StreamEvent) -> bytes:
    data = json_bytes(event_to_json(event))
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event_id(event.run, event.offset).encode(),
        event.kind.encode(),
        data,
    )


def frame_of_error(error: TetherError) -> bytes:
    """The event with which a stream ends before its end. It has no id: where the reader stands stays."""
    return b"event: %b\ndata: %b\n\n" % (INTERRUPTED.encode(), json_bytes(error_to_json(error)["error"]))
