"""Streams that readers have open: what they are sent, and when they are cut off."""

import asyncio
import json
import threading

import pytest

from tether.errors import ClientClosed, GatewayStopping, StoreUnavailable, TooManyRequests
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.sse import open_streams
from tether.gateway.sse.encoding import MAX_TOKENS_PER_FRAME, RECONNECT_MS, frames_of
from tether.gateway.sse.open_streams import OpenStreams
from tether.jobs import Piece
from tether.streams.events import StreamEvent

CALLER = Caller("default", "key_1", frozenset({Scope.READ}))
OTHER = Caller("other", "key_2", frozenset({Scope.READ}))


class Reader:
    """Reads a stream as a connection would; it can be stopped and let go."""

    def __init__(self, streams, stream):
        self.stream = stream
        self.sent = b""
        self.takes = asyncio.Event()
        self.takes.set()
        self.task = asyncio.create_task(self._read(streams))

    async def _read(self, streams):
        await self.stream.send_all(self._send)
        streams.close(self.stream)

    async def _send(self, chunk):
        await self.takes.wait()
        self.sent += chunk

    def events(self):
        """What arrived, as (id, kind, data)."""
        found = []
        for block in self.sent.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "event" in fields:
                found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
        return found


class Subscription:
    def __init__(self):
        self.is_closed = False

    def close(self):
        self.is_closed = True


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def delta(offset, count=1, text="word "):
    pieces = tuple(Piece(n, text) for n in range(count))
    return StreamEvent(kind="delta", offset=offset, pieces=pieces)


def finished(offset):
    return StreamEvent(kind="finished", offset=offset, details={"reason": "stop", "input_tokens": 1})


async def settled():
    """All that can run now has run."""
    for _ in range(10):
        await asyncio.sleep(0)


def on_loop(test):
    """The test runs on a loop, with streams and their time."""

    def run():
        async def body():
            time = Time()
            streams = OpenStreams(max_per_tenant=2, buffer_bytes=2_000, keepalive_seconds=15, clock=time)
            await test(streams, time)
            assert len(streams) == 0 or pytest.fail("a stream was left open")

        asyncio.run(body())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@on_loop
async def test_a_reader_gets_every_event_with_its_place_and_then_the_end(streams, time):
    reader = Reader(streams, streams.open("job", CALLER))
    thread = threading.Thread(
        target=lambda: [reader.stream.deliver(e) for e in (delta(1), delta(3, 2), finished(3))]
    )
    thread.start()
    await reader.task
    thread.join()
    assert reader.sent.startswith(b"retry: 1000\nid: 1\nevent: delta\n")
    assert [(place, kind) for place, kind, _ in reader.events()] == [
        ("1", "delta"),
        ("3", "delta"),
        ("3", "finished"),
    ]
    assert reader.events()[1][2] == {
        "run": 0,
        "offset": 3,
        "token_ids": [0, 1],
        "texts": ["word ", "word "],
    }


def test_a_long_delta_becomes_several_from_each_of_which_a_reader_can_go_on():
    count = 2 * MAX_TOKENS_PER_FRAME + 7
    frames = b"".join(frames_of(delta(count + 5, count))).decode()
    ids = [int(line[4:]) for line in frames.split("\n") if line.startswith("id: ")]
    assert ids == [MAX_TOKENS_PER_FRAME + 5, 2 * MAX_TOKENS_PER_FRAME + 5, count + 5]
    tokens = [
        n for line in frames.split("\n") if line.startswith("data") for n in json.loads(line[6:])["token_ids"]
    ]
    assert tokens == list(range(count))


@pytest.mark.parametrize("text", ["\n\n", "\r", "data: x", "\ud800", "\0", "\u2028é"])
def test_no_text_breaks_a_frame(text):
    (frame,) = frames_of(delta(1, text=text))
    lines = frame.split(b"\n")
    assert len(lines) == 5
    assert json.loads(lines[2].removeprefix(b"data: "))["texts"] == [text]


@on_loop
async def test_a_burst_beyond_the_buffer_does_not_make_a_reader_slow_that_takes_it(streams, time):
    reader = Reader(streams, streams.open("job", CALLER))
    for n in range(500):
        reader.stream.deliver(delta(n + 1))
    reader.stream.deliver(finished(500))
    await reader.task
    assert len(reader.events()) == 501


@on_loop
async def test_a_slow_reader_is_cut_off_with_a_word_about_coming_back(streams, time):
    stream, subscription = streams.open("job", CALLER), Subscription()
    stream.subscribe(subscription)
    reader = Reader(streams, stream)
    reader.takes.clear()
    quick = Reader(streams, streams.open("job", CALLER))
    await settled()
    for n in range(100):
        time.now += 0.1
        for one in (reader, quick):
            one.stream.deliver(delta(n + 1))
        await settled()
    assert subscription.is_closed
    reader.takes.set()
    quick.stream.deliver(finished(100))
    await asyncio.gather(reader.task, quick.task)
    place, kind, data = reader.events()[-1]
    assert (place, kind, data["code"], data["retryable"]) == (None, "interrupted", "reader_too_slow", True)
    places = [int(place) for place, _, _ in reader.events()[:-1]]
    assert places == list(range(1, len(places) + 1))
    assert len(places) < 50
    assert len(quick.events()) == 101


