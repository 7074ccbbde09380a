"""The client over HTTP, against gateways that answer as they please."""

import asyncio
import contextlib
import gc
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import urllib.parse

import pytest

from support.scripted_gateway import (
    ScriptedGateway,
    answer,
    answer_by,
    cut,
    error,
    frame,
    hang,
    interrupted,
    refuse,
    stream,
)
from support.waiting import PATIENCE_SECONDS, eventually
from tether import AsyncTether, Tether
from tether.client.endpoint import Endpoint
from tether.client.gateways import open_operator
from tether.client.http.backend import HttpBackend
from tether.client.http.patience import Pace
from tether.client.http.submission import MAX_BYTES, MAX_JOBS, Parcel, divide
from tether.config.sections import GatewaySettings
from tether.errors import (
    ClientClosed,
    Forbidden,
    GatewayUnavailable,
    InvalidRequest,
    JobNotFound,
    KeyConflict,
    QuotaExceeded,
    RequestTooLarge,
    ResultTimeout,
    StoreUnavailable,
    TetherError,
    Unauthenticated,
    UnexpectedAnswer,
)
from tether.job_filters import EVERY_JOB, JobFilter
from tether.jobs import JobRequest, JobState, Piece, Submitted, new_job_id
from tether.streams.events import StreamEvent

KEY = "tk_hidden"
JOB = new_job_id(1, bytes(10))
REQUEST = JobRequest(model="counter", prompt="é")
HTML = answer(200, b"<html>hello</html>", "text/html")
WITHIN = 20


def submitted(token="t", is_new=True):
    told = {"job_id": JOB, "correlation_id": token, "retry_token": token, "state": "accepted"}
    return {**told, "object": "job.submitted", "is_new": is_new}


def delta(begin, end, run=0):
    pieces = tuple(Piece(place, f"{run}:{place} ") for place in range(begin, end))
    return StreamEvent(kind="delta", run=run, offset=end, pieces=pieces)


def said(kind, offset, run=0, **details):
    return StreamEvent(kind=kind, run=run, offset=offset, details=details)


STARTED = said("started", 0, worker="w")
FINISHED = said("finished", 4, reason="stop")


class Waits:
    """A clock that goes on by what is waited, without waiting."""

    def __init__(self, **options):
        self.waits = []
        self.now = 0.0
        self.pace = Pace(clock=lambda: self.now, chance=lambda: 1.0, pause=self.pause, **options)

    def pause(self, event, seconds):
        self.waits.append(seconds)
        self.now += seconds


def threads_of_clients():
    return [thread for thread in threading.enumerate() if thread.name.startswith("tether-http")]


@pytest.fixture
def open_backend():
    with contextlib.ExitStack() as stack:

        def open_one(url, **options):
            backend = HttpBackend(Endpoint(url, KEY), **options)
            stack.callback(backend.close)
            return backend

        yield open_one
    assert not threads_of_clients()


@pytest.mark.parametrize(
    "call",
    [
        lambda backend: backend.model_port.models(),
        lambda backend: backend.job_port.submit([REQUEST])[0],
        lambda backend: backend.stream_port.follow(JOB, 0, print),
    ],
)
def test_a_client_with_little_time_waits_for_no_answer_beyond_it(open_backend, call):
    with ScriptedGateway([hang] * 3) as gateway:
        backend = open_backend(gateway.url, within=0.2)
        with pytest.raises(GatewayUnavailable, match="submit it again with the same keys"):
            call(backend)


@pytest.fixture
def script(open_backend):
    """A gateway with a script, a client of it, and what that waited."""
    with contextlib.ExitStack() as stack:

        def begin(*steps, patience=30.0, **options):
            gateway = stack.enter_context(ScriptedGateway(*steps))
            waits = Waits(patience=patience)
            return gateway, open_backend(gateway.url, pace=waits.pace, **options), waits.waits

        yield begin


class Reader:
    """Follows a stream."""

    def __init__(self, backend, offset=0):
        self.inbox = queue.SimpleQueue()
        self.subscription = backend.stream_port.follow(JOB, offset, self.inbox.put)

    def next(self):
        return self.inbox.get(timeout=WITHIN)

    def all(self):
        """Until the last event or error."""
        found = [self.next()]
        while not isinstance(found[-1], TetherError) and not found[-1].is_last:
            found.append(self.next())
        assert self.inbox.empty()
        return found


def streams(gateway):
    """Where each request for a stream asked to go on."""
    return [
        (request.target.partition("?")[2], request.headers.get("last-event-id"))
        for request in gateway.requests
    ]


# Submissions.


