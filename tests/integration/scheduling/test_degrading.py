"""What would be refused runs on a lesser model, where the policy says so, and shows it everywhere."""

import http.client
import json

import openai
import pytest

from support.databases import make_tenants
from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet
from support.policies import policy_setter
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.errors import NoLiveWorker, PolicyRefused, QueueFull
from tether.scheduling import known_policies
from tether.store import Store

LONG = 8_000
FEW = "[scheduling]\npool_jobs = 4\npool_horizon = 1\n"
RULE = {"model": "other", "to": "m@1", "max_tokens": 3}


@pytest.fixture
def fleet(monkeypatch, database_url):
    # What is set counts at once.
    monkeypatch.setattr(known_policies, "FRESH_POLICIES_SECONDS", 0)
    opened = PlacedFleet(monkeypatch, versions=("1", "2"), rate=100, config=FEW, database=database_url)
    with Store(opened.cluster.settings.database.url) as store:
        make_tenants(store, "acme", "plain")
    opened.start("us")
    yield opened
    opened.close()


@pytest.fixture
def set_policy(fleet):
    with Store(fleet.cluster.settings.database.url) as store:
        yield policy_setter(store, "acme")


@pytest.fixture
def gateway(fleet):
    with RunningGateway(fleet.cluster.settings) as running:
        yield running


@pytest.fixture
def client(gateway):
    with Tether(gateway.url, api_key=gateway.key("acme"), patience=0) as opened:
        eventually(
            lambda: any(one.workers for one in opened.models()), PATIENCE_SECONDS, "the worker is seen"
        )
        yield opened


def ask(gateway, path, body, tenant="acme"):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    headers = {"Authorization": f"Bearer {gateway.key(tenant)}"}
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document, answer.headers


def test_what_nobody_serves_runs_on_the_model_that_the_policy_names(fleet, gateway, client, set_policy):
    set_policy(degrade=[RULE])
    job = client.submit("other", "p", max_tokens=50, priority="interactive")
    assert job.degraded_from == "other@1"
    assert len(job.result(PATIENCE_SECONDS).token_ids) == 3
    status = job.status()
    assert (status.model, status.degraded_from) == ("m", "other@1")
    body = {"model": "other", "prompt": "p", "max_tokens": 2, "priority": "interactive"}
    accepted, document, _ = ask(gateway, "/v1/jobs", body)
    assert (accepted, document["degraded_from"]) == (202, "other@1")
    with Tether.direct(fleet.cluster.settings, tenant="acme") as direct:
        assert direct.submit("other", "p", max_tokens=2, priority="interactive").degraded_from == "other@1"
    usual = client.submit("m", "p", max_tokens=5, priority="interactive")
    assert usual.degraded_from is None
    assert len(usual.result(PATIENCE_SECONDS).token_ids) == 5


def test_a_chat_says_which_model_it_ran_on(gateway, client, set_policy):
    set_policy(degrade=[RULE])
    asked = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key("acme"), max_retries=0)
    with asked:
        raw = asked.chat.completions.with_raw_response.create(
            model="other", messages=[{"role": "user", "content": "x"}], max_tokens=20
        )
    assert raw.headers["x-tether-degraded-from"] == "other@1"
    answer = raw.parse()
    assert (answer.model, answer.usage.completion_tokens) == ("m", 3)


def test_only_what_would_be_refused_is_degraded(client, set_policy):
    set_policy(degrade=[RULE])
    waiting = client.submit("other", "p", max_tokens=5)
    assert (waiting.degraded_from, waiting.status().model) == (None, "other")
    set_policy(degrade=[{"model": "m", "to": "other"}])
    assert client.submit("m", "p", max_tokens=2, priority="interactive").degraded_from is None


def test_nobody_else_s_jobs_are_and_what_cannot_be_is_refused_as_before(gateway, client, set_policy):
    set_policy(degrade=[RULE])
    with (
        Tether(gateway.url, api_key=gateway.key("plain"), patience=0) as plain,
        pytest.raises(NoLiveWorker, match="'other'"),
    ):
        plain.submit("other", "p", max_tokens=2, priority="interactive")
    set_policy(degrade=[RULE], priority_ceiling="standard")
    with pytest.raises(PolicyRefused):
        client.submit("other", "p", max_tokens=2, priority="interactive")
    set_policy(degrade=[{"model": "other", "to": "gone"}, {"model": "other@2", "to": "m"}])
    with pytest.raises(NoLiveWorker, match="'other'"):
        client.submit("other", "p", max_tokens=2, priority="interactive")


def test_the_same_request_is_the_same_job_also_once_it_would_not_be_degraded(gateway, client, set_policy):
    set_policy(degrade=[RULE])
    keys = {"correlation_id": "c", "retry_token": "r"}
    job = client.submit("other", "p", max_tokens=2, priority="interactive", **keys)
    for document in ({"degrade": [RULE]}, {}):
        set_policy(**document)
        again = client.submit("other", "p", max_tokens=2, priority="interactive", **keys)
        assert (again.job_id, again.degraded_from) == (job.job_id, "other@1")
    # By a chat, too: what was begun is answered from its start.
    body = {"model": "other", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    set_policy(degrade=[RULE])
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    told = []
    for _ in range(2):
        headers = {"Authorization": f"Bearer {gateway.key('acme')}", "Idempotency-Key": "k"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        told.append((answer.headers["x-tether-degraded-from"], json.loads(answer.read())["model"]))
    connection.close()
    assert told == [("other@1", "m")] * 2


def test_only_what_finds_its_pool_full_is_degraded_and_refused_once_no_pool_has_room(
    fleet, gateway, client, set_policy
):
    fleet.start("eu", version="2")
    eventually(
        lambda: sum(bool(one.workers) for one in client.models()) == 2, PATIENCE_SECONDS, "both are seen"
    )
    set_policy(degrade=[{"model": "m@1", "to": "m@2"}])
    ran, refusal = [], None
    while refusal is None and len(ran) < 50:
        try:
            job = client.submit("m@1", "p", max_tokens=LONG, priority="interactive")
            ran.append(job.degraded_from)
        except QueueFull as error:
            refusal = error
    assert "model 'm'" in str(refusal)
    assert None in ran
    assert "m@1" in ran
    assert ran == sorted(ran, key=lambda lesser: lesser is not None), "its own pool comes first"
