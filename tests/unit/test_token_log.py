import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.jobs import Piece
from tether.token_log import (
    RUN_STEP,
    Event,
    decode_pieces,
    encode_pieces,
    new_part,
    read_events,
    read_pieces,
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
    assert read_pieces(entries, 1) == expected


@given(PIECES, st.integers(0, 50), st.integers(0, 60))
def test_a_reader_gets_of_a_delta_what_lies_behind_it(pieces, begin, offset):
    part = new_part(delta(pieces, begin + len(pieces)), offset)
    assert part == tuple(piece for place, piece in enumerate(pieces, begin) if place >= offset)


def test_the_data_is_json_that_others_can_read():
    value = json.loads(encode_pieces((Piece(1, "é"), Piece(2, ""))))
    assert value == {"t": [1, 2], "s": ["é", ""]}
