"""Events of a job's stream: their JSON, ids and receivers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tether.errors import InvalidRequest, TetherError
from tether.jobs import JobError, JobState, Piece
from tether.streams.pieces import public_pieces

MAX_OFFSET = 2**32 - 1
"""Greatest token offset that a stream can have."""

EVENT_KINDS = frozenset({"started", "delta", "rerouted", "restarted", "finished", "failed"})

INTERRUPTED = "interrupted"
"""The event with which a gateway cuts a stream off. It has no id."""


@dataclass(frozen=True, kw_only=True)
class StreamEvent:
    """An event of a job's stream.

    Attributes:
      kind: ``started``, ``delta``, ``rerouted`` (another worker continues), ``restarted`` (what came after
        ``offset`` is void, and is generated again), ``finished`` or ``failed``.
      run: Number of restarts so far.
      offset: Number of tokens generated so far.
      pieces: The tokens of a ``delta``.
      details: More, by name: of ``finished`` its ``reason`` and ``input_tokens``, of ``failed`` its ``state``
        and ``code``.
    """

    kind: str
    run: int = 0
    offset: int = 0
    pieces: tuple[Piece, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def is_last(self) -> bool:
        return self.kind in ("finished", "failed")


Deliver = Callable[[StreamEvent | TetherError], None]
"""Receives the events of a stream; or, as the last, the error that ended it."""


class StreamSubscription(Protocol):
    """A reader of one stream; :meth:`close` ends it."""

    def close(self) -> None: ...


def check_offset(offset: object) -> None:
    """Check that a stream can be followed from this offset.

    Raises:
      InvalidRequest: It is not a number of tokens.
    """
    if type(offset) is not int or not 0 <= offset <= MAX_OFFSET:
        raise InvalidRequest(
            f"offset={repr(offset)[:100]} is invalid: offset must be an integer from 0 to {MAX_OFFSET}"
        )


def failure_details(state: JobState, error: JobError | None) -> dict[str, Any]:
    """Return what the last event of a job says that has no result, whoever writes it and whenever.

    Who asked for its end knows why it ended: of such a job the state says all.
    """
    details = {"state": state.value, "code": state.value}
    if error is not None and state not in (JobState.CANCELLED, JobState.EXPIRED):
        details |= {"code": error.code, **({"message": error.message} if error.message else {})}
    return details


def event_id(run: int, offset: int) -> str:
    """Return the id of an event in a stream of server-sent events: its offset."""
    return f"{run}.{offset}" if run else str(offset)


def position_of(text: str) -> tuple[int, int]:
    """Return the run and offset of an event's id.

    Raises:
      ValueError: It is not an id.
    """
    run, dot, offset = text.rpartition(".")
    if not (offset.isascii() and offset.isdigit()) or (dot and not (run.isascii() and run.isdigit())):
        raise ValueError(f"{text[:100]!r} is not an event id")
    return int(run or 0), int(offset)


def event_to_json(event: StreamEvent) -> dict[str, Any]:
    """Return the data of an event, besides its kind and id: a delta's tokens, or details."""
    data: dict[str, Any] = {"run": event.run, "offset": event.offset}
    if event.kind == "delta":
        return data | public_pieces(event.pieces)
    return {**event.details, **data}


def event_from_json(kind: str, value: Mapping[str, Any]) -> StreamEvent:
    """Return the event of this kind with this data.

    Raises:
      KeyError, TypeError, ValueError: The data is not that of this kind.
    """
    run, offset = int(value["run"]), int(value["offset"])
    if kind == "delta":
        pieces = tuple(map(Piece, value["token_ids"], value["texts"]))
        return StreamEvent(kind=kind, run=run, offset=offset, pieces=pieces)
    details = {name: one for name, one in value.items() if name not in ("run", "offset")}
    return StreamEvent(kind=kind, run=run, offset=offset, details=details)
