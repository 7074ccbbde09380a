"""Connections of the client: several addresses, look-ups that never end, TLS, connections that are kept."""

import asyncio
import contextlib
import gc
import math
import os
import queue
import signal
import socket
import ssl
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.scripted_gateway import ScriptedGateway, answer, frame
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.client.endpoint import Endpoint
from tether.client.http import connections, look_ups
from tether.client.http.backend import HttpBackend
from tether.client.http.calls import Call, HttpCalls
from tether.client.http.connecting import Deadline, HostAddress, HttpSocket
from tether.client.http.exchanges import HttpRequest
from tether.client.http.patience import Pace
from tether.errors import ClientClosed, GatewayUnavailable
from tether.jobs import Piece, new_job_id
from tether.streams.events import StreamEvent

SENT = 8_000_000
"""Bytes of a request: more than is sent at once."""

NO_MODELS = answer(200, {"data": []})


@pytest.fixture
def open_backend():
    with contextlib.ExitStack() as stack:

        def open_one(url, **options):
            backend = HttpBackend(Endpoint(url, "tk_key"), **options)
            stack.callback(backend.close)
            return backend

        yield open_one


def deadline():
    return Deadline(PATIENCE_SECONDS, time.monotonic() + PATIENCE_SECONDS)


def test_of_several_addresses_the_one_that_answers_is_used(open_backend, monkeypatch):
    with ScriptedGateway(NO_MODELS) as gateway, socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        places = [reserved.getsockname(), ("127.0.0.1", gateway.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
        assert open_backend("http://gateway.test").model_port.models() == []
        assert gateway.requests[0].headers["host"] == "gateway.test"


def test_an_address_that_is_silent_does_not_hold_up_the_next():
    with socket.socket() as silent, socket.socket() as other, contextlib.ExitStack() as stack:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        other.bind(("127.0.0.1", 0))
        other.listen()
        # Once its queue is full, nobody is let in any more.
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        made = HttpSocket()
        stack.callback(made.close)
        addresses = [HostAddress(socket.AF_INET, each.getsockname()) for each in (silent, other)]
        made.connect(addresses, deadline())
        accepted = stack.enter_context(other.accept()[0])
        assert made.send(memoryview(b"x"), deadline()) == 1
        assert accepted.recv(1) == b"x"


@pytest.fixture
def hanging_look_up(monkeypatch):
    asked, end = threading.Event(), threading.Event()

    def look(*arguments, **options):
        asked.set()
        end.wait(PATIENCE_SECONDS)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look)
    yield asked
    end.set()
    names = ("tether-http-lookup",)
    eventually(
        lambda: not [each for each in threading.enumerate() if each.name in names],
        PATIENCE_SECONDS,
        "it ended",
    )


def test_a_look_up_that_never_ends_is_waited_for_as_long_as_there_is_time(open_backend, hanging_look_up):
    with pytest.raises(GatewayUnavailable, match="did not respond in time"):
        open_backend("http://gateway.test", within=0.1).model_port.models()


def test_closing_a_client_ends_its_wait_for_a_look_up(open_backend, hanging_look_up):
    backend = open_backend("http://gateway.test")
    outcome = queue.SimpleQueue()

    def call():
        with pytest.raises(ClientClosed):
            backend.model_port.models()
        outcome.put("closed")

    thread = threading.Thread(target=call)
    thread.start()
    assert hanging_look_up.wait(PATIENCE_SECONDS)
    backend.close()
    assert outcome.get(timeout=PATIENCE_SECONDS) == "closed"
    thread.join()


def look_up_threads():
    return [thread for thread in threading.enumerate() if thread.name == "tether-http-lookup"]


def test_all_who_want_a_name_share_one_look_up_however_often_they_try(open_backend, hanging_look_up):
    for _ in range(3):
        backends = [open_backend("http://gateway.test", within=0.1) for _ in range(2)]
        for backend in backends:
            with pytest.raises(GatewayUnavailable, match="did not respond in time"):
                backend.model_port.models()
    assert len(look_up_threads()) == 1
    with pytest.raises(GatewayUnavailable):
        open_backend("http://other.test", within=0.1).model_port.models()
    assert len(look_up_threads()) == 2


def test_beside_a_look_up_that_may_never_end_others_are_begun_after_growing_pauses(monkeypatch):
    begun, ends, now = [], [threading.Event() for _ in range(3)], [0.0]

    def look(*arguments, **options):
        number = len(begun)
        begun.append(number)
        assert ends[number].wait(PATIENCE_SECONDS)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))]

    def want(patience):
        wanted_by = Deadline(patience, time.monotonic() + patience)
        return look_ups.look_up("gateway.test", 80, wanted_by, threading.Event())

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr(look_ups, "time", SimpleNamespace(monotonic=lambda: now[0]))
    under_way = []
    for now[0] in (0, 9, 10, 29, 30, 69):
        with pytest.raises(TimeoutError):
            want(0)
        under_way.append(len(look_up_threads()))
    assert under_way == [1, 1, 2, 2, 3, 3]
    eventually(lambda: len(begun) == 3, PATIENCE_SECONDS, "the last has begun")
    # Whichever ends first tells all who wait.
    found = queue.SimpleQueue()
    waiting = [threading.Thread(target=lambda: found.put(want(PATIENCE_SECONDS))) for _ in range(2)]
    for each in waiting:
        each.start()
    (shared,) = look_ups._of_this_process._of_names.values()
    eventually(lambda: len(shared.wanted) == 2, PATIENCE_SECONDS, "both wait")
    ends[2].set()
    for each in waiting:
        join(each)
    assert [[place.address[1] for place in found.get()] for _ in waiting] == [[2], [2]]
    ends[0].set()
    ends[1].set()
    eventually(lambda: not look_ups._of_this_process._of_names, PATIENCE_SECONDS, "nothing is kept")


