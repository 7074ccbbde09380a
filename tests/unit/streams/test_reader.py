"""What a reader is given of a stream that is read again and again."""

from hypothesis import given
from hypothesis import strategies as st

from tether.jobs import Piece
from tether.streams.events import StreamEvent
from tether.streams.reader import StreamPosition, take


def delta(begin, end, run=0):
    pieces = tuple(Piece(place, f"{run}:{place} ") for place in range(begin, end))
    return StreamEvent(kind="delta", run=run, offset=end, pieces=pieces)


@st.composite
def whole_streams(draw):
    """A job's events, and the tokens that stand in the end."""
    events, tokens, run, offset = [StreamEvent(kind="started")], [], 0, 0
    for kind in draw(st.lists(st.sampled_from(["delta", "delta", "rerouted", "restarted"]), max_size=12)):
        if kind == "delta":
            event = delta(offset, offset + draw(st.integers(1, 4)), run)
            tokens += event.pieces
        elif kind == "restarted":
            run += 1
            event = StreamEvent(kind=kind, run=run, offset=draw(st.integers(0, offset)))
            del tokens[event.offset :]
        else:
            event = StreamEvent(kind=kind, run=run, offset=offset, details={"number": len(events)})
        offset = event.offset
        events.append(event)
    events.append(StreamEvent(kind="finished", run=run, offset=offset))
    return events, tokens


@given(
    whole=whole_streams(),
    connections=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8),
)
def test_breaks_and_repeats_are_not_seen(whole, connections):
    events, tokens = whole
    place, given_out = StreamPosition(0), []
    for back, length in [*connections, (0, len(events))]:
        # A connection begins at the latest with all that is told of where the reader stands.
        latest = sum((event.run, event.offset) < (place.run, place.offset) for event in events)
        begin = max(latest - back, 0)
        for event in events[begin : begin + back + length]:
            step = take(place, event)
            assert not step.lacks_tokens
            place = step.place
            given_out += step.events
            if event.is_last:
                break
        if given_out and given_out[-1].is_last:
            break
    assert given_out == events
    held = []
    for event in given_out:
        if event.kind == "restarted":
            del held[event.offset :]
        held += event.pieces
    assert held == tokens


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_delta_is_cut_to_what_is_new_or_lacks_what_came_before(stands, begin, size):
    step = take(StreamPosition(stands), delta(begin, begin + size))
    end = begin + size
    if begin > stands:
        assert step.lacks_tokens
        assert step.place.offset == stands
    elif end > stands:
        assert step.events == (delta(stands, end),)
        assert step.place.offset == end
    else:
        assert step.events == ()
        assert step.place.offset == stands