def test_one_submission_is_one_request(script):
    gateway, backend, _ = script(answer(202, submitted()))
    assert backend.job_port.submit([REQUEST]) == [Submitted(JOB, "t", "t", JobState.ACCEPTED, True)]
    (request,) = gateway.requests
    assert (request.method, request.target) == ("POST", "/v1/jobs")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json["prompt"] == "é"


def test_a_path_in_the_address_is_kept(open_backend):
    with ScriptedGateway(answer(202, submitted())) as gateway:
        open_backend(f"{gateway.url}/some/where").job_port.submit([REQUEST])
        assert gateway.requests[0].target == "/some/where/v1/jobs"


@pytest.mark.parametrize("first", [cut, refuse(503, "commit_unknown"), answer(502, b"<html>", "text/html")])
def test_what_may_have_been_accepted_is_sent_again_with_the_same_keys(script, first):
    gateway, backend, _ = script(first, first, answer(200, submitted(is_new=False)))
    (found,) = backend.job_port.submit([REQUEST])
    # The token was made by this call: nobody else's job can have it.
    assert found.is_new
    tokens = [request.json["retry_token"] for request in gateway.requests]
    assert len(tokens) == 3
    assert len(set(tokens)) == 1
    assert tokens[0]


@pytest.mark.parametrize("status", [200, 202])
def test_with_a_token_of_the_caller_the_gateway_says_what_is_new(script, status):
    gateway, backend, _ = script(answer(status, submitted(is_new=status == 202)))
    (found,) = backend.job_port.submit([JobRequest(model="m", prompt="x", retry_token="mine")])
    assert found.is_new is (status == 202)
    assert gateway.requests[0].json["retry_token"] == "mine"


def test_a_correlation_id_alone_gets_a_token_too(script):
    gateway, backend, _ = script(cut, answer(202, submitted()))
    backend.job_port.submit([JobRequest(model="m", prompt="x", correlation_id="mine")])
    assert len({request.json["retry_token"] for request in gateway.requests}) == 1


def test_retry_after_is_heeded(script):
    busy = answer(503, error("store_unavailable"), headers={"retry-after": "2"})
    _, backend, waits = script(busy, busy, answer(202, submitted()))
    assert isinstance(backend.job_port.submit([REQUEST])[0], Submitted)
    assert waits == [2 + 0.1, 2 + 0.2]


def test_without_it_waits_double_up_to_a_cap(script):
    _, backend, waits = script(*[refuse(503)] * 7, answer(202, submitted()))
    backend.job_port.submit([REQUEST])
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_patience_ends_with_the_last_error(script):
    gateway, backend, waits = script(refuse(503), patience=3.0)
    (found,) = backend.job_port.submit([REQUEST])
    assert isinstance(found, StoreUnavailable)
    assert sum(waits) == pytest.approx(3.0)
    assert len(gateway.requests) == len(waits) + 1


def test_a_wait_longer_than_patience_is_not_begun(script):
    limit = refuse(429, "quota_exceeded", headers={"retry-after": "31"})
    _, backend, waits = script(limit)
    (found,) = backend.job_port.submit([REQUEST])
    assert isinstance(found, QuotaExceeded)
    assert found.retry_after == 31
    assert waits == []


def test_a_limit_without_a_wait_is_told_at_once(script):
    _, backend, waits = script(refuse(429, "quota_exceeded"))
    assert isinstance(backend.job_port.submit([REQUEST])[0], QuotaExceeded)
    assert waits == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (409, "key_conflict", KeyConflict),
        (413, "request_too_large", RequestTooLarge),
        (422, "request_invalid", InvalidRequest),
        (500, "internal", TetherError),
        (400, "from_the_future", TetherError),
    ],
)
def test_refusals_are_told_at_once(script, status, code, kind):
    gateway, backend, _ = script(refuse(status, code, retryable=False))
    (found,) = backend.job_port.submit([REQUEST])
    assert type(found) is kind
    assert str(found) == "it is so"
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (HTML, "200 with a body of type 'text/html'"),
        (answer(404, b"<html>", "text/html"), "404 with a body of type 'text/html'"),
        (answer(302, b"", "text/plain", {"location": "http://127.0.0.1:1/"}), "302.*set TETHER_URL"),
        (answer(200, []), "200 with a body of type 'application/json'"),
        (answer(200, b"[" * 100_000), "200"),
        (answer(200, {"object": "other"}), "unexpected document"),
        (answer(200, {**submitted(), "state": "odd"}), "unexpected document"),
        (answer(401, {"error": {"message": "x", "type": "y", "code": "invalid_api_key"}}), "401"),
        (answer(429, b"slow down", "text/plain"), "429"),
    ],
)
def test_what_is_no_gateway_is_told_what_it_answered(script, step, words):
    gateway, backend, _ = script(step)
    (found,) = backend.job_port.submit([REQUEST])
    assert isinstance(found, UnexpectedAnswer)
    with pytest.raises(UnexpectedAnswer, match=words):
        raise found
    assert KEY not in str(found)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_a_gateway_behind_it_is_an_outage(script, status):
    gateway, backend, _ = script(answer(status, b"<html>", "text/html"), patience=1.0)
    (found,) = backend.job_port.submit([REQUEST])
    assert isinstance(found, GatewayUnavailable)
    assert str(status) in str(found)
    assert len(gateway.requests) > 2


