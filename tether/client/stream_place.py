"""Where a reader of a stream stands, and what of an event is new to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tether.client.backend import StreamEvent
from tether.client.documents import event_from_json

KINDS = frozenset({"started", "delta", "rerouted", "restarted", "finished", "failed"})

_Said = tuple[str, int, str]


@dataclass(frozen=True)
class Place:
    """What a reader was given: ``offset`` tokens of a run.

    Attributes:
      is_reached: Whether anything was given at all: until then the reader stands where it wished to begin.
      said: What else than tokens it was told of this run, from this offset on.
    """

    offset: int
    run: int = 0
    is_reached: bool = False
    said: frozenset[_Said] = frozenset()


@dataclass(frozen=True)
class Step:
    """What an event comes to: what to give to the reader, and where it stands then.

    Attributes:
      lacks_tokens: Whether there are tokens before the event that did not come: the stream must be read again
        from where the reader stands.
    """

    place: Place
    events: tuple[StreamEvent, ...] = ()
    lacks_tokens: bool = False


def take(place: Place, event: StreamEvent) -> Step:
    """What is new in an event.

    A stream that is read again tells again what was told: each token and each event is given once. Of an
    older run nothing is.
    """
    if event.run < place.run:
        return Step(place)
    if event.run > place.run:
        return _take_newer(place, event)
    if event.kind == "delta":
        return _take_delta(place, event)
    if event.kind in ("finished", "restarted") and event.offset > place.offset:
        return Step(place, lacks_tokens=True)
    said = (event.kind, event.offset, json.dumps(dict(event.details), sort_keys=True))
    if said in place.said or (event.offset < place.offset and not event.is_last):
        return Step(place)
    return Step(replace(place, is_reached=True, said=place.said | {said}), (event,))


def _take_newer(place: Place, event: StreamEvent) -> Step:
    if event.kind == "restarted":
        if event.offset > place.offset:
            return Step(place, lacks_tokens=True)
        said = (event.kind, event.offset, json.dumps(dict(event.details), sort_keys=True))
        return Step(Place(event.offset, event.run, True, frozenset({said})), (event,))
    # What told of the restart was lost: what stands of the runs before is not known.
    restarted = StreamEvent(kind="restarted", run=event.run, offset=0)
    begun = take(place, restarted)
    rest = take(begun.place, event)
    return replace(rest, events=begun.events + rest.events)


def _take_delta(place: Place, event: StreamEvent) -> Step:
    begin = event.offset - len(event.pieces)
    if begin > place.offset:
        return Step(place, lacks_tokens=True)
    if event.offset <= place.offset:
        return Step(place)
    new = replace(event, pieces=event.pieces[place.offset - begin :])
    said = frozenset(one for one in place.said if one[1] >= event.offset)
    return Step(Place(event.offset, place.run, True, said), (new,))


def read_event(kind: str, data: str) -> StreamEvent:
    """The event of this kind with this data.

    Raises:
      ValueError: It is no such data.
    """
    try:
        value = read_json(data)
        event = event_from_json(kind, value)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the data of a {kind} event are not understood ({type(error).__name__})") from None
    if event.run < 0 or event.offset < 0 or (kind == "delta" and not _are_tokens(value, event)):
        raise ValueError(f"the data of a {kind} event contradict themselves")
    return event


def read_json(data: str) -> Any:
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