def test_a_child_of_the_process_does_not_wait_for_a_look_up_of_its_parent(hanging_look_up, monkeypatch):
    with pytest.raises(TimeoutError):
        look_ups.look_up("gateway.test", 80, Deadline(0, math.inf), threading.Event())
    # Another thread may be about to begin one.
    with look_ups._of_this_process._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(PATIENCE_SECONDS)
            with contextlib.suppress(BaseException):
                monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: [])
                found = look_ups.look_up("gateway.test", 80, deadline(), threading.Event())
                os._exit(7 if found == [] else 1)
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_connection_that_the_server_gave_up_is_made_anew_at_once(open_backend):
    async def once(request, writer):
        await NO_MODELS(request, writer)
        return False

    waits = []
    pace = Pace(pause=lambda event, seconds: waits.append(seconds))
    with ScriptedGateway(once) as gateway:
        backend = open_backend(gateway.url, pace=pace)
        for _ in range(5):
            assert backend.model_port.models() == []
        assert (len(gateway.requests), waits) == (5, [])


def test_an_interim_response_does_not_end_what_is_sent(open_backend):
    body = b'{"data": []}'
    answered = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    def serve():
        with listener.accept()[0] as talk, talk.makefile("rb") as reader:
            talk.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
            while reader.readline() != b"\r\n":
                pass
            sizes.append(len(reader.read(SENT)))
            talk.sendall(answered)

    sizes = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        calls = HttpCalls(Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", "k"), Pace(patience=0))
        try:
            assert calls.attempt(Call("POST", "/v1/jobs", body=bytes(SENT))) == {"data": []}
        finally:
            calls.connections.stop()
            thread.join()
    assert sizes == [SENT]


def test_connections_that_nobody_uses_any_more_are_closed(monkeypatch):
    now = 0.0
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: now))
    ends_at = time.monotonic() + PATIENCE_SECONDS

    def use(count):
        request = HttpRequest("GET", "/v1/models")
        exchanges = [owner.open(request, PATIENCE_SECONDS, ends_at) for _ in range(count)]
        for exchange in exchanges:
            while exchange.read(deadline()):
                pass
            exchange.close()
        return [used for _, used in owner._kept]

    with ScriptedGateway(NO_MODELS) as gateway:
        owner = connections.HttpConnections(gateway.url, ())
        kept = use(5)
        now += connections.KEPT_SECONDS / 2
        assert use(1) == kept
        now += connections.KEPT_SECONDS / 2
        assert use(1) == kept[-1:]
        assert [used._sockets[0].fileno() for used in kept[:-1]] == [-1] * 4
        owner.stop()