def test_a_gateway_that_never_answers_is_unavailable(script):
    gateway, backend, _ = script(hang, patience=0.2, read_timeout=0.05)
    (found,) = backend.job_port.submit([REQUEST])
    assert isinstance(found, GatewayUnavailable)
    assert "did not respond in time" in str(found)
    assert len(gateway.requests) >= 2


def test_a_gateway_that_is_not_there_is_unavailable(open_backend):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        waits = Waits(patience=1.0)
        backend = open_backend(f"http://127.0.0.1:{reserved.getsockname()[1]}", pace=waits.pace)
        with pytest.raises(GatewayUnavailable, match=r"Connection refused.*TETHER_URL"):
            backend.model_port.models()
        assert len(waits.waits) > 2


def test_a_connection_that_cannot_be_made_secure_is_refused_at_once(open_backend):
    with ScriptedGateway(HTML) as gateway:
        waits = Waits()
        backend = open_backend(gateway.url.replace("http:", "https:"), pace=waits.pace)
        with pytest.raises(GatewayUnavailable, match="the TLS connection to"):
            backend.model_port.models()
        assert waits.waits == []


def test_what_does_not_speak_http_is_no_gateway(script):
    async def other(request, writer):
        writer.write(b"SSH-2.0-other\r\n\r\n")
        await writer.drain()
        return False

    _, backend, _ = script(other)
    with pytest.raises(UnexpectedAnswer, match="does not speak HTTP"):
        backend.model_port.models()


# Many submissions.


def batch(make_item):
    """Answers a batch item by item."""
    return answer_by(lambda request: {"data": [make_item(job) for job in request.json["jobs"]]})


def accepted(job):
    return {"status": 202, "job": {**submitted(job["retry_token"]), "correlation_id": job["prompt"]}}


def asked(*prompts):
    return [JobRequest(model="m", prompt=prompt) for prompt in prompts]


def test_many_submissions_share_requests_and_are_answered_in_order(script):
    gateway, backend, _ = script(batch(accepted))
    prompts = [str(number) for number in range(2_500)]
    found = backend.job_port.submit(asked(*prompts))
    assert [one.correlation_id for one in found] == prompts
    assert [len(request.json["jobs"]) for request in gateway.requests] == [1_000, 1_000, 500]
    assert {request.target for request in gateway.requests} == {"/v1/jobs:batch"}


def test_the_largest_batch_of_a_client_fits_the_gateway_s_default_limit():
    parcels = [Parcel(b"x" * 1_000, True)] * 20_000
    largest = max(
        len(b'{"jobs":[' + b",".join(parcel.body for parcel in group) + b"]}") for group in divide(parcels)
    )
    assert GatewaySettings().batch_body_limit >= MAX_BYTES + MAX_JOBS + 11
    assert largest <= GatewaySettings().batch_body_limit


def test_large_submissions_travel_in_several_requests():
    sizes = [3, 3, 3, 12, 1]
    groups = list(divide([Parcel(b"x" * size, True) for size in sizes], max_bytes=7))
    assert [[len(parcel.body) for parcel in group] for group in groups] == [[3, 3], [3], [12], [1]]


def test_a_refusal_touches_its_own_job_alone(script):
    def item(job):
        refused = {"status": 404, **error("model_unknown", retryable=False, message="no such model")}
        return refused if job["prompt"] == "b" else accepted(job)

    gateway, backend, _ = script(batch(item))
    found = backend.job_port.submit(asked("a", "b", "c"))
    assert [getattr(one, "code", "") for one in found] == ["", "model_unknown", ""]
    assert len(gateway.requests) == 1


def test_what_was_not_accepted_for_now_is_sent_again_alone(script):
    tries = []

    def item(job):
        tries.append(job["prompt"])
        is_busy = job["prompt"] == "b" and tries.count("b") < 2
        return {"status": 503, **error("store_unavailable")} if is_busy else accepted(job)

    _, backend, _ = script(batch(item), answer(202, submitted()))
    found = backend.job_port.submit(asked("a", "b", "c"))
    assert all(isinstance(one, Submitted) for one in found)
    assert tries == ["a", "b", "c"]


