"""Interactive jobs are refused rather than left to wait, through every door; others wait."""

import http.client
import json
import subprocess
import sys
import time

import pytest

from support.databases import make_tenants
from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet
from support.waiting import PATIENCE_SECONDS, eventually
from tether import JobRequest, JobState, Tether
from tether.errors import KeyConflict, NoLiveWorker, QueueFull
from tether.ids import PoolName
from tether.jobs import Priority
from tether.store import Store
from tether.store.holds import QUOTA, tenants_in_pool
from tether.store.job_lists import scan_jobs
from tether.store.schema import counters

LONG = 8_000
"""Tokens of a job that goes on until it is cancelled."""

TOKENS = 100
"""Of a job that takes more than the least time that is told."""

FEW = "[scheduling]\npool_jobs = 4\npool_horizon = 1\n"
"""With one slot a pool takes five interactive jobs."""


@pytest.fixture
def fleet(monkeypatch, database_url):
    opened = PlacedFleet(monkeypatch, rate=100, config=FEW, database=database_url)
    with Store(opened.cluster.settings.database.url) as store:
        make_tenants(store, "acme", "other")
    yield opened
    opened.close()


@pytest.fixture
def store(fleet):
    with Store(fleet.cluster.settings.database.url) as opened:
        yield opened


@pytest.fixture
def gateway(fleet):
    with RunningGateway(fleet.cluster.settings) as running:
        yield running


def ask(gateway, body, tenant="acme", path="/v1/jobs"):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    headers = {"Authorization": f"Bearer {gateway.key(tenant)}"}
    connection.request("POST", path, json.dumps({"model": "m", **body}), headers)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    wait = answer.headers["retry-after"]
    return answer.status, document, wait


def by_command(fleet, gateway):
    environ = {**fleet.cluster.environ, "TETHER_URL": gateway.url, "TETHER_API_KEY": gateway.key("acme")}
    command = [sys.executable, "-m", "tether_cli", "submit", "--model", "m", "--priority", "interactive", "p"]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def client_of(gateway, tenant="acme", **options):
    return Tether(gateway.url, api_key=gateway.key(tenant), **options)


def seen(client):
    eventually(lambda: any(one.workers for one in client.models()), PATIENCE_SECONDS, "the worker is seen")


def until_full(client):
    """Submit until it is refused: the jobs that were accepted, and the refusal."""
    accepted = []
    while len(accepted) < 50:
        try:
            accepted.append(client.submit("m", "p", max_tokens=LONG, priority="interactive"))
        except QueueFull as refusal:
            return accepted, refusal
    raise AssertionError("it takes any number of jobs")


def open_jobs(store, tenant="acme"):
    query = counters.select().where(counters.c.kind == QUOTA, counters.c.name == tenant)
    row = store.read(lambda connection: connection.execute(query).one_or_none())
    return 0 if row is None else row.held


def test_without_a_worker_interactive_jobs_are_refused_and_others_wait(fleet, gateway, store):
    status, document, wait = ask(gateway, {"prompt": "p", "priority": "interactive"})
    assert (status, document["error"]["code"], document["error"]["retryable"]) == (
        503,
        "no_live_worker",
        True,
    )
    assert int(wait) >= 1
    assert open_jobs(store) == 0
    for priority in ("standard", "batch"):
        assert ask(gateway, {"prompt": "p", "priority": priority})[0] == 202
    assert ask(gateway, {"prompt": "p", "priority": "interactive", "delay_ms": 60_000})[0] == 202, (
        "it is not to begin now"
    )
    with client_of(gateway, patience=0) as client, pytest.raises(NoLiveWorker, match="class standard"):
        client.submit("m", "p", priority="interactive")
    with (
        Tether.direct(fleet.cluster.settings, tenant="acme") as direct,
        pytest.raises(NoLiveWorker, match="no worker serves model 'm' now"),
    ):
        direct.submit("m", "p", priority="interactive")
    assert open_jobs(store) == 3


def test_one_of_a_batch_is_refused_by_itself(gateway, store):
    asked = [JobRequest(model="m", prompt="p", priority=Priority(each)) for each in Priority]
    with client_of(gateway, patience=0) as client, pytest.raises(NoLiveWorker):
        client.submit_many(asked)
    assert open_jobs(store) == 2


def test_what_a_task_submits_waits_since_nobody_could_be_told(fleet, store):
    """The worker was told already that it is a job."""
    cluster, request = fleet.cluster, {"model": "m", "prompt": "p", "priority": "interactive"}
    cluster.redis.xadd(cluster.keys.submits, {"v": 1, "token": "t", "request": json.dumps(request)})
    rows = eventually(lambda: store.read(scan_jobs, None).rows, PATIENCE_SECONDS, "it is a job")
    assert [(row.retry_token, row.state) for row in rows] == [("t", JobState.PARKED)]


