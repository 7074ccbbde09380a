"""What a follower makes of the events of a stream, whatever Redis lost or repeats."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.core.stream_hub.archive import ArchiveThread, Ended
from tether.core.stream_hub.followed import SILENCE_SECONDS, FollowedStreams
from tether.core.stream_hub.follower import StreamFollower
from tether.errors import ClientClosed, InvalidRequest, StoreUnavailable
from tether.jobs import Piece
from tether.streams.events import MAX_OFFSET, StreamEvent, check_offset
from tether.streams.reader import StreamPosition
from tether.streams.token_log import RUN_STEP, Event, encode_pieces


class NoHub:
    """A follower needs its hub only to leave it."""

    def __init__(self):
        self.dropped = []

    def drop(self, follower):
        follower.closed = True
        self.dropped.append(follower)


def token(place, run=0):
    return Piece(place, f"{run}:{place} ")


def follower(offset=0, deliver=None):
    seen = []
    made = StreamFollower(NoHub(), "job", deliver or seen.append, StreamPosition(offset))
    made.rewind()
    return made, seen


def event(kind, end, *, run=0, n=1, data=b"{}"):
    return Event(f"{run * RUN_STEP + end}-{n}", kind, run, end, data)


def delta(begin, end, *, run=0, n=1):
    pieces = [token(place, run) for place in range(begin, end)]
    return event("delta", end, run=run, n=n, data=encode_pieces(pieces))


def offsets(seen):
    return [(found.kind, found.run, found.offset) for found in seen]


def tokens(seen):
    """The tokens that a reader holds in the end."""
    held = []
    for found in seen:
        if found.kind == "restarted":
            del held[found.offset :]
        held += found.pieces
    return held


def test_events_are_delivered_as_they_are():
    reader, seen = follower()
    events = [event("started", 0, data=b'{"attempt":1}'), delta(0, 2), event("finished", 2, data=b'{"a":1}')]
    assert all(reader.take(each) for each in events)
    assert offsets(seen) == [("started", 0, 0), ("delta", 0, 2), ("finished", 0, 2)]
    assert [dict(found.details) for found in seen] == [{"attempt": 1}, {}, {"a": 1}]
    assert tokens(seen) == [token(0), token(1)]


def test_what_overlaps_is_cut():
    reader, seen = follower()
    reader.take(delta(0, 3))
    assert reader.take(delta(1, 5))
    assert [len(found.pieces) for found in seen] == [3, 2]
    assert tokens(seen) == [token(place) for place in range(5)]


def test_what_was_delivered_before_is_not_delivered_again():
    reader, seen = follower()
    reader.take(delta(0, 3))
    assert reader.take(delta(0, 3))
    assert reader.take(delta(1, 2))
    assert len(seen) == 1
    assert reader.place.offset == 3


def test_a_reader_begins_where_it_wants_to():
    reader, seen = follower(offset=2)
    assert reader.cursor == "2-0"
    assert reader.take(delta(0, 4))
    assert tokens(seen) == [token(2), token(3)]


def test_a_gap_is_refused_and_nothing_is_delivered():
    reader, seen = follower()
    reader.take(delta(0, 2))
    assert not reader.take(delta(3, 5))
    assert (reader.place.offset, len(seen)) == (2, 1)
    reader.rewind()
    assert reader.cursor == "2-0"


def test_an_end_beyond_what_was_delivered_is_a_gap():
    reader, seen = follower()
    reader.take(delta(0, 2))
    assert not reader.take(event("finished", 3))
    assert not reader.closed
    assert len(seen) == 1


def test_a_failure_ends_a_stream_whatever_is_missing():
    reader, seen = follower()
    assert reader.take(event("failed", 3, data=b'{"state":"dead"}'))
    assert reader.closed
    assert offsets(seen) == [("failed", 0, 3)]


def test_a_restart_voids_what_came_after_its_offset():
    reader, seen = follower()
    reader.take(delta(0, 4))
    assert reader.take(event("restarted", 1, run=1))
    assert reader.take(delta(1, 3, run=1))
    assert offsets(seen)[1:] == [("restarted", 1, 1), ("delta", 1, 3)]
    assert tokens(seen) == [token(0), token(1, 1), token(2, 1)]


def test_a_restart_that_redis_lost_is_told_all_the_same():
    reader, seen = follower()
    reader.take(delta(0, 4))
    assert reader.take(delta(0, 2, run=2))
    assert offsets(seen)[1:] == [("restarted", 2, 0), ("delta", 2, 2)]
    assert tokens(seen) == [token(0, 2), token(1, 2)]


def test_what_belongs_to_an_older_run_is_left_out():
    reader, seen = follower()
    reader.take(event("restarted", 0, run=1))
    assert reader.take(delta(0, 4))
    assert reader.take(event("finished", 4))
    assert len(seen) == 1
    assert not reader.closed


def test_a_reader_that_is_closed_gets_nothing_more():
    reader, seen = follower()
    reader.take(event("finished", 0))
    reader.take(delta(0, 2))
    assert len(seen) == 1
    other, seen = follower()
    other.close()
    other.take(delta(0, 2))
    assert seen == []
    assert other.hub.dropped == [other]


def test_a_rewound_cursor_lies_before_all_events_at_the_offset():
    reader, _ = follower()
    reader.take(delta(0, 2))
    reader.take(event("restarted", 2, run=3))
    reader.take(delta(2, 7, run=3))
    reader.rewind()
    assert reader.cursor == f"{3 * RUN_STEP + 7}-0"


def ended(count, *, run=0, kind="finished"):
    pieces = tuple(token(place, run) for place in range(count))
    return Ended(run, pieces, StreamEvent(kind=kind, run=run, offset=count))


@pytest.mark.parametrize("offset", range(7))
def test_the_database_delivers_what_is_missing(offset):
    reader, seen = follower(offset=offset)
    reader.take_ended(ended(5))
    assert tokens(seen) == [token(place) for place in range(offset, 5)]
    assert seen[-1].kind == "finished"
    assert len(seen) == (2 if offset < 5 else 1)
    assert reader.closed


def test_the_database_tells_of_a_restart_that_was_missed():
    reader, seen = follower()
    reader.take(delta(0, 3))
    reader.take_ended(ended(2, run=1))
    assert offsets(seen)[1:] == [("restarted", 1, 0), ("delta", 1, 2), ("finished", 1, 2)]
    assert tokens(seen) == [token(0, 1), token(1, 1)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=20), st.integers(0, 20))
def test_tokens_are_delivered_once_and_in_order_whatever_comes(parts, offset):
    reader, seen = follower(offset=offset)
    for begin, length in parts:
        before = reader.place.offset
        taken = reader.take(delta(begin, begin + length))
        # Only what begins behind it is a gap, and a gap delivers nothing.
        assert taken == (begin <= before)
        if not taken:
            assert reader.place.offset == before
    places = [piece.token_id for found in seen for piece in found.pieces]
    assert places == list(range(offset, offset + len(places)))
    assert reader.place.offset == offset + len(places)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("tokens"), st.integers(1, 4)),
            st.tuples(st.just("restart"), st.integers(0, 10)),
            st.tuples(st.just("rewind"), st.just(0)),
        ),
        max_size=15,
    )
)
def test_a_reader_that_reads_again_holds_what_the_stream_holds(steps):
    stream, held, run = [], [], 0
    reader, seen = follower()

    def read():
        order = reader.cursor.split("-")
        for each in stream:
            first, second = each.entry_id.split("-")
            if (int(first), int(second)) > (int(order[0]), int(order[1])):
                assert reader.take(each)

    for n, (kind, number) in enumerate(steps, 1):
        if kind == "tokens":
            stream.append(delta(len(held), len(held) + number, run=run, n=n))
            held += [token(place, run) for place in range(len(held), len(held) + number)]
        elif kind == "restart":
            run += 1
            del held[number:]
            stream.append(event("restarted", len(held), run=run, n=n))
        else:
            reader.rewind()
        read()
    assert tokens(seen) == held


@pytest.mark.parametrize("offset", [-1, MAX_OFFSET + 1, 1.0, "1", None, True])
def test_an_offset_that_no_stream_can_have_is_refused(offset):
    with pytest.raises(InvalidRequest, match="offset="):
        check_offset(offset)


@pytest.mark.parametrize("offset", [0, MAX_OFFSET])
def test_every_offset_that_a_stream_can_have_is_taken(offset):
    check_offset(offset)


def test_what_is_read_again_after_a_rewind_is_not_delivered_again():
    reader, seen = follower()
    told = [event("started", 0, n=1), delta(0, 2, n=2), event("rerouted", 2, n=3), event("rerouted", 2, n=4)]
    for _ in range(2):
        assert reader.take_all(told)
        reader.rewind()
    assert offsets(seen) == [("started", 0, 0), ("delta", 0, 2), ("rerouted", 0, 2), ("rerouted", 0, 2)]


def test_a_restart_beyond_what_was_delivered_is_a_gap():
    reader, seen = follower()
    reader.take(delta(0, 2))
    assert not reader.take(event("restarted", 3, run=1))
    assert (reader.place.run, len(seen)) == (0, 1)


def test_the_database_has_the_last_word_also_where_it_knows_of_fewer_runs():
    reader, seen = follower()
    reader.take(event("restarted", 0, run=2))
    reader.take_ended(ended(3))
    assert [found.kind for found in seen] == ["restarted", "delta", "finished"]
    assert reader.closed


def test_an_error_is_the_last_that_a_reader_gets():
    reader, seen = follower()
    reader.give_up(ClientClosed("closed"))
    reader.give_up(ClientClosed("closed"))
    reader.take(delta(0, 2))
    assert [type(found) for found in seen] == [ClientClosed]


KEY = b"stream:job"


def entry(found):
    return found.entry_id.encode(), {b"e": found.kind.encode(), b"d": found.data}


class Streams:
    """Followed streams, and a clock that stands until it is moved."""

    def __init__(self):
        self.now = 0.0
        self.streams = FollowedStreams("stream:{}".format)

    def add(self, job_id="job", offset=0):
        seen = []
        made = StreamFollower(NoHub(), job_id, seen.append, StreamPosition(offset))
        made.rewind()
        self.streams.add(made)
        return made, seen

    def hand_on(self, *events, key=KEY):
        return self.streams.hand_on(key, [entry(each) for each in events], self.now)


@pytest.fixture
def streams():
    return Streams()


def test_a_stream_is_read_from_the_first_that_any_of_its_readers_needs(streams):
    streams.add(offset=5)
    assert streams.streams.cursors == {KEY: "5-0"}
    first, seen = streams.add(offset=2)
    assert streams.streams.cursors == {KEY: "2-0"}
    streams.hand_on(delta(0, 7))
    assert streams.streams.cursors == {KEY: "7-1"}
    assert tokens(seen) == [token(place) for place in range(2, 7)]
    streams.streams.remove(first)
    assert streams.streams.cursors == {KEY: "7-1"}


def test_a_stream_without_readers_is_not_read(streams):
    reader, _ = streams.add()
    other, _ = streams.add("other")
    streams.streams.remove(reader)
    streams.streams.remove(reader)
    assert list(streams.streams.cursors) == [b"stream:other"]
    assert streams.hand_on(event("finished", 0), key=b"stream:other") == [other]
    assert not streams.streams
    assert streams.streams.cursors == {}


def test_what_comes_for_readers_that_left_meanwhile_is_left_out(streams):
    reader, seen = streams.add()
    streams.streams.remove(reader)
    assert streams.hand_on(delta(0, 2)) == []
    assert seen == []


def test_a_reader_that_left_before_it_was_read_for_is_not_read_for(streams):
    made = StreamFollower(NoHub(), "job", print, StreamPosition(0), closed=True)
    streams.streams.add(made)
    assert not streams.streams


def test_a_stream_with_a_gap_is_read_again_after_a_while(streams):
    _, seen = streams.add()
    streams.hand_on(delta(3, 5))
    assert streams.streams.cursors == {}
    assert streams.streams.silent(SILENCE_SECONDS / 2) == set()
    assert streams.streams.cursors == {}
    assert streams.streams.silent(SILENCE_SECONDS) == {"job"}
    assert streams.streams.cursors == {KEY: "0-0"}
    streams.hand_on(delta(0, 5))
    assert len(tokens(seen)) == 5


def test_a_gap_for_one_reader_is_none_for_another(streams):
    streams.add()
    _, seen = streams.add(offset=3)
    streams.hand_on(delta(3, 5))
    assert streams.streams.cursors == {KEY: "5-1"}
    assert tokens(seen) == [token(3), token(4)]
    assert streams.streams.silent(SILENCE_SECONDS) == {"job"}
    assert streams.streams.cursors == {KEY: "0-0"}


@pytest.mark.parametrize(
    "bad", [(b"0-1", {}), (b"2-1", {b"e": b"delta", b"d": b"{}"}), (b"2-1", {b"e": b"delta", b"d": b"\xff"})]
)
def test_a_stream_that_cannot_be_read_leaves_the_others_alone(streams, bad):
    _, broken = streams.add()
    _, whole = streams.add("other")
    streams.streams.hand_on(KEY, [bad], 0.0)
    streams.hand_on(delta(0, 2), key=b"stream:other")
    assert (len(broken), len(tokens(whole))) == (0, 2)
    assert list(streams.streams.cursors) == [b"stream:other"]


def test_only_those_of_whom_nothing_was_heard_are_silent_and_once(streams):
    streams.add()
    streams.add("other")
    streams.now = SILENCE_SECONDS
    streams.hand_on(delta(0, 1))
    assert streams.streams.silent(SILENCE_SECONDS) == {"other"}
    assert streams.streams.silent(SILENCE_SECONDS) == set()
    assert streams.streams.silent(2 * SILENCE_SECONDS) == {"job", "other"}


def test_the_end_that_the_database_knows_ends_all_readers_of_a_job(streams):
    readers = [streams.add(offset=offset) for offset in (0, 2)]
    streams.hand_on(delta(2, 3))
    assert streams.streams.hand_on_ended("job", ended(4)) == [reader for reader, _ in readers]
    assert [len(tokens(seen)) for _, seen in readers] == [4, 2]
    assert streams.streams.cursors == {}
    assert streams.streams.hand_on_ended("job", ended(4)) == []


def test_after_an_outage_all_is_read_again_from_what_was_delivered(streams):
    streams.add()
    streams.hand_on(delta(0, 4))
    streams.streams.rewind()
    assert streams.streams.cursors == {KEY: "4-0"}


class Shelf:
    """An archive that refuses some jobs, and may be away."""

    def __init__(self, *bad):
        self.bad = set(bad)
        self.error = RuntimeError("a row that cannot be read")
        self.asked = threading.Semaphore(0)

    def ended(self, job_ids):
        self.asked.release()
        if self.bad & set(job_ids):
            raise self.error
        return {job_id: ended(1) for job_id in job_ids}


class Asking:
    def __init__(self, shelf):
        self.answered = threading.Semaphore(0)
        self.thread = ArchiveThread(shelf, on_answer=self.answered.release)

    def ask(self, *job_ids):
        self.thread.ask(job_ids)
        assert self.answered.acquire(timeout=60)
        return set(self.thread.take())

    def close(self):
        self.thread.close()
        assert "tether-stream-archive" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def open_asking():
    opened = []

    def open_one(shelf):
        opened.append(Asking(shelf))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def test_one_job_whose_end_cannot_be_read_leaves_the_others_alone(open_asking):
    asking = open_asking(Shelf("bad"))
    assert asking.ask("one", "bad", "two") == {"one", "two"}
    assert asking.ask("three") == {"three"}


def test_a_database_that_is_away_is_asked_once_for_all_and_again_when_somebody_asks(open_asking):
    shelf = Shelf("away")
    shelf.error = StoreUnavailable("away")
    asking = open_asking(shelf)
    asking.thread.ask(["one", "away"])
    assert shelf.asked.acquire(timeout=60)
    assert asking.ask("two") == {"two"}
    assert not shelf.asked.acquire(blocking=False) or not shelf.asked.acquire(blocking=False)


def test_an_archive_that_is_not_asked_needs_no_thread(open_asking):
    asking = open_asking(Shelf())
    asking.thread.ask([])
    assert "tether-stream-archive" not in {thread.name for thread in threading.enumerate()}
    asking.close()
    asking.thread.ask(["one"])


@pytest.mark.parametrize(
    "bad",
    [
        (b"1-9", {}),
        (b"1-9", {b"e": b"odd", b"d": b"{}"}),
        (b"1-9", {b"e": b"\xff"}),
        (b"1-9", {b"e": b"delta", b"d": b"[" * 100_000}),
    ],
)
def test_entries_that_cannot_be_read_are_skipped_and_named_once(streams, bad, capsys):
    follower, events = streams.add()
    for now in (0.0, 2.0, 4.0):
        streams.streams.hand_on(KEY, [bad], now)
        streams.streams.silent(now + SILENCE_SECONDS)
    assert (tokens(events), follower.cursor) == ([], "1-9")
    streams.streams.hand_on(
        KEY, [(b"2-10", {b"e": b"delta", b"d": encode_pieces([token(0), token(1)])})], 6.0
    )
    assert len(tokens(events)) == 2
    assert capsys.readouterr().out.count("A stream cannot be read") == 1


def test_what_is_no_stream_is_read_again_later(streams):
    follower, _ = streams.add()
    streams.add("other")
    streams.streams.hold_back(KEY, 0.0)
    assert list(streams.streams.cursors) == [b"stream:other"]
    streams.streams.silent(SILENCE_SECONDS)
    assert follower.waits_until == 0.0
    assert set(streams.streams.cursors) == {KEY, b"stream:other"}