def test_a_request_that_is_too_large_is_halved(script):
    def item(request):
        jobs = request.json.get("jobs", [request.json])
        if any(job["prompt"] == "big" for job in jobs):
            return refuse(413, "request_too_large", retryable=False)
        if "jobs" not in request.json:
            return answer(202, accepted(jobs[0])["job"])
        return answer(200, {"data": [accepted(job) for job in jobs]})

    async def step(request, writer):
        return await item(request)(request, writer)

    _, backend, _ = script(step)
    found = backend.job_port.submit(asked("a", "b", "big", "c", "d"))
    assert [getattr(one, "correlation_id", type(one).__name__) for one in found] == [
        *("a", "b", "RequestTooLarge", "c", "d")
    ]


def test_an_outage_is_waited_out_once_for_all_requests(script):
    gateway, backend, waits = script(refuse(503), patience=2.0)
    found = backend.job_port.submit(asked(*map(str, range(3_000))))
    assert len(found) == 3_000
    assert {type(one) for one in found} == {StoreUnavailable}
    assert sum(waits) == pytest.approx(2.0)
    assert {request.json["jobs"][0]["prompt"] for request in gateway.requests} == {"0"}


@pytest.mark.parametrize("data", [None, [], [5, 5], [{}, {}], [{"status": 202}, {"status": 200, "job": 5}]])
def test_an_answer_that_does_not_fit_a_batch_is_unexpected(script, data):
    _, backend, _ = script(answer(200, {"data": data}))
    assert [type(one) for one in backend.job_port.submit(asked("a", "b"))] == [UnexpectedAnswer] * 2


# Other calls.


def test_filters_are_asked_for_as_they_are(script):
    gateway, backend, _ = script(answer(200, {"data": [], "next_cursor": None}))
    labels = {"a": "b+c &=d", "é": ""}
    states = (JobState.RUNNING, JobState.DEAD)
    backend.job_port.find(JobFilter(states=states, model="m/1", labels=labels, created_after=0), JOB, 7)
    assert urllib.parse.parse_qsl(gateway.requests[0].target.partition("?")[2], keep_blank_values=True) == [
        ("state", "running"),
        ("state", "dead"),
        ("model", "m/1"),
        ("label", "a=b+c &=d"),
        ("label", "é="),
        ("created_after", "0"),
        ("limit", "7"),
        ("cursor", JOB),
    ]


def test_what_cannot_be_asked_for_is_not_sent(script):
    gateway, backend, _ = script(HTML)
    for bad in ("", "../keys", f"{JOB}/x", None):
        for call in (
            backend.job_port.status,
            backend.job_port.cancel,
            lambda job: backend.stream_port.follow(job, 0, print),
        ):
            with pytest.raises(JobNotFound):
                call(bad)
    with pytest.raises(InvalidRequest):
        backend.job_port.find(EVERY_JOB, "../keys", 5)
    with pytest.raises(InvalidRequest):
        backend.job_port.find(JobFilter(labels={"a=b": "c"}), None, 5)
    with pytest.raises(InvalidRequest):
        backend.stream_port.follow(JOB, -1, print)
    assert gateway.requests == []


def test_cancelling_is_tried_again(script):
    gateway, backend, _ = script(cut, cut, refuse(503), answer(200, {"state": "cancelled"}))
    assert backend.job_port.cancel(JOB) is JobState.CANCELLED
    assert {(one.method, one.target) for one in gateway.requests} == {("DELETE", f"/v1/jobs/{JOB}")}


def test_many_threads_share_few_connections(script):
    gateway, backend, _ = script(answer(202, submitted()))

    def work():
        for _ in range(20):
            assert isinstance(backend.job_port.submit([REQUEST])[0], Submitted)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(gateway.requests) == 160
    assert gateway.connections <= 8
    assert not threads_of_clients()


# Streams.


def test_a_stream_is_followed_to_its_end(script):
    gateway, backend, _ = script(stream(b"retry: 1000\n\n", STARTED, b": here\n\n", delta(0, 4), FINISHED))
    assert Reader(backend).all() == [STARTED, delta(0, 4), FINISHED]
    assert streams(gateway) == [("", None)]


def test_an_offset_is_a_number_of_tokens_until_something_came(script):
    gateway, backend, _ = script(stream(then="cut"), stream(delta(2, 3), then="cut"), stream(FINISHED))
    reader = Reader(backend, offset=2)
    assert reader.next() == delta(2, 3)
    eventually(lambda: len(gateway.requests) >= 4, WITHIN, "it comes back, twice")
    # The end lies beyond what came: it is not told before the tokens are there.
    assert reader.inbox.empty()
    reader.subscription.close()
    assert streams(gateway)[:3] == [("offset=2", None), ("offset=2", None), ("", "3")]