def test_a_job_that_is_there_already_is_answered_whatever_has_become_of_its_workers(fleet, gateway):
    fleet.start("us")
    keys = {"correlation_id": "c", "retry_token": "r"}
    with client_of(gateway, patience=0) as client:
        seen(client)
        job = client.submit("m", "p", max_tokens=LONG, priority="interactive", **keys)
        eventually(lambda: job.status().state is JobState.RUNNING, PATIENCE_SECONDS, "it runs")
        until_full(client)
        again = client.submit("m", "p", max_tokens=LONG, priority="interactive", **keys)
        assert again.job_id == job.job_id
        with pytest.raises(KeyConflict):
            client.submit("m", "another", max_tokens=LONG, priority="interactive", **keys)


def test_whose_jobs_fill_a_pool_is_refused_and_nobody_else(fleet, gateway, store):
    fleet.start("us")
    with client_of(gateway, patience=0) as client, client_of(gateway, "other", patience=0) as other:
        seen(client)
        placed, refused = until_full(client)
        assert 0 < len(placed) <= 5
        # As long as a slot takes for those before it, whether its rate is measured by now or assumed.
        assert len(placed) * LONG / 110 < refused.retry_after <= len(placed) * LONG / 19
        status, document, wait = ask(gateway, {"prompt": "p", "priority": "interactive", "max_tokens": LONG})
        assert (status, document["error"]["code"]) == (429, "queue_full")
        assert int(wait) >= 1
        chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        status, document, _ = ask(gateway, chat, path="/v1/chat/completions")
        assert (status, document["error"]["code"]) == (429, "queue_full")
        answered = by_command(fleet, gateway)
        assert answered.returncode == QueueFull.exit_status
        assert "take no more jobs of tenant 'acme' now" in answered.stderr
        assert "Traceback" not in answered.stderr
        assert client.submit("m", "p", max_tokens=2).job_id, "a standard one waits"
        # One may come in between, and waits.
        pools = [job.status().pool for job in placed]
        assert pools.count(None) <= 1
        assert store.read(tenants_in_pool, PoolName(pools[0])) == {"acme": len(placed) - pools.count(None)}
        mine = [other.submit("m", "p", max_tokens=2, priority="interactive") for _ in range(2)]
        for job in placed:
            job.cancel()
        for job in mine:
            assert len(job.result(PATIENCE_SECONDS).token_ids) == 2


def test_who_waits_as_long_as_it_is_told_is_served(fleet, gateway):
    fleet.start("us")
    with client_of(gateway, patience=PATIENCE_SECONDS) as client:
        seen(client)
        jobs = [client.submit("m", "p", max_tokens=20, priority="interactive") for _ in range(15)]
        for job in jobs:
            assert len(job.result(PATIENCE_SECONDS).token_ids) == 20


@pytest.mark.parametrize("waits", [8, pytest.param(200, marks=pytest.mark.long)])
def test_the_time_that_is_told_is_about_that_in_which_it_would_have_begun(fleet, gateway, waits):
    """A refused job would have begun when the last that was accepted before it has, and a slot is free again.

    Both are told and measured on one machine, by the rate that its worker measures."""
    fleet.start("us")
    told, actual, behind = [], [], {}
    with client_of(gateway, patience=0) as client:
        seen(client)

        def is_measured():
            client.submit("m", "p", max_tokens=TOKENS).result(PATIENCE_SECONDS)
            return client.explain("m", "p").pools[0].is_measured

        eventually(is_measured, PATIENCE_SECONDS, "the worker's rate is known")
        placed = []
        while len(actual) < waits:
            try:
                job = client.submit("m", "p", max_tokens=TOKENS, priority="interactive")
            except QueueFull as refusal:
                # Only one for each that was accepted: the others would say the same.
                behind.setdefault(placed[-1].job_id, (time.monotonic(), refusal.retry_after))
                placed[0].result(PATIENCE_SECONDS)
                ended = placed.pop(0).job_id
                if ended in behind:
                    asked_at, seconds = behind.pop(ended)
                    told.append(seconds)
                    actual.append(time.monotonic() - asked_at)
                continue
            placed.append(job)
    ratios = sorted(one / other for one, other in zip(told, actual, strict=True))
    assert 0.5 <= ratios[len(ratios) // 2] <= 2, ratios
    within_four = sum(0.25 <= ratio <= 4 for ratio in ratios)
    assert within_four >= int(0.9 * len(ratios)), ratios