@on_loop
async def test_a_reader_that_takes_steadily_and_too_little_is_cut_off_too(streams, time):
    stream = streams.open("job", CALLER)
    sent = []

    async def send(chunk):
        sent.append(chunk)
        time.now += 0.6
        # While this chunk goes out, more than that is made.
        for _ in range(20):
            stream.deliver(delta(1, 500))

    stream.deliver(delta(1))
    await stream.send_all(send)
    assert b"event: interrupted" in sent[-1]
    assert time.now < 10
    streams.close(stream)


@on_loop
async def test_the_frames_of_a_long_delta_are_made_when_they_are_sent(streams, time):
    stream = streams.open("job", CALLER)
    before = stream._size
    stream.deliver(delta(100_000, 100_000))
    stream.deliver(finished(100_000))
    assert stream._size < before + 200
    reader = Reader(streams, stream)
    await reader.task
    events = reader.events()
    assert sum(len(data.get("texts", ())) for _, _, data in events) == 100_000
    assert [kind for _, kind, _ in events][-2:] == ["delta", "finished"]


@on_loop
async def test_a_reader_that_takes_nothing_is_given_up(streams, time):
    reader = Reader(streams, streams.open("job", CALLER))
    reader.takes.clear()
    reader.stream.deliver(delta(1))
    await settled()
    time.now += open_streams.STUCK_SECONDS - 1
    streams.look(time.now)
    assert len(streams) == 1
    time.now += 1
    streams.look(time.now)
    await reader.task
    assert reader.stream.is_stuck
    assert not reader.task.cancelled()


@on_loop
async def test_a_cancel_from_elsewhere_ends_the_sending(streams, time):
    stream = streams.open("job", CALLER)
    task = asyncio.create_task(stream.send_all(lambda chunk: settled()))
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    streams.close(stream)


@on_loop
async def test_a_quiet_stream_shows_signs_of_life(streams, time):
    reader = Reader(streams, streams.open("job", CALLER))
    await settled()
    for _ in range(3):
        time.now += 15
        streams.look(time.now)
        await settled()
    time.now += 14
    streams.look(time.now)
    await settled()
    assert reader.sent == b": still here\n" * 3
    reader.stream.deliver(finished(0))
    await reader.task


@on_loop
async def test_a_tenant_has_so_many_streams_and_another_its_own(streams, time):
    opened = [streams.open("job", CALLER), streams.open("job", CALLER), streams.open("job", OTHER)]
    with pytest.raises(TooManyRequests, match="limit of 2 open streams") as refusal:
        streams.open("job", CALLER)
    assert refusal.value.retry_after
    streams.close(opened.pop(0))
    streams.close(streams.open("job", CALLER))
    for stream in opened:
        streams.close(stream)
        streams.close(stream)


@on_loop
async def test_draining_ends_the_streams_of_those_who_can_come_back_also_those_that_come_meanwhile(
    streams, time
):
    readers = [Reader(streams, streams.open("job", caller)) for caller in (CALLER, OTHER)]
    readers[0].stream.deliver(delta(1))
    streams.drain()
    await asyncio.gather(*(reader.task for reader in readers))
    assert [kind for _, kind, _ in readers[0].events()] == ["delta", "interrupted"]
    assert readers[1].events()[0][2]["retry_after_ms"] == RECONNECT_MS
    late = Reader(streams, streams.open("job", CALLER))
    await late.task
    assert [kind for _, kind, _ in late.events()] == ["interrupted"]


@on_loop
async def test_who_cannot_come_back_is_served_until_the_end_at_which_no_more_are_opened(streams, time):
    reader = Reader(streams, streams.open("job", CALLER, can_resume=False))
    streams.drain()
    late = Reader(streams, streams.open("job", CALLER, can_resume=False))
    for one in (reader, late):
        one.stream.deliver(delta(1))
    streams.end()
    await asyncio.gather(reader.task, late.task)
    for one in (reader, late):
        assert [kind for _, kind, _ in one.events()] == ["delta", "interrupted"]
    with pytest.raises(GatewayStopping, match="shutting down"):
        streams.open("job", CALLER)


@on_loop
async def test_a_core_that_is_closed_is_a_word_about_coming_back(streams, time):
    reader = Reader(streams, streams.open("job", CALLER))
    reader.stream.deliver(ClientClosed("closed"))
    reader.stream.deliver(delta(1))
    await reader.task
    assert [data["retryable"] for _, _, data in reader.events()] == [True]


@on_loop
async def test_a_reader_that_has_gone_wants_nothing_more(streams, time):
    subscription = Subscription()
    reader = Reader(streams, streams.open("job", CALLER))
    reader.stream.subscribe(subscription)
    reader.stream.abandon()
    await reader.task
    assert subscription.is_closed
    late = Subscription()
    reader.stream.subscribe(late)
    assert late.is_closed


@on_loop
async def test_streams_of_a_revoked_key_end_and_others_go_on(streams, time):
    readers = [Reader(streams, streams.open("job", caller)) for caller in (CALLER, OTHER)]
    await settled()

    async def revoked(key_ids):
        assert set(key_ids) == {"key_1", "key_2"}
        return {"key_1"}

    async def unavailable(key_ids):
        raise StoreUnavailable("it is away")

    await streams._check_keys(unavailable)
    await streams._check_keys(revoked)
    await readers[0].task
    _, kind, data = readers[0].events()[0]
    assert (kind, data["code"], data["retryable"]) == ("interrupted", "unauthenticated", False)
    assert not readers[1].task.done()
    readers[1].stream.deliver(finished(0))
    await readers[1].task
