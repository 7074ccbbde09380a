"""Streams as parsers read them that make an event of every empty line: each event is one of ours."""

import asyncio
import itertools
import json

import httpx
import httpx2
import httpx_sse
import openai

from tether.client.http.server_sent_events import EventParser
from tether.errors import GatewayStopping
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openai.chunks import ChatChunkEncoder
from tether.gateway.openai.documents import ChatHead
from tether.gateway.sse.encoding import MAX_TOKENS_PER_FRAME, RECONNECT_MS
from tether.gateway.sse.open_streams import OpenStreams
from tether.jobs import Piece, new_job_id
from tether.models.registry import ModelVersion
from tether.streams.events import StreamEvent

CALLER = Caller("default", "key_1", frozenset({Scope.READ}))
HEAD = ChatHead(
    new_job_id(1_800_000_000_123, bytes(10)),
    ModelVersion(name="demo", version="1", digest="0" * 64, context=100),
)
STARTED = StreamEvent(kind="started", details={"attempt": 1, "dispatch": 1})
DELTA = StreamEvent(kind="delta", offset=1, pieces=(Piece(7, "word "),))
LONG = StreamEvent(
    kind="delta",
    offset=1 + 2 * MAX_TOKENS_PER_FRAME,
    pieces=tuple(Piece(7, "word ") for _ in range(2 * MAX_TOKENS_PER_FRAME)),
)
FINISHED = StreamEvent(kind="finished", offset=LONG.offset, details={"reason": "stop", "input_tokens": 1})
KINDS = ["started", "delta", "delta", "delta", "finished"]


def sent(frames=None, *, events=(STARTED, DELTA, LONG, FINISHED), error=None):
    """All bytes of a stream that is quiet before each of its events, in the chunks in which they are sent."""

    async def body():
        clock = itertools.count().__next__
        streams = OpenStreams(max_per_tenant=1, buffer_bytes=10**6, keepalive_seconds=0, clock=clock)
        stream = streams.open("job", CALLER, frames)
        chunks = []

        async def send(chunk):
            chunks.append(chunk)

        sending = asyncio.create_task(stream.send_all(send))
        for event in events:
            for _ in range(2):
                streams.look(clock())
                await asyncio.sleep(0)
            stream.deliver(event)
            await asyncio.sleep(0)
        if error is not None:
            stream.interrupt(error)
        await sending
        streams.close(stream)
        assert sum(chunk.count(b"still here") for chunk in chunks) >= len(events)
        return chunks

    return asyncio.run(body())


def read_by_httpx_sse(chunks):
    head = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=head, content=iter(chunks)))
    with (
        httpx.Client(transport=transport) as client,
        httpx_sse.connect_sse(client, "GET", "http://x/") as source,
    ):
        return list(source.iter_sse())


def test_httpx_sse_sees_the_events_of_a_job_and_nothing_else():
    found = read_by_httpx_sse(sent())
    assert [event.event for event in found] == KINDS
    assert all(isinstance(event.json(), dict) for event in found)
    assert found[0].retry == RECONNECT_MS
    assert [event.id for event in found] == ["0", "1", "513", "1025", "1025"]


def test_a_stream_that_is_interrupted_at_once_says_when_to_come_back():
    found = read_by_httpx_sse(sent(events=(), error=GatewayStopping("the gateway is shutting down")))
    assert [(event.event, event.retry) for event in found] == [("interrupted", RECONNECT_MS)]


def test_our_own_parser_sees_them_too():
    parser = EventParser()
    found = [event for chunk in sent() for event in parser.feed(chunk)]
    assert [event.kind for event in found] == KINDS
    assert parser.retry_ms == RECONNECT_MS


def chat_chunks():
    frames = ChatChunkEncoder(wants_usage=True)
    frames.begin(HEAD)
    return sent(frames)


def test_httpx_sse_sees_the_chunks_of_a_chat_and_nothing_else():
    *chunks, done = read_by_httpx_sse(chat_chunks())
    assert {json.loads(chunk.data)["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert done.data == "[DONE]"


def test_openai_sees_the_chunks_of_a_chat_and_nothing_else():
    head = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers=head, content=iter(chat_chunks()))
    )
    with (
        httpx2.Client(transport=transport) as http_client,
        openai.OpenAI(base_url="http://x/v1", api_key="tk", http_client=http_client) as client,
    ):
        chunks = list(client.chat.completions.create(model="demo", messages=[], stream=True))
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "word " * 1_025
    )
    assert chunks[-1].usage.completion_tokens == FINISHED.offset