def test_a_stream_that_breaks_is_followed_on_and_told_once(script):
    gateway, backend, _ = script(
        stream(STARTED, delta(0, 2), frame(delta(2, 3))[:30], then="cut"),
        stream(delta(0, 3), said("rerouted", 3), then="end"),
        stream(STARTED, said("rerouted", 3), delta(1, 4), FINISHED),
    )
    assert Reader(backend).all() == [
        *(STARTED, delta(0, 2), delta(2, 3), said("rerouted", 3), delta(3, 4), FINISHED)
    ]
    assert [last for _, last in streams(gateway)] == [None, "2", "3"]


def test_a_restart_voids_what_comes_late_of_the_run_before(script):
    gateway, backend, _ = script(
        stream(delta(0, 3), said("restarted", 1, run=1), delta(3, 9), delta(1, 2, run=1), then="cut"),
        stream(said("restarted", 1, run=1), delta(2, 4, run=1), said("finished", 4, run=1)),
    )
    assert Reader(backend).all() == [
        delta(0, 3),
        said("restarted", 1, run=1),
        delta(1, 2, run=1),
        delta(2, 4, run=1),
        said("finished", 4, run=1),
    ]
    assert [last for _, last in streams(gateway)] == [None, "1.2"]


def test_a_restart_that_was_not_told_of_is_told_of(script):
    _, backend, _ = script(stream(delta(0, 3), delta(0, 4, run=2), said("finished", 4, run=2)))
    assert Reader(backend).all() == [
        *(delta(0, 3), said("restarted", 0, run=2), delta(0, 4, run=2), said("finished", 4, run=2))
    ]


@pytest.mark.parametrize("gap", [delta(3, 4), FINISHED, said("restarted", 3, run=1)])
def test_tokens_that_are_missing_are_asked_for_again(script, gap):
    gateway, backend, waits = script(stream(delta(0, 2), gap, then="hold"), stream(delta(2, 4), FINISHED))
    assert Reader(backend).all() == [delta(0, 2), delta(2, 4), FINISHED]
    assert [last for _, last in streams(gateway)] == [None, "2"]
    assert waits == [0.1]


def test_tokens_that_are_missing_in_a_new_run_are_asked_for_again(script):
    gateway, backend, _ = script(
        stream(delta(0, 2), delta(2, 3, run=1), then="hold"),
        stream(delta(0, 4, run=1), said("finished", 4, run=1)),
    )
    assert Reader(backend).all() == [
        *(delta(0, 2), said("restarted", 0, run=1), delta(0, 4, run=1), said("finished", 4, run=1))
    ]
    assert [last for _, last in streams(gateway)] == [None, "1.0"]


@pytest.mark.parametrize("code", ["gateway_stopping", "reader_too_slow", "stream_interrupted", "unheard_of"])
def test_after_an_interruption_it_comes_back_after_the_wait(script, code):
    gateway, backend, waits = script(
        stream(delta(0, 2), interrupted(code, True, 3_000)), stream(delta(2, 4), FINISHED)
    )
    assert Reader(backend).all() == [delta(0, 2), delta(2, 4), FINISHED]
    assert waits == [3.1]
    assert [last for _, last in streams(gateway)] == [None, "2"]


def test_an_interruption_and_its_end_are_logged_once(script, caplog):
    caplog.set_level("INFO", "tether.client")
    _, backend, _ = script(
        stream(delta(0, 2), then="cut"), refuse(503), refuse(503), stream(delta(2, 3), delta(3, 4), FINISHED)
    )
    Reader(backend).all()
    assert [record.getMessage() for record in caplog.records if record.name == "tether.client"] == [
        "A stream was interrupted. Reconnecting.",
        "The stream goes on.",
    ]


def test_the_wait_that_the_stream_asks_for_is_heeded(script):
    _, backend, waits = script(stream(b"retry: 1500\n\n", delta(0, 4), then="cut"), stream(FINISHED))
    Reader(backend).all()
    assert waits == [1.6]


def test_an_interruption_for_good_is_the_last_that_comes(script):
    gateway, backend, _ = script(stream(delta(0, 2), interrupted("unauthenticated", False)))
    *events, last = Reader(backend).all()
    assert events == [delta(0, 2)]
    assert isinstance(last, Unauthenticated)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (404, "job_unknown", JobNotFound),
    ],
)
def test_a_refusal_when_it_comes_back_is_the_last_that_comes(script, status, code, kind):
    _, backend, _ = script(stream(delta(0, 2), then="cut"), refuse(status, code, retryable=False))
    assert type(Reader(backend).all()[-1]) is kind


