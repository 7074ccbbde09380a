"""Bodies taken in: what they are promised comes back whatever happens, and large ones are read elsewhere."""

import asyncio
import contextlib
import json
import threading

import pytest
from starlette.requests import Request

from tether.client.async_calls import AsyncCalls
from tether.errors import InvalidRequest, MalformedBody, RequestTimeout, RequestTooLarge, TooManyRequests
from tether.gateway import receiving
from tether.gateway.body_budget import BodyBudget
from tether.gateway.receiving import INLINE_BYTES, BodyLimit, RequestBodies

LIMIT = BodyLimit(100_000, "gateway.body_limit")
LARGE = json.dumps({"prompt": "x" * INLINE_BYTES}).encode()


class Desk:
    """Takes in bodies that a test sends."""

    def __init__(self, max_bytes=1_000_000):
        self.calls = AsyncCalls()
        self.budget = BodyBudget(max_bytes)
        self.bodies = RequestBodies(self.calls, self.budget)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.calls.close()

    async def take(self, request, reader=dict, *, tenant="a"):
        async with self.bodies.receive(request, tenant, LIMIT) as body:
            return await body.read(reader)


class Sent:
    """The chunks of a body as a server hands them on; then nothing more comes, or the client has gone."""

    def __init__(self, *chunks, is_whole=True, leaves=False):
        self._chunks = list(chunks)
        self._is_whole = is_whole
        self._leaves = leaves
        self.asked = 0

    async def __call__(self):
        self.asked += 1
        if self._chunks:
            body = self._chunks.pop(0)
            return {
                "type": "http.request",
                "body": body,
                "more_body": bool(self._chunks) or not self._is_whole,
            }
        if not self._leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}


def request_of(sent, **headers):
    raw = [(name.replace("_", "-").encode(), str(value).encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, sent)


def test_a_small_body_is_read_where_it_comes_and_a_large_one_on_another_thread():
    def reader(values):
        return len(values["prompt"]), threading.current_thread()

    async def scenario():
        with Desk() as desk:
            small = await desk.take(request_of(Sent(b'{"prompt":', b'"x"}')), reader)
            large = await desk.take(request_of(Sent(LARGE)), reader)
            return small, large

    small, large = asyncio.run(scenario())
    assert small == (1, threading.main_thread())
    assert large[0] == INLINE_BYTES
    assert large[1] is not threading.main_thread()


def test_the_loop_goes_on_while_a_large_body_is_read():
    """The reader waits for what only the loop can do."""
    happened = threading.Event()

    def reader(values):
        return happened.wait(60)

    async def scenario():
        with Desk() as desk:
            reading = asyncio.create_task(desk.take(request_of(Sent(LARGE)), reader))
            while desk.budget.in_flight != len(LARGE):
                await asyncio.sleep(0)
            happened.set()
            return await reading

    assert asyncio.run(scenario())


def refuse(values):
    raise InvalidRequest("no")


def fail(values):
    raise ZeroDivisionError


ENDS = {
    "read": (lambda: request_of(Sent(b"{}")), dict, None),
    "large, read": (lambda: request_of(Sent(LARGE)), dict, None),
    "of no length, which is told": (lambda: request_of(Sent(b""), content_length=0), dict, MalformedBody),
    "too large by its own word": (
        lambda: request_of(Sent(LARGE), content_length=100_001),
        dict,
        RequestTooLarge,
    ),
    "too large as it comes": (lambda: request_of(Sent(*[LARGE] * 7)), dict, RequestTooLarge),
    "too slow": (lambda: request_of(Sent(b"{", is_whole=False), content_length=9), dict, RequestTimeout),
    "left": (lambda: request_of(Sent(b"{", is_whole=False, leaves=True)), dict, MalformedBody),
    "encoded": (lambda: request_of(Sent(b"{}"), content_encoding="gzip"), dict, MalformedBody),
    "no JSON": (lambda: request_of(Sent(b"{")), dict, MalformedBody),
    "large, no JSON": (lambda: request_of(Sent(LARGE[:-1])), dict, MalformedBody),
    "refused": (lambda: request_of(Sent(b"{}")), refuse, InvalidRequest),
    "large, refused": (lambda: request_of(Sent(LARGE)), refuse, InvalidRequest),
    "failed": (lambda: request_of(Sent(b"{}")), fail, ZeroDivisionError),
    "large, failed": (lambda: request_of(Sent(LARGE)), fail, ZeroDivisionError),
}


@pytest.mark.parametrize("case", ENDS)
def test_however_it_ends_what_was_promised_comes_back(case, monkeypatch):
    monkeypatch.setattr(receiving, "BODY_SECONDS", 0.2)
    make, reader, error = ENDS[case]

    async def scenario():
        with Desk() as desk:
            expected = pytest.raises(error) if error else contextlib.nullcontext()
            with expected:
                await desk.take(make(), reader)
            assert desk.budget.in_flight == desk.budget.held_by("a") == 0
            # And the turn of a large one, too.
            assert await desk.take(request_of(Sent(LARGE)), len) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("phase", ["coming", "waiting", "reading"])
def test_whoever_is_cancelled_gives_back_what_was_promised(phase):
    let_go = threading.Event()

    async def scenario():
        with Desk() as desk:
            try:
                before = []
                if phase == "waiting":
                    before = [
                        asyncio.create_task(
                            desk.take(request_of(Sent(LARGE)), lambda _: let_go.wait(60), tenant="b")
                        )
                    ]
                    while desk.budget.held_by("b") != len(LARGE):
                        await asyncio.sleep(0)
                sent = Sent(b"{", is_whole=False) if phase == "coming" else Sent(LARGE)
                task = asyncio.create_task(desk.take(request_of(sent), lambda _: let_go.wait(60)))
                expected = LIMIT.max_bytes if phase == "coming" else len(LARGE)
                while desk.budget.held_by("a") != expected:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert desk.budget.held_by("a") == 0
            finally:
                let_go.set()
            await asyncio.gather(*before)
            assert await desk.take(request_of(Sent(LARGE)), len) == 1

    asyncio.run(scenario())


def test_what_there_is_no_room_for_is_refused_before_it_is_read():
    async def scenario():
        with Desk(max_bytes=250_000) as desk:
            async with desk.bodies.receive(request_of(Sent(b"{}"), content_length=90_000), "a", LIMIT):
                # Two bytes came: the rest of the promise is not needed.
                assert desk.budget.in_flight == 2
            slow = asyncio.create_task(
                desk.take(request_of(Sent(b"", is_whole=False), content_length=90_000))
            )
            await asyncio.sleep(0)
            sent = Sent(b"{}")
            with pytest.raises(TooManyRequests):
                await desk.take(request_of(sent, content_length=90_000))
            with pytest.raises(TooManyRequests):
                # One that does not tell its length may have all that the route takes.
                await desk.take(request_of(sent))
            assert sent.asked == 0
            assert await desk.take(request_of(Sent(b"{}")), len, tenant="b") == 0
            slow.cancel()
            await asyncio.wait([slow])
            assert await desk.take(request_of(sent, content_length=90_000), len) == 0

    asyncio.run(scenario())


def test_a_refusal_keeps_nothing_of_a_large_body():
    async def scenario():
        with Desk() as desk:
            with pytest.raises(MalformedBody) as refusal:
                await desk.take(request_of(Sent(LARGE[:-1])))
            return refusal

    refusal = asyncio.run(scenario())
    assert refusal.value.__context__ is None
    assert "_read_json" not in [entry.name for entry in refusal.traceback]
