"""Large bodies of some clients, and what all others have of the gateway meanwhile."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.clients import OTHER_TENANT
from support.event_streams import EventStream
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS
from tether import JobRequest, Tether
from tether.errors import RequestTooLarge
from tether.gateway import receiving
from tether.gateway.body_budget import BodyBudget

LATER = 4_000_000_000_000


class Gate:
    """Holds up whoever reads a large body, in the middle of that, until it is opened."""

    def __init__(self, monkeypatch):
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.threads = set()
        read = receiving.parse_json

        def read_slowly(body):
            if len(body) > receiving.INLINE_BYTES:
                self.threads.add(threading.current_thread().name)
                self.entered.release()
                assert self.opened.wait(PATIENCE_SECONDS)
            return read(body)

        monkeypatch.setattr(receiving, "parse_json", read_slowly)


@pytest.fixture
def budgets(monkeypatch):
    """The budgets of gateways that are started in the test."""
    made = []

    class NotedBudget(BodyBudget):
        def __init__(self, max_bytes):
            super().__init__(max_bytes)
            made.append(self)

    monkeypatch.setattr("tether.gateway.services.BodyBudget", NotedBudget)
    return made


def test_a_stream_goes_on_and_small_requests_are_answered_while_large_bodies_are_read(
    service, monkeypatch, budgets
):
    gate = Gate(monkeypatch)
    with RunningGateway(service.settings) as gateway, ThreadPoolExecutor(4) as pool:
        ours, theirs = Tether(gateway.url, gateway.key()), Tether(gateway.url, gateway.key(OTHER_TENANT))
        with ours, theirs:
            running = ours.submit("slow", "one", max_tokens=1_000)
            events = EventStream(gateway, running.job_id).events()
            next(events)
            large = JobRequest(model="counter", prompt="x " * 10_000, not_before=LATER)
            sent = [
                pool.submit(client.submit_many, [large] * 20) for client in (ours, theirs) for _ in range(2)
            ]
            assert gate.entered.acquire(timeout=PATIENCE_SECONDS)
            # One is being read and cannot go on: all of this happens before it does.
            tokens = 0
            while tokens < 50:
                _, kind, data = next(events)
                tokens += len(data["texts"]) if kind == "delta" else 0
            assert theirs.submit("counter", "small").status().job_id
            assert not any(one.done() for one in sent)
            gate.opened.set()
            handles = [handle for one in sent for handle in one.result(PATIENCE_SECONDS)]
            assert len({handle.job_id for handle in handles}) == 80
            running.cancel()
            for handle in handles:
                handle.cancel()
        assert budgets[-1].in_flight == 0
    assert all(name.startswith("tether-async") for name in gate.threads)


def test_a_batch_that_is_larger_than_the_limit_is_divided_and_a_job_that_is_has_a_clear_error(service):
    limits = {"body_limit": 50_000, "batch_body_limit": 60_000}
    limits = service.settings.gateway.model_copy(update=limits)
    with (
        RunningGateway(service.settings.model_copy(update={"gateway": limits})) as gateway,
        Tether(gateway.url, gateway.key()) as tether,
    ):
        jobs = [JobRequest(model="counter", prompt="x " * 10_000, not_before=LATER)] * 9
        handles = tether.submit_many(jobs)
        assert len({handle.job_id for handle in handles}) == 9
        for handle in handles:
            handle.cancel()
        with pytest.raises(RequestTooLarge, match=r"more than 50000 bytes.*gateway\.body_limit"):
            tether.submit("counter", "x " * 30_000)


def test_a_batch_s_answer_that_names_many_problems_stays_small(gateway):
    import http.client

    jobs = [{f"{'x' * 30}{n}": 1 for n in range(20)}] * 1_000
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    headers = {"Authorization": f"Bearer {gateway.key()}"}
    connection.request("POST", "/v1/jobs:batch", json.dumps({"jobs": jobs}), headers)
    answer = connection.getresponse()
    text = answer.read()
    assert (answer.status, len(json.loads(text)["data"])) == (200, 1_000)
    assert len(text) < 2_000_000
    message = {"role": "user", "content": "x", "other": 1}
    body = json.dumps({"model": "counter", "messages": [message] * 20_000})
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    assert (answer.status, error["param"]) == (400, "messages")
    assert "more problems" in error["message"]
    assert len(error["message"]) < 4_000
    connection.close()
