"""The data of a stream's events, in JSON: what a worker writes and every reader of a stream reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tether.jobs import Piece
from tether.streams.events import EVENT_KINDS, StreamEvent
from tether.streams.pieces import pieces_from_json, pieces_to_json

RUN_STEP = 2**32
"""The first half of an entry's id is ``run * RUN_STEP + end offset``."""


class StreamedTokens(NamedTuple):
    """The tokens of the newest run of a stream."""

    run: int = 0
    pieces: tuple[Piece, ...] = ()


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

    def told(self) -> StreamEvent:
        """What it says: read once, however many follow the stream.

        Raises:
          ValueError: It is a delta whose data hold no tokens.
        """
        event: StreamEvent | None = self.__dict__.get("_event")
        if event is None:
            # Beside the fields, as functools.cached_property does, but without its lock.
            event = self.__dict__["_event"] = self._read()
        return event

    def _read(self) -> StreamEvent:
        if self.kind == "delta":
            pieces = decode_pieces(self.data)
            return StreamEvent(kind=self.kind, run=self.run, offset=self.offset, pieces=pieces)
        details = self.details()
        return StreamEvent(kind=self.kind, run=self.run, offset=self.offset, details=details)

    def details(self) -> dict[str, Any]:
        """What the event says, where it is no delta. Data that cannot be read says nothing."""
        try:
            details = json.loads(self.data)
        except (ValueError, RecursionError):
            return {}
        return details if isinstance(details, dict) else {}


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """Tokens as the data of a delta."""
    value = pieces_to_json(pieces)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def decode_pieces(data: bytes) -> tuple[Piece, ...]:
    """Tokens from the data of a delta.

    Raises:
      ValueError: It is not such data.
    """
    try:
        return pieces_from_json(json.loads(data.decode("utf-8", "surrogatepass")))
    except RecursionError:
        raise ValueError("the tokens of a delta are nested too deep") from None


def read_events(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
    """A stream's entries as Redis answers them.

    Raises:
      KeyError, ValueError: One is none of ours.
    """
    return [_event(entry_id, fields) for entry_id, fields in entries]


def readable_events(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> tuple[list[Event], list[str]]:
    """Like :func:`read_events`, without those that are none of ours or hold what nobody can read; and their
    ids."""
    events, unreadable = [], []
    for entry_id, fields in entries:
        try:
            event = _event(entry_id, fields)
            event.told()
        except (KeyError, ValueError):
            unreadable.append(entry_id.decode(errors="replace"))
        else:
            events.append(event)
    return events, unreadable


def _event(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    position = int(entry_id.partition(b"-")[0])
    run, offset = divmod(position, RUN_STEP)
    kind = fields[b"e"].decode()
    if kind not in EVENT_KINDS:
        raise ValueError(f"{kind[:100]!r} is not a kind of event")
    return Event(entry_id.decode(), kind, run, offset, fields.get(b"d", b""))


def readable_pieces(entries: Iterable[tuple[bytes, dict[bytes, bytes]]], run: int) -> tuple[Piece, ...]:
    """The tokens as of a run, up to the first that is missing or cannot be read: each at its offset."""
    pieces: list[Piece] = []
    reached, is_whole = 0, True
    for entry_id, fields in entries:
        try:
            event = _event(entry_id, fields)
            if event.run > run:
                break
            if event.run > reached and event.kind != "restarted":
                # What told of the restart is lost.
                pieces.clear()
            if event.kind == "restarted":
                is_whole = event.offset <= len(pieces)
                del pieces[event.offset :]
            elif event.run > reached:
                is_whole = True
            reached = event.run
            if event.kind == "delta" and is_whole:
                new = decode_pieces(event.data)
                begin = event.offset - len(new)
                is_whole = 0 <= begin <= len(pieces)
                if is_whole:
                    pieces += new[len(pieces) - begin :]
        except (KeyError, ValueError):
            is_whole = False
    return tuple(pieces) if reached == run else ()


def streamed_tokens(entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> StreamedTokens:
    """What a stream's newest run holds, up to the first entry that cannot be read."""
    if not entries:
        return StreamedTokens()
    # Redis orders entries by their ids, which begin with the run.
    run = int(entries[-1][0].partition(b"-")[0]) // RUN_STEP
    return StreamedTokens(run, readable_pieces(entries, run))