def test_an_outage_is_waited_out_however_long(script):
    outage = [cut, refuse(503), HTML, answer(404, b"", "text/html"), refuse(429, "too_many_requests")] * 20
    gateway, backend, waits = script(
        stream(delta(0, 2), then="cut"), *outage, stream(delta(2, 4), FINISHED), patience=1.0
    )
    assert Reader(backend).all() == [delta(0, 2), delta(2, 4), FINISHED]
    assert sum(waits) > 100
    assert {last for _, last in streams(gateway)[1:]} == {"2"}


def test_waits_begin_anew_once_something_came(script):
    _, backend, waits = script(
        stream(delta(0, 1), then="cut"),
        refuse(503),
        refuse(503),
        stream(delta(1, 4), then="cut"),
        stream(FINISHED),
    )
    Reader(backend).all()
    assert waits == [0.1, 0.2, 0.4, 0.1]


@pytest.mark.parametrize(
    "odd",
    [
        b"event: delta\ndata: \xff\n\n",
        b"event: delta\ndata: {\n\n",
        b"event: delta\ndata: 5\n\n",
        b"event: delta\ndata: " + b"[" * 100_000 + b"\n\n",
        b'event: delta\ndata: {"run":0,"offset":Infinity,"token_ids":[],"texts":[]}\n\n',
        b'event: delta\ndata: {"run":0,"offset":3,"token_ids":[1,2],"texts":["x"]}\n\n',
        b'event: delta\ndata: {"run":0,"offset":3,"token_ids":[1],"texts":[1]}\n\n',
        b'event: finished\ndata: {"run":0}\n\n',
        b"event: interrupted\ndata: 5\n\n",
        b"event: interrupted\ndata: {}\n\n",
        b'event: interrupted\ndata: {"code":"x","message":"y","retryable":true,"retry_after_ms":NaN}\n\n',
    ],
)
def test_what_cannot_be_read_breaks_a_connection_and_no_stream(script, odd):
    gateway, backend, _ = script(stream(delta(0, 2), odd, then="hold"), stream(delta(2, 4), FINISHED))
    assert Reader(backend).all() == [delta(0, 2), delta(2, 4), FINISHED]
    assert [last for _, last in streams(gateway)] == [None, "2"]


def test_events_of_a_newer_gateway_are_passed_over(script):
    newer = b'id: 2\nevent: priced\ndata: {"run":0,"offset":2}\n\n'
    gateway, backend, _ = script(stream(delta(0, 2), newer, b"data: x\n\n", delta(2, 4), FINISHED))
    assert Reader(backend).all() == [delta(0, 2), delta(2, 4), FINISHED]
    assert len(gateway.requests) == 1


def test_a_stream_that_falls_silent_is_opened_anew(script):
    gateway, backend, _ = script(stream(delta(0, 2), then="hold"), stream(delta(2, 4), FINISHED), silence=0.1)
    assert Reader(backend).all() == [delta(0, 2), delta(2, 4), FINISHED]
    assert gateway.gone.wait(WITHIN)


def test_a_stream_that_cannot_be_opened_is_refused_to_the_caller(script):
    gateway, backend, _ = script(refuse(404, "job_unknown", retryable=False))
    with pytest.raises(JobNotFound):
        backend.stream_port.follow(JOB, 0, print)
    assert len(gateway.requests) == 1


def test_opening_a_stream_is_tried_while_patience_lasts(script):
    _, backend, waits = script(refuse(429, "too_many_requests", retry_after_ms=5_000), stream(FINISHED))
    with pytest.raises(TetherError, match="it is so"):
        script(refuse(503), patience=1.0)[1].stream_port.follow(JOB, 0, print)
    Reader(backend, offset=4).all()
    assert waits == [5.1]


def test_an_ordinary_answer_to_a_stream_is_unexpected(script):
    _, backend, _ = script(answer(200, {"object": "job"}))
    with pytest.raises(UnexpectedAnswer):
        backend.stream_port.follow(JOB, 0, print)


def test_who_fails_to_take_an_event_gets_the_next(script):
    _, backend, _ = script(stream(delta(0, 1), delta(1, 4), FINISHED))
    taken = queue.SimpleQueue()

    def deliver(event):
        taken.put(event)
        raise RuntimeError("no")

    backend.stream_port.follow(JOB, 0, deliver)
    assert [taken.get(timeout=WITHIN) for _ in range(3)] == [delta(0, 1), delta(1, 4), FINISHED]


def test_a_reader_that_closes_ends_its_connection(script):
    gateway, backend, _ = script(stream(delta(0, 1), then="hold"))
    reader = Reader(backend)
    reader.next()
    reader.subscription.close()
    reader.subscription.close()
    assert gateway.gone.wait(WITHIN)
    assert reader.inbox.empty()


