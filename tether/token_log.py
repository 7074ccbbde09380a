"""The data of a stream's events, in JSON: what a worker writes and every reader of a stream reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tether.jobs import Piece

RUN_STEP = 2**32
"""The first half of an entry's id is ``run * RUN_STEP + end offset``."""


@dataclass(frozen=True)
class Event:
    """One entry of a job's stream.

    Attributes:
      entry_id: Its id in Redis.
      kind: ``started``, ``delta``, ``rerouted``, ``restarted``, ``finished`` or ``failed``.
      run: The stream's run that it belongs to.
      offset: Where it ends: tokens of that run until then.
      data: The tokens of a ``delta``; what the others have to say.
    """

    entry_id: str
    kind: str
    run: int
    offset: int
    data: bytes

    @property
    def is_last(self) -> bool:
        return self.kind in ("finished", "failed")

    def details(self) -> dict[str, Any]:
        """What the event says, where it is no delta. Data that cannot be read says nothing."""
        try:
            found = json.loads(self.data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """Tokens as the data of a delta."""
    value = {"t": [piece.token_id for piece in pieces], "s": [piece.text for piece in pieces]}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def decode_pieces(data: bytes) -> tuple[Piece, ...]:
    """Tokens from the data of a delta.

    Raises:
      ValueError: It is not such data.
    """
    value = json.loads(data.decode("utf-8", "surrogatepass"))
    try:
        pairs = list(zip(value["t"], value["s"], strict=True))
    except (TypeError, KeyError) as error:
        raise ValueError("these are no tokens of a stream") from error
    if not all(isinstance(token_id, int) and isinstance(text, str) for token_id, text in pairs):
        raise ValueError("these are no tokens of a stream")
    return tuple(Piece(token_id, text) for token_id, text in pairs)


def read_events(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
    """A stream's entries as Redis answers them."""
    events = []
    for entry_id, fields in entries:
        position = int(entry_id.partition(b"-")[0])
        run, offset = divmod(position, RUN_STEP)
        events.append(Event(entry_id.decode(), fields[b"e"].decode(), run, offset, fields.get(b"d", b"")))
    return events


def read_pieces(entries: Iterable[tuple[bytes, dict[bytes, bytes]]], run: int) -> tuple[Piece, ...]:
    """All tokens of one run of a stream, in order."""
    return tuple(
        piece
        for event in read_events(entries)
        if event.kind == "delta" and event.run == run
        for piece in decode_pieces(event.data)
    )


def readable_pieces(entries: Iterable[tuple[bytes, dict[bytes, bytes]]], run: int) -> tuple[Piece, ...]:
    """Like :func:`read_pieces`, up to the first entry that is no delta of a worker of ours."""
    found: list[Piece] = []
    for entry in entries:
        try:
            found += read_pieces([entry], run)
        except (KeyError, ValueError, RecursionError):
            break
    return tuple(found)


def new_part(event: Event, offset: int) -> tuple[Piece, ...]:
    """The tokens of a delta that lie behind ``offset``: what a reader that stands there has not seen."""
    pieces = decode_pieces(event.data)
    begin = event.offset - len(pieces)
    return pieces[max(0, offset - begin) :]
