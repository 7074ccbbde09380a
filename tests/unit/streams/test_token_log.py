import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.jobs import Piece
from tether.streams.events import StreamEvent
from tether.streams.pieces import pieces_from_json, pieces_to_json, public_pieces
from tether.streams.token_log import (
    RUN_STEP,
    Event,
    decode_pieces,
    encode_pieces,
    read_events,
    readable_pieces,
)

PIECES = st.lists(
    st.builds(Piece, st.integers(0, 2**31), st.text(st.characters(exclude_categories=()), max_size=5)),
    max_size=6,
).map(tuple)


def delta(pieces, end, run=0, n=1):
    return Event(f"{run * RUN_STEP + end}-{n}", "delta", run, end, encode_pieces(pieces))


def entry(event):
    return event.entry_id.encode(), {b"e": event.kind.encode(), b"d": event.data}


@given(PIECES)
def test_tokens_survive_their_encoding(pieces):
    assert decode_pieces(encode_pieces(pieces)) == pieces


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"t":[1]}',
        b'{"t":[1],"s":[]}',
        b'{"t":["1"],"s":["x"]}',
        b'{"t":[1],"s":[2]}',
        b'{"t":1,"s":2}',
        b"\xff",
    ],
)
def test_what_holds_no_tokens_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        decode_pieces(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_tokens_or_refused(data):
    try:
        pieces = decode_pieces(data)
    except ValueError:
        return
    assert all(isinstance(piece.text, str) for piece in pieces)


@given(st.integers(0, 2**20), st.integers(0, 2**31), st.integers(1, 10**6))
def test_an_entrys_id_tells_run_and_offset(run, offset, n):
    event_id = f"{run * RUN_STEP + offset}-{n}".encode()
    (event,) = read_events([(event_id, {b"e": b"started", b"d": b"{}"})])
    assert (event.run, event.offset, event.kind, event.entry_id) == (
        run,
        offset,
        "started",
        event_id.decode(),
    )


def test_an_entry_without_data_has_none():
    (event,) = read_events([(b"0-1", {b"e": b"started"})])
    assert (event.data, event.details()) == (b"", {})


@pytest.mark.parametrize(
    ("data", "details"), [(b'{"a":1}', {"a": 1}), (b"", {}), (b"{", {}), (b"[1]", {}), (b"null", {})]
)
def test_details_that_cannot_be_read_say_nothing(data, details):
    assert Event("0-1", "started", 0, 0, data).details() == details


@pytest.mark.parametrize(
    ("kind", "is_last"),
    [("finished", True), ("failed", True), ("started", False), ("delta", False), ("restarted", False)],
)
def test_a_stream_ends_with_finished_or_failed(kind, is_last):
    assert Event("0-1", kind, 0, 0, b"").is_last is is_last


@given(st.lists(PIECES, max_size=5), st.lists(PIECES, max_size=5))
def test_the_tokens_of_one_run_are_read_in_order(older, newer):
    entries, expected = [], ()
    for run, batches in enumerate((older, newer)):
        end = 0
        for pieces in batches:
            end += len(pieces)
            entries.append(entry(delta(pieces, end, run)))
            entries.append(entry(Event(f"{run * RUN_STEP + end}-9", "started", run, end, b"{}")))
            if run == 1:
                expected += pieces
    assert readable_pieces(entries, 1) == expected


def numbered(begin, end):
    return tuple(Piece(number, f"{number} ") for number in range(begin, end))


def deltas(*bounds, run=0):
    return [entry(delta(numbered(begin, end), end, run)) for begin, end in bounds]


def restarted(run, offset):
    return entry(Event(f"{run * RUN_STEP + offset}-1", "restarted", run, offset, b"{}"))


BROKEN = entry(Event("4-2", "delta", 0, 4, b"no tokens"))
FOREIGN = (b"4-2", {b"x": b"y"})


@pytest.mark.parametrize(
    ("entries", "run", "expected"),
    [
        ([], 0, 0),
        (deltas((0, 2), (2, 5)), 0, 5),
        (deltas((2, 5)), 0, 0),
        (deltas((0, 2), (3, 5), (5, 6)), 0, 2),
        (deltas((0, 3), (2, 5)), 0, 5),
        ([*deltas((0, 2)), BROKEN, *deltas((4, 5))], 0, 2),
        ([*deltas((0, 2)), FOREIGN, *deltas((2, 5))], 0, 2),
        ([*deltas((0, 9)), restarted(1, 0), *deltas((0, 3), run=1)], 1, 3),
        ([*deltas((0, 9)), restarted(1, 4), *deltas((4, 6), run=1)], 1, 6),
        ([*deltas((0, 2)), restarted(1, 4), *deltas((4, 6), run=1)], 1, 2),
        ([*deltas((4, 9)), restarted(1, 0), *deltas((0, 3), run=1)], 1, 3),
        ([*deltas((0, 9)), *deltas((0, 3), run=1)], 1, 3),
        (deltas((0, 9)), 1, 0),
        ([*deltas((0, 2)), restarted(1, 0), *deltas((0, 3), run=1)], 0, 2),
    ],
)
def test_of_a_damaged_stream_the_tokens_are_read_that_stand_at_their_offsets(entries, run, expected):
    assert readable_pieces(entries, run) == numbered(0, expected)


@given(PIECES)
def test_an_entry_tells_its_event(pieces):
    event = delta(pieces, 9, 2)
    assert event.told() == StreamEvent(kind="delta", run=2, offset=9, pieces=pieces)
    started = Event("0-1", "started", 0, 0, b'{"attempt":1}')
    assert started.told() == StreamEvent(kind="started", details={"attempt": 1})


def test_a_delta_without_tokens_that_can_be_read_tells_nothing():
    with pytest.raises(ValueError, match="not a valid token entry"):
        Event("1-1", "delta", 0, 1, b"{}").told()


@pytest.mark.parametrize(
    "value",
    [{"t": [7], "s": ["x"]}, {"ids": [7], "texts": ["x"], "run": 0}, {"token_ids": [7], "texts": ["x"]}],
)
def test_tokens_are_read_in_every_spelling_that_was_ever_kept(value):
    assert pieces_from_json(value) == (Piece(7, "x"),)
    assert decode_pieces(json.dumps(value).encode()) == (Piece(7, "x"),)


@given(PIECES)
def test_the_spelling_for_clients_can_be_kept_too(pieces):
    assert pieces_from_json(public_pieces(pieces)) == pieces_from_json(pieces_to_json(pieces)) == pieces


def test_the_data_is_json_that_others_can_read():
    value = json.loads(encode_pieces((Piece(1, "é"), Piece(2, ""))))
    assert value == {"t": [1, 2], "s": ["é", ""]}
