"""Server-sent events, however their bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.client.http.server_sent_events import EventParser, ServerSentEvent

TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=12)


def events(*chunks, **limits):
    parser = EventParser(**limits)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def cut(data, places):
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(bounds)]


@given(
    told=st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3), TEXT), max_size=5),
    line_ends=st.lists(st.sampled_from(["\n", "\r", "\r\n"]), min_size=1, max_size=7),
    places=st.lists(st.integers(0, 10_000), max_size=12),
    begins_with_mark=st.booleans(),
)
def test_any_cutting_and_any_line_ends_give_the_same_events(told, line_ends, places, begins_with_mark):
    lines = []
    for kind, data, name in told:
        lines += [":a comment", f"id: {name}", f"event: {kind}", *(f"data: {line}" for line in data), ""]
    text = "\ufeff" if begins_with_mark else ""
    for number, line in enumerate(lines):
        text += line + line_ends[number % len(line_ends)]
    data = text.encode()
    expected = [ServerSentEvent(kind or "message", "\n".join(rows), name) for kind, rows, name in told]
    # A carriage return and a line feed of two different lines are one line's end: then lines are lost.
    mixes = "\r" in line_ends and "\n" in line_ends
    if not mixes:
        assert events(data) == expected
    assert events(*cut(data, places)) == events(data)


@given(
    data=st.binary(max_size=60).map(lambda value: value.replace(b"\x00", b"\r\n")), place=st.integers(0, 60)
)
def test_any_bytes_give_the_same_events_or_the_same_refusal_in_two_parts(data, place):
    def outcome(*chunks):
        parser, found = EventParser(), []
        try:
            for chunk in chunks:
                found += parser.feed(chunk)
        except ValueError:
            return found, "refused"
        return found, parser.retry_ms

    assert outcome(data)[1] == outcome(data[:place], data[place:])[1]


def test_an_event_without_data_is_none():
    assert events(b"id: 4\nevent: delta\n\ndata: x\n\n") == [ServerSentEvent("message", "x", "4")]


def test_an_event_that_is_not_complete_is_not_given():
    assert events(b"data: x\n") == []


def test_a_field_needs_no_space_and_no_colon():
    assert events(b"data:x\ndata\ndata:  y\n\n") == [ServerSentEvent("message", "x\n\n y", "")]


def test_fields_that_are_not_known_are_skipped():
    assert events(b"colour: red\ndata: x\n\n") == [ServerSentEvent("message", "x", "")]


def test_a_byte_order_mark_is_skipped_once():
    assert events(b"\xef\xbb", b"\xbfdata: x\n\n") == [ServerSentEvent("message", "x", "")]
    assert events(b"data: x\n\n\xef\xbb\xbfdata: y\n\n") == [ServerSentEvent("message", "x", "")]


def test_an_id_stays_until_the_next_and_has_no_null_byte():
    found = events(b"id: 7\ndata: x\n\ndata: y\n\nid: 8\0\ndata: z\n\n")
    assert [event.last_id for event in found] == ["7", "7", "7"]


@pytest.mark.parametrize(("line", "expected"), [("1500", 1500), ("15s", None), ("-1", None), ("٣", None)])
def test_the_wait_before_coming_back_is_a_whole_number(line, expected):
    parser = EventParser()
    assert list(parser.feed(f"retry: {line}\n\n".encode())) == []
    assert parser.retry_ms == expected


def test_what_is_not_utf_8_is_refused_after_what_came_before():
    parser, found = EventParser(), []
    with pytest.raises(ValueError, match="utf-8"):
        found.extend(parser.feed(b"data: x\n\ndata: \xff\n\n"))
    assert [event.data for event in found] == ["x"]


def test_a_line_that_is_too_long_is_refused_before_its_end():
    with pytest.raises(ValueError, match="more than 20 bytes"):
        events(b"data: " + b"x" * 10, b"x" * 10, max_bytes=20)


def test_an_event_that_is_too_long_is_refused_before_its_end():
    with pytest.raises(ValueError, match="more than 20"):
        events(b"data: xxxxxxxx\n" * 3, max_bytes=20)