def test_the_connection_of_an_ended_stream_is_used_again(script):
    gateway, backend, _ = script(stream(delta(0, 4), FINISHED))
    Reader(backend).all()
    # Its end may still be on the way.
    eventually(
        lambda: Reader(backend).all() and len(gateway.requests) > gateway.connections, WITHIN, "reused"
    )


def test_a_call_where_events_are_delivered_is_refused_as_it_would_hold_up_all_streams(script):
    _, backend, _ = script(stream(FINISHED))
    told = queue.SimpleQueue()

    def deliver(event):
        for call in (backend.model_port.models, lambda: backend.stream_port.follow(JOB, 4, print)):
            with pytest.raises(TetherError) as caught:
                call()
            told.put(str(caught.value))

    backend.stream_port.follow(JOB, 4, deliver)
    assert "another thread" in told.get(timeout=WITHIN)
    assert "another thread" in told.get(timeout=WITHIN)


# The end.


def test_closing_ends_calls_and_streams(script):
    gateway, backend, _ = script(stream(delta(0, 1), then="hold"), hang)
    reader = Reader(backend)
    reader.next()
    outcome = queue.SimpleQueue()

    def call():
        try:
            outcome.put(backend.model_port.models())
        except BaseException as failure:
            outcome.put(failure)

    thread = threading.Thread(target=call)
    thread.start()
    eventually(lambda: len(gateway.requests) == 2, WITHIN, "the call is under way")
    backend.close()
    backend.close()
    assert isinstance(outcome.get(timeout=WITHIN), ClientClosed)
    thread.join()
    assert isinstance(reader.next(), ClientClosed)
    assert reader.inbox.empty()
    reader.subscription.close()
    with pytest.raises(ClientClosed):
        backend.model_port.models()
    with pytest.raises(ClientClosed):
        backend.stream_port.follow(JOB, 0, print)
    assert not threads_of_clients()


def test_closing_ends_a_wait_for_the_next_try(open_backend):
    with ScriptedGateway(refuse(503, retry_after_ms=20_000)) as gateway:
        backend = open_backend(gateway.url)
        outcome = queue.SimpleQueue()

        def call():
            with pytest.raises(ClientClosed):
                backend.model_port.models()
            outcome.put("closed")

        thread = threading.Thread(target=call)
        thread.start()
        eventually(lambda: gateway.requests, WITHIN, "the first try")
        backend.close()
        assert outcome.get(timeout=WITHIN) == "closed"
        thread.join()


def test_a_client_may_be_closed_where_events_are_delivered(script):
    _, backend, _ = script(stream(delta(0, 1), then="hold"))
    taken = queue.SimpleQueue()

    def deliver(found):
        taken.put(found)
        backend.close()

    backend.stream_port.follow(JOB, 0, deliver)
    assert taken.get(timeout=WITHIN) == delta(0, 1)
    assert isinstance(taken.get(timeout=WITHIN), ClientClosed)


def test_a_client_that_was_never_used_has_no_thread():
    backend = HttpBackend(Endpoint("http://127.0.0.1:1", KEY))
    assert not threads_of_clients()
    backend.close()
    with pytest.raises(ClientClosed):
        backend.model_port.models()


def test_a_client_that_was_forgotten_leaves_no_thread():
    with ScriptedGateway(stream(delta(0, 1), then="hold")) as gateway:
        backend = HttpBackend(Endpoint(gateway.url, KEY))
        reader = Reader(backend)
        assert reader.next() == delta(0, 1)
        assert threads_of_clients()
        del backend
        gc.collect()
        assert isinstance(reader.next(), ClientClosed)
        eventually(lambda: not threads_of_clients(), WITHIN, "it ended")


