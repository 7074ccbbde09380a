"""Every door enqueues through the broker: hooks of other middleware run once for each job, and the options
that they set reach the worker."""

import json
import subprocess
import sys
import urllib.request
from dataclasses import replace
from typing import ClassVar

import dramatiq
import pytest
from dramatiq.middleware import MiddlewareError
from sqlalchemy import select

from support.cluster import Cluster
from support.databases import new_job
from support.gateways import RunningGateway
from support.hand_worker import HandWorker
from support.tasks import running_task
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.broker import tether_broker
from tether.envelopes import options_from_text
from tether.errors import InvalidMessage, JobNotFound, UnknownModel
from tether.jobs import JobRequest
from tether.orchestrator.orchestrator import Orchestrator
from tether.store import Store
from tether.store.job_lists import scan_jobs
from tether.store.schema import jobs
from tether.store.waiting_jobs import WaitingJob


class Refused(MiddlewareError):
    pass


class Marker(dramatiq.Middleware):
    """Marks each message of ``infer``, and remembers the hooks that it saw."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def before_enqueue(self, broker, message, delay):
        if message.queue_name == "infer":
            if message.options.get("refuse"):
                raise Refused("not this one")
            self.seen.append(("before", message.message_id))
            message.options["marked_by"] = {"hook": "Marker", "model": message.kwargs["model"]}

    def after_enqueue(self, broker, message, delay):
        if message.queue_name == "infer":
            self.seen.append(("after", message.message_id))


@pytest.fixture
def seen(monkeypatch):
    monkeypatch.setattr(tether_broker, "default_middleware", [*tether_broker.default_middleware, Marker])
    monkeypatch.setattr(Marker, "seen", [])
    return Marker.seen


@pytest.fixture
def cluster(seen):
    with Cluster() as opened:
        yield opened


@pytest.fixture
def client(cluster):
    with Tether.direct(cluster.settings) as opened:
        yield opened


@pytest.fixture
def gateway(cluster):
    with RunningGateway(cluster.settings) as running:
        yield running


def by_python(request):
    return request.getfixturevalue("client").submit("counter", "p").job_id


def by_python_in_a_batch(request):
    (job,) = request.getfixturevalue("client").submit_many([JobRequest(model="counter", prompt="p")])
    return job.job_id


def by_infer(request):
    return request.getfixturevalue("client").infer.send(model="counter", prompt="p").message_id


def by_http(request):
    gateway = request.getfixturevalue("gateway")
    call = urllib.request.Request(
        f"{gateway.url}/v1/jobs",
        data=json.dumps({"model": "counter", "prompt": "p"}).encode(),
        headers={"Authorization": f"Bearer {gateway.key()}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(call, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)["job_id"]


def by_command(request):
    gateway = request.getfixturevalue("gateway")
    environ = {
        **request.getfixturevalue("cluster").environ,
        "TETHER_URL": gateway.url,
        "TETHER_API_KEY": gateway.key(),
    }
    command = [sys.executable, "-m", "tether_cli", "submit", "--no-wait", "-m", "counter", "p"]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    return done.stdout.strip()


def by_task(request):
    cluster = request.getfixturevalue("cluster")
    orchestrator = cluster.orchestrator()
    assert isinstance(orchestrator, Orchestrator)
    port = HandWorker(cluster.redis, cluster.keys, "hands.1")
    eventually(lambda: cluster.redis.get(cluster.keys.epoch), PATIENCE_SECONDS, "the first epoch")
    task = running_task(port, cluster.redis, cluster.keys)
    port.submit(task.job_id, task.fence, "token", json.dumps({"model": "counter", "prompt": "p"}).encode())
    port.close()
    with Store(cluster.settings.database.url) as store:
        (row,) = eventually(lambda: store.read(scan_jobs, None).rows, PATIENCE_SECONDS, "it is a job")
    return row.job_id


DOORS = (by_python, by_python_in_a_batch, by_infer, by_http, by_command, by_task)


def kept_options(cluster, job_id):
    query = select(jobs.c.options).where(jobs.c.job_id == job_id)
    with Store(cluster.settings.database.url) as store:
        return json.loads(store.read(lambda connection: connection.execute(query).scalar_one()))


@pytest.mark.parametrize("door", DOORS)
def test_hooks_run_once_for_a_job_and_what_they_set_is_kept(cluster, seen, request, door):
    job_id = door(request)
    assert [kind for kind, _ in seen] == ["before", "after"]
    assert seen[1] == ("after", job_id)
    options = kept_options(cluster, job_id)
    assert options["marked_by"] == {"hook": "Marker", "model": "counter"}
    assert options["traceparent"].startswith("00-")


def test_what_hooks_set_reaches_the_worker(cluster, client, seen):
    cluster.orchestrator()
    cluster.start_worker(threads=1)
    job = client.submit("counter", "p")
    job.result(PATIENCE_SECONDS)
    hashed = cluster.redis.hget(cluster.keys.job(job.job_id), "options")
    assert options_from_text(hashed)["marked_by"] == {"hook": "Marker", "model": "counter"}


def test_a_submission_with_known_keys_is_not_announced_again(client, seen):
    first = client.submit("counter", "p", correlation_id="c", retry_token="r")
    again = client.submit("counter", "p", correlation_id="c", retry_token="r")
    assert again.job_id == first.job_id
    assert [kind for kind, _ in seen].count("after") == 1


def test_of_many_only_the_one_that_a_hook_refuses_is_refused(client, seen):
    backend = client._backend
    broker, scheduler = client.broker, backend._plane.scheduler
    requests = [JobRequest(model="counter", prompt="p") for _ in range(3)]
    envelopes = [scheduler.envelope(one) for one in requests]
    envelopes[0].options["refuse"] = True
    envelopes[1].options["odd"] = object()
    refused, odd, accepted = broker.enqueue_many(envelopes)
    assert isinstance(refused, Refused)
    assert isinstance(odd, InvalidMessage)
    assert client.job(accepted.message_id).status().model == "counter"
    for envelope in envelopes[:2]:
        with pytest.raises(JobNotFound):
            client.job(envelope.message_id).status()


def test_one_job_that_a_hook_refuses_leaves_the_others_of_an_http_batch_their_answers(
    gateway, seen, monkeypatch
):
    def refuse_the_second(self, broker, message, delay):
        if message.request.prompt == "second":
            raise Refused("not this one: hunter2")

    monkeypatch.setattr(Marker, "before_enqueue", refuse_the_second)
    call = urllib.request.Request(
        f"{gateway.url}/v1/jobs:batch",
        data=json.dumps({"jobs": [{"model": "counter", "prompt": p} for p in ("first", "second")]}).encode(),
        headers={"Authorization": f"Bearer {gateway.key()}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(call, timeout=PATIENCE_SECONDS) as answer:
        accepted, refused = json.load(answer)["data"]
    assert (accepted["status"], refused["status"]) == (202, 500)
    assert accepted["job"]["job_id"]
    assert refused["error"]["code"] == "internal"
    assert "Refused" in refused["error"]["message"]
    assert "hunter2" not in refused["error"]["message"]


def test_keys_come_before_the_gates(client, cluster, monkeypatch):
    first = client.submit("counter", "p", correlation_id="c", retry_token="r")
    registry = client._backend._plane.registry
    monkeypatch.setattr(registry, "find", refuse_all)
    assert client.submit("counter", "p", correlation_id="c", retry_token="r").job_id == first.job_id
    with pytest.raises(UnknownModel):
        client.submit("counter", "p", correlation_id="c", retry_token="other")


def test_jobs_and_plain_messages_can_be_enqueued_together(client, seen):
    @dramatiq.actor(broker=client.broker, queue_name="plain")
    def plain():
        pass

    envelope = client._backend._plane.scheduler.envelope(JobRequest(model="counter", prompt="p"))
    message, job = client.broker.enqueue_many([plain.message(), envelope])
    assert message.queue_name == "plain"
    assert client.job(job.message_id).status().model == "counter"
    assert client.broker.do_qsize("plain") == 1


def refuse_all(name):
    raise UnknownModel(f"there is no model {name!r}")


def test_a_message_that_no_program_can_have_meant_costs_itself_alone(client, seen):
    scheduler = client._backend._plane.scheduler
    broken = replace(scheduler.envelope(JobRequest(model="counter", prompt="p")), options=None)
    refused, accepted = client.broker.enqueue_many(
        [broken, scheduler.envelope(JobRequest(model="counter", prompt="p"))]
    )
    assert isinstance(refused, Exception)
    assert client.job(accepted.message_id).status().model == "counter"


def test_a_program_gets_back_what_it_sent_under_the_jobs_id(client, seen):
    message = client.infer.send(model="counter", prompt="p")
    assert message.kwargs == {"model": "counter", "prompt": "p"}
    assert dramatiq.Message.decode(message.encode()) == message
    assert client.job(message.message_id).status().model == "counter"


@pytest.mark.parametrize(("kept", "asked"), [("1", "counter@1"), ("", "counter")])
def test_a_waiting_job_keeps_its_version_where_it_has_one(client, monkeypatch, kept, asked):
    plane = client._backend._plane
    registry, names = plane.registry, []
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda name: names.append(name) or find(name))
    waiting = WaitingJob(job=new_job(1, model="counter", model_version=kept).job, dispatch=0, attempts=0)
    assert plane.waiting_placement.choose_pools([waiting])[0].pool is None, "nobody serves it"
    assert names == [asked]
