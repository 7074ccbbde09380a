"""Frames between Tether and its sidecar: whole however the bytes are cut, and nothing but FrameError."""

import contextlib
import itertools
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tether.discovery.swarm.frames import (
    MAX_BATCH_BYTES,
    MAX_FRAME_BYTES,
    VERSION,
    FrameError,
    FrameReader,
    FrameType,
    SwarmMessage,
    entry_frames,
    frame,
    json_frame,
    read_entries,
    read_frame_json,
)

quick = settings(max_examples=200, deadline=None)
KINDS = st.sampled_from(FrameType)
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=300)), max_size=8)
ENTRIES = st.lists(
    st.builds(SwarmMessage, st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=400))
)


def read_all(chunks):
    reader = FrameReader()
    return [found for chunk in chunks for found in reader.push(chunk)]


@quick
@given(frames=FRAMES, cuts=st.lists(st.integers(0, 3_000)))
def test_the_frames_are_the_same_however_the_bytes_are_cut(frames, cuts):
    data = b"".join(frame(kind, payload) for kind, payload in frames)
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [data[begin:end] for begin, end in itertools.pairwise(places)]
    assert read_all(chunks) == frames


def test_the_frames_are_the_same_byte_by_byte():
    frames = [(FrameType.START, b'{"a":1}'), (FrameType.STOP, b""), (FrameType.HEARD, bytes(range(256)))]
    data = b"".join(frame(kind, payload) for kind, payload in frames)
    assert read_all(bytes([byte]) for byte in data) == frames


@quick
@given(data=st.binary(max_size=400), valid=FRAMES)
def test_arbitrary_bytes_are_frames_or_a_frame_error(data, valid):
    reader = FrameReader()
    assert list(reader.push(b"".join(frame(*one) for one in valid))) == valid
    try:
        for kind, payload in reader.push(data):
            assert isinstance(kind, FrameType)
            assert len(payload) <= len(data)
    except FrameError:
        pass


@quick
@given(data=st.binary(max_size=200))
def test_arbitrary_payloads_are_read_or_a_frame_error(data):
    for read in (read_entries, read_frame_json):
        with contextlib.suppress(FrameError):
            read(data)


@pytest.mark.parametrize("length", [0, 1, MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_a_frame_that_is_too_long_or_too_short_is_refused_before_it_is_there(length):
    with pytest.raises(FrameError, match="not allowed"):
        read_all([struct.pack(">IBB", length, VERSION, FrameType.STOP)])


def test_a_frame_of_another_version_or_of_no_known_type_is_refused():
    with pytest.raises(FrameError, match="version"):
        read_all([struct.pack(">IBB", 2, VERSION + 1, FrameType.STOP)])
    with pytest.raises(FrameError, match="type"):
        read_all([struct.pack(">IBB", 2, VERSION, 77)])


@quick
@given(entries=ENTRIES)
def test_entries_come_back_as_they_were(entries):
    frames = read_all(entry_frames(FrameType.SEND, entries))
    assert [kind for kind, _ in frames] == [FrameType.SEND] * len(frames)
    assert [entry for _, payload in frames for entry in read_entries(payload)] == entries


def test_many_entries_make_several_frames_of_a_size_that_is_allowed():
    entries = [SwarmMessage(1, 0, bytes(16_384))] * 40
    frames = read_all(entry_frames(FrameType.SEND, entries))
    assert len(frames) == 10
    assert max(len(payload) for _, payload in frames) < MAX_BATCH_BYTES + 2 * 16_384


def test_an_age_is_milliseconds_that_fit():
    entries = [SwarmMessage(1, -5, b""), SwarmMessage(1, 2**40, b"")]
    ((_, payload),) = read_all(entry_frames(FrameType.SEND, entries))
    assert [entry.age for entry in read_entries(payload)] == [0, 2**32 - 1]


@quick
@given(
    entry=st.builds(SwarmMessage, st.integers(0, 9), st.integers(0, 9), st.binary(min_size=1, max_size=50)),
    data=st.data(),
)
def test_an_entry_that_is_cut_off_is_refused(entry, data):
    ((_, payload),) = read_all(entry_frames(FrameType.SEND, [entry]))
    size = data.draw(st.integers(1, len(payload) - 1))
    with pytest.raises(FrameError, match="cut off"):
        read_entries(payload[:size])


def test_a_frame_s_text_is_a_json_object():
    ((kind, payload),) = read_all([json_frame(FrameType.STATUS, {"a": "ä"})])
    assert (kind, read_frame_json(payload)) == (FrameType.STATUS, {"a": "ä"})
    for wrong in (b"[]", b"7", b"", b"{", b"\xff", json.dumps("text").encode(), b"[" * 100_000):
        with pytest.raises(FrameError):
            read_frame_json(wrong)
