"""The position of a reader of a stream, and the part of an event that is new to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tether.streams.events import StreamEvent, event_from_json

_Said = tuple[str, int, str]


class StreamPosition(NamedTuple):
    """The position of a reader: ``offset`` tokens of a run were delivered.

    Attributes:
      is_reached: Whether anything was delivered at all: until then it is the requested start.
      said: Events other than deltas that were delivered of this run since this offset.
    """

    offset: int
    run: int = 0
    is_reached: bool = False
    said: frozenset[_Said] = frozenset()


class Advance(NamedTuple):
    """The effect of an event: what to deliver to the reader, and its new position.

    Attributes:
      lacks_tokens: Whether tokens before the event are missing: the stream must be read again from the
        reader's position.
    """

    place: StreamPosition
    events: tuple[StreamEvent, ...] = ()
    lacks_tokens: bool = False


def take(place: StreamPosition, event: StreamEvent, identity: str | None = None) -> Advance:
    """Return the part of an event that is new to a reader.

    A stream that is read again repeats its events: each token and each event is delivered exactly once.
    Nothing of an older run is.

    Args:
      identity: Distinguishes the event from others of its kind at its offset, such as its entry's id; by
        default its details.
    """
    if event.run < place.run:
        return Advance(place)
    if event.run > place.run:
        return _take_newer(place, event, identity)
    if event.kind == "delta":
        return _take_delta(place, event)
    if event.kind in ("finished", "restarted") and event.offset > place.offset:
        return Advance(place, lacks_tokens=True)
    said = _said(event, identity)
    if said in place.said or (event.offset < place.offset and not event.is_last):
        return Advance(place)
    return Advance(place._replace(is_reached=True, said=place.said | {said}), (event,))


def _take_newer(place: StreamPosition, event: StreamEvent, identity: str | None) -> Advance:
    if event.kind == "restarted":
        if event.offset > place.offset:
            return Advance(place, lacks_tokens=True)
        said = frozenset({_said(event, identity)})
        return Advance(StreamPosition(event.offset, event.run, True, said), (event,))
    # What told of the restart was lost: what stands of the runs before is not known.
    restarted = StreamEvent(kind="restarted", run=event.run, offset=0)
    begun = take(place, restarted)
    rest = take(begun.place, event, identity)
    return rest._replace(events=begun.events + rest.events)


def _take_delta(place: StreamPosition, event: StreamEvent) -> Advance:
    begin = event.offset - len(event.pieces)
    if begin > place.offset:
        return Advance(place, lacks_tokens=True)
    if event.offset <= place.offset:
        return Advance(place)
    if begin < place.offset:
        event = replace(event, pieces=event.pieces[place.offset - begin :])
    said = frozenset(one for one in place.said if one[1] >= event.offset) if place.said else place.said
    return Advance(StreamPosition(event.offset, place.run, True, said), (event,))


def _said(event: StreamEvent, identity: str | None) -> _Said:
    if identity is None:
        identity = json.dumps(dict(event.details), sort_keys=True)
    return event.kind, event.offset, identity


def read_event(kind: str, data: str) -> StreamEvent:
    """The event of this kind with this data.

    Raises:
      ValueError: It is no such data.
    """
    try:
        value = read_event_json(data)
        event = event_from_json(kind, value)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the data of a {kind} event cannot be parsed ({type(error).__name__})") from None
    if event.run < 0 or event.offset < 0 or (kind == "delta" and not _are_tokens(value, event)):
        raise ValueError(f"the data of a {kind} event are inconsistent")
    return event


def read_event_json(data: str) -> Any:
    """The value that an event's data hold.

    Raises:
      ValueError: They are no JSON.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("the data of an event are nested too deep") from None


def _are_tokens(value: Mapping[str, Any], event: StreamEvent) -> bool:
    return (
        len(value["token_ids"]) == len(value["texts"]) == len(event.pieces) <= event.offset
        and all(type(piece.token_id) is int for piece in event.pieces)
        and all(isinstance(piece.text, str) for piece in event.pieces)
    )