def test_a_client_may_be_forgotten_where_its_own_locks_are_held(monkeypatch):
    def collect():
        nonlocal forgotten
        if forgotten:
            forgotten = False
            gc.collect()
        return time.monotonic()

    forgotten = False
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=collect))

    def call(model_port):
        with contextlib.suppress(ClientClosed):
            model_port.models()
        outcome.put("ended")

    outcome = queue.SimpleQueue()
    with ScriptedGateway(NO_MODELS) as gateway:
        backend = HttpBackend(Endpoint(gateway.url, "tk_key"))
        cycle = [backend]
        cycle.append(cycle)
        thread = threading.Thread(target=call, args=[backend.model_port], daemon=True)
        del backend, cycle
        # Its first look at the clock is where a connection is given back.
        forgotten = True
        thread.start()
        assert outcome.get(timeout=20) == "ended"
        thread.join()


def test_opening_a_stream_takes_no_longer_than_a_call(open_backend):
    outcome = queue.SimpleQueue()

    async def trickle(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)

    def follow():
        with pytest.raises(GatewayUnavailable, match="did not respond in time"):
            backend.stream_port.follow(new_job_id(1, bytes(10)), 0, print)
        outcome.put("refused")

    with ScriptedGateway(trickle) as gateway:
        backend = open_backend(gateway.url, pace=Pace(patience=0), read_timeout=0.05)
        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        assert outcome.get(timeout=20) == "refused"
        thread.join()


CERTIFICATE = Path(__file__).with_name("loopback.pem")
"""Of 127.0.0.1, self-signed, with its key: good for tests alone."""


@pytest.fixture
def secure_gateway():
    """A gateway over TLS that answers with a list of models, then with a stream."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    body = b'{"data": []}'
    delta, finished = (
        frame(StreamEvent(kind="delta", offset=1, pieces=(Piece(1, "a"),))),
        frame(StreamEvent(kind="finished", offset=1, details={"reason": "stop"})),
    )

    def serve():
        while True:
            taken, _ = listener.accept()
            with taken, contextlib.suppress(OSError), context.wrap_socket(taken, server_side=True) as talk:
                if not talk.recv(65_536):
                    return
                talk.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                talk.recv(65_536)
                talk.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + delta)
                talk.sendall(finished)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        with socket.create_connection(listener.getsockname()) as last, contextlib.suppress(OSError):
            trusting = ssl.create_default_context(cafile=CERTIFICATE)
            trusting.wrap_socket(last, server_hostname="127.0.0.1").close()
        thread.join(PATIENCE_SECONDS)


def test_a_gateway_over_tls_is_used_where_its_authority_is_trusted(open_backend, secure_gateway, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    backend = open_backend(secure_gateway)
    assert backend.model_port.models() == []
    taken = queue.SimpleQueue()
    backend.stream_port.follow(new_job_id(1, bytes(10)), 0, taken.put)
    assert [taken.get(timeout=PATIENCE_SECONDS).kind for _ in range(2)] == ["delta", "finished"]


def test_a_name_with_a_dot_at_its_end_is_that_of_the_certificate(open_backend, monkeypatch):
    names = []

    def note(used, context, host, deadline):
        names.append(host)
        raise OSError

    monkeypatch.setattr(HttpSocket, "secure", note)
    with ScriptedGateway(NO_MODELS) as gateway:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", gateway.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
        backend = open_backend("https://gateway.test.", pace=Pace(patience=0))
        with pytest.raises(GatewayUnavailable):
            backend.model_port.models()
    assert names == ["gateway.test"]


def test_a_gateway_over_tls_whose_authority_is_unknown_is_refused_at_once(
    open_backend, secure_gateway, monkeypatch
):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    waits = []
    pace = Pace(pause=lambda event, seconds: waits.append(seconds))
    with pytest.raises(GatewayUnavailable, match="self-signed certificate"):
        open_backend(secure_gateway, pace=pace).model_port.models()
    assert waits == []