def run_program(url, code):
    """Run a program with a client ``backend`` that was used."""
    begin = (
        "import atexit, os, sys, threading\n"
        # What is registered first is called last.
        "atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))\n"
        "from tether.client.endpoint import Endpoint\n"
        "from tether.client.http.backend import HttpBackend\n"
        f"backend = HttpBackend(Endpoint({url!r}, {KEY!r}))\n"
        "assert backend.model_port.models() == []\n"
    )
    command = [sys.executable, "-X", "dev", "-c", begin + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def outcome_of(call):
    with pytest.raises(TetherError) as caught:
        call()
    return type(caught.value)


def test_a_gateway_that_says_nothing_to_who_opens_a_stream_is_waited_for_no_longer_than_was_said():
    # By itself it would be tried until patience is over.
    with ScriptedGateway(*[hang] * 9) as gateway, Tether(gateway.url, KEY, patience=5) as client:
        job = client.job(JOB)
        assert outcome_of(lambda: job.result(timeout=0.05)) is ResultTimeout
        assert outcome_of(lambda: list(job.stream(timeout=0.05))) is ResultTimeout
        assert outcome_of(lambda: next(job.events(timeout=0.05))) is ResultTimeout

    async def calls():
        async with AsyncTether(gateway.url, KEY, patience=5) as client:
            job = client.job(JOB)
            with pytest.raises(ResultTimeout):
                await job.result(timeout=0.05)
            with pytest.raises(ResultTimeout):
                await anext(job.events(timeout=0.05))

    with ScriptedGateway(*[hang] * 9) as gateway:
        asyncio.run(calls())


@pytest.mark.parametrize("wait", ["result", "stream", "events"])
def test_what_opens_a_stream_ends_with_the_wait_of_a_program_on_an_event_loop(wait):
    async def calls(url):
        async with AsyncTether(url, KEY, patience=10_000) as client:
            job = client.job(JOB)
            follow, is_over = job.backend.stream_port.follow, threading.Event()

            def followed(*args, **kwargs):
                try:
                    return follow(*args, **kwargs)
                finally:
                    is_over.set()

            job.backend.stream_port.follow = followed
            waiting = getattr(job, wait)(timeout=0.3)
            with pytest.raises(ResultTimeout):
                await (waiting if wait == "result" else anext(waiting))
            # The client is still open: nobody but the wait has ended it.
            assert await asyncio.to_thread(is_over.wait, PATIENCE_SECONDS)

    with ScriptedGateway(*[refuse(503)] * 999) as gateway:
        asyncio.run(calls(gateway.url))


def test_an_operator_s_calls_are_tried_for_no_longer_than_was_said():
    with (
        ScriptedGateway(*[refuse(503)] * 999) as gateway,
        open_operator(gateway.url, KEY, 10_000, within=0.3) as operator,
    ):
        assert outcome_of(lambda: operator.ask("GET", "workers")) is GatewayUnavailable


def test_a_gateway_that_is_away_is_tried_for_no_longer_than_was_said():
    with ScriptedGateway(*[refuse(503)] * 99) as gateway, Tether(gateway.url, KEY, patience=60) as client:
        assert outcome_of(lambda: client.job(JOB).result(timeout=0.3)) is ResultTimeout
        assert gateway.requests


def test_a_program_may_end_without_closing_its_client():
    with ScriptedGateway(answer(200, {"data": []}), stream(delta(0, 1), then="hold")) as gateway:
        done = run_program(
            gateway.url,
            "came = threading.Event()\n"
            f"backend.stream_port.follow({JOB!r}, 0, lambda event: came.set())\n"
            "came.wait()\n",
        )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "['MainThread']", "")


def test_a_program_that_leaves_a_call_of_an_async_client_under_way_does_not_wait_for_its_answer():
    with ScriptedGateway(answer(200, {"data": []}), hang) as gateway:
        done = run_program(
            gateway.url,
            "from tether import AsyncTether\n"
            f"client = AsyncTether({gateway.url!r}, {KEY!r}, patience=1)\n"
            "under_way = client._calls.begin(client._backend.model_port.models)\n"
            "under_way.add_done_callback(lambda call: print(type(call.exception()).__name__))\n",
        )
    # What it ended by: its answer would have been waited for to GatewayUnavailable.
    assert (done.returncode, done.stdout.split()[:1], done.stderr) == (0, ["ClientClosed"], "")


def test_a_forked_process_is_told_to_make_its_own_client():
    code = (
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        backend.model_port.models()\n"
        "    except Exception as failure:\n"
        "        print(type(failure).__name__)\n"
        "    backend.close()\n"
        "    sys.exit()\n"
        "os.waitpid(pid, 0)\n"
        "assert backend.model_port.models() == []\n"
        "backend.close()\n"
    )
    with ScriptedGateway(answer(200, {"data": []})) as gateway:
        done = run_program(gateway.url, code)
    assert (done.returncode, done.stdout.split("\n")[0], done.stderr) == (0, "ClientClosed", "")


def test_the_key_is_in_no_message_and_no_log(script, caplog):
    caplog.set_level(0)
    steps = [cut, refuse(503), HTML, stream(b"event: delta\ndata: \xff\n\n"), hang]
    _, backend, _ = script(*steps, patience=0.5, read_timeout=0.1)
    told = [repr(backend.job_port.submit([REQUEST])), repr(backend)]
    with pytest.raises(TetherError) as caught:
        backend.model_port.models()
    told += [str(caught.value), caplog.text, json.dumps(dict(os.environ))]
    assert KEY not in "".join(told)
