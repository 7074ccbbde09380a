"""What happens to one stream of a client leaves the others, and its calls, alone."""

import asyncio
import contextlib
import os
import queue
import threading

import pytest

from support.scripted_gateway import ScriptedGateway, head, refuse, stream
from support.waiting import eventually
from tether.client.endpoint import Endpoint
from tether.client.http import streams
from tether.client.http.backend import HttpBackend
from tether.client.http.patience import Pace
from tether.errors import TetherError
from tether.jobs import new_job_id
from tether.streams.events import StreamEvent

JOB = new_job_id(1, bytes(10))
STARTED = StreamEvent(kind="started", details={"worker": "w"})
FINISHED = StreamEvent(kind="finished", details={"reason": "stop"})
AT_ONCE = Pace(pause=lambda event, seconds: None)
WITHIN = 20


@pytest.fixture
def open_backend():
    with contextlib.ExitStack() as stack:

        def open_one(url, **options):
            backend = HttpBackend(Endpoint(url, "tk_key"), **options)
            stack.callback(backend.close)
            return backend

        yield open_one


def follow(backend):
    taken = queue.SimpleQueue()
    return backend.stream_port.follow(JOB, 0, taken.put), taken


def kinds(taken, count):
    return [taken.get(timeout=WITHIN).kind for _ in range(count)]


def without_threads(monkeypatch, name, times):
    """From now on so many threads of the name cannot be started."""
    start = threading.Thread.start
    refused = []

    def start_or_refuse(thread):
        if thread.name == name and len(refused) < times:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    return refused


def test_a_stream_for_which_there_was_no_thread_leaves_the_next_alone(open_backend, monkeypatch):
    with ScriptedGateway(stream(STARTED, FINISHED)) as gateway:
        backend = open_backend(gateway.url)
        without_threads(monkeypatch, "tether-http-streams", 1)
        with pytest.raises(TetherError, match="no thread"):
            follow(backend)
        assert kinds(follow(backend)[1], 2) == ["started", "finished"]


def test_a_stream_that_ends_as_it_comes_back_leaves_the_others_alone(open_backend, monkeypatch):
    monkeypatch.setattr(streams, "REST_SECONDS", 0.0)
    script = stream(STARTED, then="cut"), stream(FINISHED, then="hold"), stream(STARTED, FINISHED)
    with ScriptedGateway(*script) as gateway:
        backend = open_backend(gateway.url, pace=AT_ONCE, silence=WITHIN)
        reader = backend.stream_port.reader
        monkeypatch.setattr(reader, "_tick", 0.01)
        add, over = reader.add, threading.Event()

        def add_and_see_its_end(added):
            answered = add(added)
            if len(gateway.requests) == 2:
                assert over.wait(WITHIN)
            return answered

        monkeypatch.setattr(reader, "add", add_and_see_its_end)
        taken = queue.SimpleQueue()

        def deliver(event):
            taken.put(event)
            if event.is_last:
                over.set()

        backend.stream_port.follow(JOB, 0, deliver)
        assert kinds(taken, 2) == ["started", "finished"]
        eventually(lambda: not reader._read, WITHIN, "it was left")
        assert kinds(follow(backend)[1], 2) == ["started", "finished"]


def test_a_stream_that_was_interrupted_while_it_was_opened_leaves_the_others_alone(open_backend, monkeypatch):
    with ScriptedGateway(stream(STARTED, then="hold"), stream(STARTED, FINISHED)) as gateway:
        backend = open_backend(gateway.url)

        def be_interrupted(bell, count):
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "eventfd_write", be_interrupted)
        with pytest.raises(KeyboardInterrupt):
            follow(backend)
        assert kinds(follow(backend)[1], 2) == ["started", "finished"]
        assert gateway.gone.wait(WITHIN)
        eventually(lambda: not backend.stream_port._streams, WITHIN, "all were left")


def test_a_stream_comes_back_once_there_are_threads_to_look_up_its_gateway(open_backend, monkeypatch):
    refused = []

    def pause(event, seconds):
        if not refused:
            refused.append(without_threads(monkeypatch, "tether-http-lookup", 3))

    with ScriptedGateway(stream(STARTED, then="cut"), stream(FINISHED)) as gateway:
        backend = open_backend(gateway.url.replace("127.0.0.1", "localhost"), pace=Pace(pause=pause))
        assert kinds(follow(backend)[1], 2) == ["started", "finished"]
        assert len(refused[0]) == 3


def test_closing_a_stream_whose_gateway_refuses_it_for_now_leaves_calls_alone(open_backend):
    body = b'{"data": []}'

    async def models(request, writer):
        writer.write(head(200, "application/json", length=len(body)) + body[:4])
        await writer.drain()
        being_answered.set()
        await asyncio.to_thread(was_closed.wait, WITHIN)
        writer.write(body[4:])
        await writer.drain()
        return True

    being_answered, was_closed, found = threading.Event(), threading.Event(), []
    waits = []

    def pause(event, seconds):
        waits.append(seconds)
        if len(waits) == 2:
            call = threading.Thread(target=lambda: found.append(backend.model_port.models()))
            call.start()
            assert being_answered.wait(WITHIN)
            subscription.close()
            was_closed.set()
            call.join()

    with ScriptedGateway(stream(STARTED, then="cut"), refuse(503), models) as gateway:
        backend = open_backend(gateway.url, pace=Pace(pause=pause))
        subscription, _ = follow(backend)
        eventually(lambda: found, WITHIN, "the call was answered")
        assert found == [[]]
        assert len(gateway.requests) == 3
