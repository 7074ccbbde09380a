"""What a tenant's policy refuses, changes and restricts, through every door and among real workers."""

import http.client
import json
import subprocess
import sys

import openai
import pytest
from sqlalchemy import select, text

from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet, place_of
from support.policies import policy_setter
from support.waiting import PATIENCE_SECONDS, eventually
from tether import JobState, Tether
from tether.errors import JobNotFound, KeyConflict, PolicyRefused, PolicyUnreadable
from tether.explanations import PlacementOrigin
from tether.gateway.keys.api_keys import Scope
from tether.orchestrator.pruning import Prune
from tether.requests.fields import MAX_TIME_MS
from tether.scheduling import known_policies
from tether.store import Store
from tether.store.schema import jobs
from tether.store.tenants import Tenant, create_tenant

LONG = 8_000
"""Tokens of a job that goes on until it is cancelled."""


class Tenants:
    """Two tenants of a fleet, of which one gets policies."""

    def __init__(self, fleet, store):
        self.fleet = fleet
        self.store = store
        for name in ("acme", "other"):
            store.write_alone(create_tenant, Tenant(name, name, 1.0, None, 1)).result(60)
        self.set = policy_setter(store, "acme")

    def damage(self, document):
        self.set()
        change = text("UPDATE policies SET document = :document")
        self.store.write_alone(
            lambda connection: connection.execute(change, {"document": document}) and None
        ).result(60)


@pytest.fixture
def fleet(monkeypatch, database_url):
    # What is set counts at once.
    monkeypatch.setattr(known_policies, "FRESH_POLICIES_SECONDS", 0)
    opened = PlacedFleet(monkeypatch, rate=50, database=database_url)
    yield opened
    opened.close()


@pytest.fixture
def tenants(fleet):
    with Store(fleet.cluster.settings.database.url) as store:
        yield Tenants(fleet, store)


@pytest.fixture
def gateway(fleet, tenants):
    fleet.start("us")
    fleet.client(1)
    with RunningGateway(fleet.cluster.settings) as running:
        yield running


def client_of(gateway, tenant="acme"):
    client = Tether(gateway.url, api_key=gateway.key(tenant))
    eventually(
        lambda: any(model.workers for model in client.models()), PATIENCE_SECONDS, "the worker is seen"
    )
    return client


@pytest.fixture
def client(gateway):
    with client_of(gateway) as opened:
        yield opened


def ask(gateway, method, path, body=None, tenant="acme", scopes=(Scope.SUBMIT, Scope.READ)):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    headers = {"Authorization": f"Bearer {gateway.key(tenant, scopes)}"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document


def by_command(fleet, gateway, *words):
    environ = {**fleet.cluster.environ, "TETHER_URL": gateway.url, "TETHER_API_KEY": gateway.key("acme")}
    command = [sys.executable, "-m", "tether_cli", *words]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


REFUSED = [
    ({"models": ["other"]}, {}, "model"),
    ({"regions": ["eu"]}, {"region": "us"}, "region"),
    ({"gpu_classes": ["h100"]}, {"gpu_class": "cpu"}, "gpu_class"),
    ({"priority_ceiling": "standard"}, {"priority": "interactive"}, "priority"),
]


def test_what_is_not_allowed_is_refused_through_every_door(fleet, gateway, client, tenants):
    with Tether.direct(fleet.cluster.settings, tenant="acme") as direct, client_of(gateway, "other") as other:
        for policy, options, field in REFUSED:
            tenants.set(**policy)
            words = "the policy of tenant 'acme' does not allow this"
            body = {"model": "m", "prompt": "p", "max_tokens": 2, **options}
            status, document = ask(gateway, "POST", "/v1/jobs", body)
            assert (status, document["error"]["code"]) == (403, "policy_refused")
            assert document["error"]["param"] == field
            assert document["error"]["message"].startswith(words)
            chat = {
                "model": "m",
                "messages": [{"role": "user", "content": "x"}],
                "max_tokens": 2,
                **options,
            }
            status, document = ask(gateway, "POST", "/v1/chat/completions", chat)
            assert (status, document["error"]["code"]) == (403, "policy_refused")
            for each in (client, direct):
                with pytest.raises(PolicyRefused, match=words):
                    each.submit("m", "p", max_tokens=2, **options)
                with pytest.raises(PolicyRefused, match=words):
                    each.explain("m", "p", max_tokens=2, **options)
            with pytest.raises(PolicyRefused, match=words):
                direct.infer.send(model="m", prompt="p", max_tokens=2, **options)
            arguments = [
                part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)
            ]
            told = by_command(fleet, gateway, "submit", "-m", "m", "--no-wait", *arguments, "p")
            assert told.returncode == 6
            assert words in told.stderr
            assert other.submit("m", "p", max_tokens=2, **options).result(PATIENCE_SECONDS).token_ids
        assert not list(client.jobs())


def test_a_job_s_keys_come_before_the_policy(gateway, client, tenants):
    first = client.submit("m", "p", max_tokens=2, retry_token="r")
    tenants.set(models=["other"])
    assert client.submit("m", "p", max_tokens=2, retry_token="r").job_id == first.job_id
    with pytest.raises(PolicyRefused):
        client.submit("m", "p", max_tokens=2, retry_token="s")


def test_an_alias_is_the_same_job_again_whatever_it_stands_for_by_then(gateway, client, tenants):
    tenants.set(aliases={"fast": "m@1"})
    job = client.submit("fast", "p", max_tokens=2, retry_token="r")
    assert job.result(PATIENCE_SECONDS).token_ids
    assert job.status().model == "m"
    tenants.set(aliases={"fast": "other"})
    assert client.submit("fast", "p", max_tokens=2, retry_token="r").job_id == job.job_id
    with pytest.raises(KeyConflict):
        client.submit("m", "p", max_tokens=2, retry_token="r")
    tenants.set(aliases={"fast": "m"})
    chat = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key("acme"))
    answer = chat.chat.completions.create(
        model="fast", messages=[{"role": "user", "content": "x"}], max_tokens=2
    )
    assert answer.model.startswith("m")
    chat.close()


def test_a_job_waits_for_a_region_that_is_allowed_and_says_so_everywhere(fleet, gateway, client, tenants):
    tenants.set(regions=["eu"])
    job = client.submit("m", "p", max_tokens=2)
    words = "is not allowed by the policy of the tenant: region us is not among those that it allows (eu)"

    def waits_for():
        return words in job.status().waits_for

    eventually(waits_for, PATIENCE_SECONDS, "the job says why it waits")
    assert words in client.explain("m", "p", max_tokens=2).why
    [told] = job.placements().placements[-1].explanation.pools
    assert (told.excluded, told.words) == ("policy", words)
    assert words in by_command(fleet, gateway, "jobs", "show", job.job_id).stdout
    fleet.start("eu")
    assert job.result(PATIENCE_SECONDS).token_ids
    assert place_of(job)[1] == "eu"


def test_nothing_leaves_a_region_by_a_move_or_a_retry(fleet, gateway, tenants):
    tenants.set(regions=["us"])
    with Tether.direct(fleet.cluster.settings, tenant="acme") as direct:
        busy = direct.submit("m", "p", max_tokens=LONG)
        eventually(lambda: busy.status().state is JobState.RUNNING, PATIENCE_SECONDS, "it runs")
        jobs = [direct.submit("m", "p", max_tokens=2) for _ in range(3)]
        fleet.start("eu")
        fleet.client(2)
        us = jobs[0].status().pool
        eu = us.replace(".us.", ".eu.")

        def moved():
            status, document = ask(
                gateway,
                "POST",
                f"/v1/operator/pools/{us}/move",
                {"to": eu},
                tenant="default",
                scopes=(Scope.OPERATOR,),
            )
            return status == 200 and document["jobs"] > 0

        eventually(moved, PATIENCE_SECONDS, "jobs are moved")
        eventually(
            lambda: any(len(chosen_for(job)) > 1 for job in jobs),
            PATIENCE_SECONDS,
            "what was moved is placed again",
        )
        busy.cancel()
        for job in jobs:
            assert job.result(PATIENCE_SECONDS).token_ids
            assert place_of(job)[1] == "us"
        for job in jobs:
            for choice in chosen_for(job)[1:]:
                [told] = [pool for pool in choice.explanation.pools if pool.pool == eu]
                assert told.excluded == "policy"


def chosen_for(job):
    """The choices of its pools. A rebuild of Redis hands over once more without one."""
    return [each for each in job.placements().placements if each.origin is PlacementOrigin.CHOSEN]


@pytest.mark.parametrize("document", ["{", '{"from_a_newer_version": true}', "[]"])
def test_a_policy_that_cannot_be_read_costs_its_tenant_alone(gateway, client, tenants, document):
    tenants.set(regions=["eu"])
    waiting = client.submit("m", "p", max_tokens=2)
    tenants.damage(document)
    status, answer = ask(gateway, "POST", "/v1/jobs", {"model": "m", "prompt": "p", "max_tokens": 2})
    assert (status, answer["error"]["code"], answer["error"]["retryable"]) == (503, "policy_unreadable", True)
    with client_of(gateway, "other") as other:
        assert other.submit("m", "p", max_tokens=2).result(PATIENCE_SECONDS).token_ids
        # One that is waited for is placed by the same loop as the one that nobody may place.
        assert other.submit("m", "p", max_tokens=2, delay=0.1).result(PATIENCE_SECONDS).token_ids
    assert "cannot be read" in waiting.status().waits_for
    assert waiting.status().state is JobState.PARKED
    operator = {"tenant": "default", "scopes": (Scope.OPERATOR,)}
    shown = ask(gateway, "GET", "/v1/operator/tenants/acme/policy", **operator)[1]
    assert shown["problem"]
    tenants.set()
    assert waiting.result(PATIENCE_SECONDS).token_ids


def test_only_models_are_shown_that_may_be_used(gateway, client, tenants):
    with client_of(gateway, "other") as other:
        everything = [model.name for model in other.models()]
        assert "m" in everything
        tenants.set(models=["m@*"], aliases={"good": "m"})
        assert [model.name for model in client.models()] == ["m"]
        assert ask(gateway, "GET", "/v1/models/good")[1]["id"] == "m"
        tenants.set(models=["elsewhere"])
        assert client.models() == []
        status, answer = ask(gateway, "GET", "/v1/models/m")
        assert (status, answer["error"]["code"]) == (404, "model_unknown")
        tenants.damage("{")
        for path in ("/v1/models", "/v1/models/m"):
            status, answer = ask(gateway, "GET", path)
            assert (status, answer["error"]["code"]) == (503, "policy_unreadable")
        assert [model.name for model in other.models()] == everything


def test_a_patient_client_waits_until_the_policy_can_be_read(fleet, gateway, tenants):
    tenants.damage("{")
    with (
        Tether.direct(fleet.cluster.settings, tenant="acme") as direct,
        pytest.raises(PolicyUnreadable, match="version 1 cannot be read"),
    ):
        direct.submit("m", "p", max_tokens=2)


def test_no_priority_is_raised_above_the_ceiling(gateway, client, tenants):
    tenants.set(priority_ceiling="standard", regions=["eu"])
    job = client.submit("m", "p", priority="batch", max_tokens=2)
    job.reprioritise("standard")
    with pytest.raises(PolicyRefused, match="use standard or batch"):
        job.reprioritise("interactive")
    assert job.status().priority == "standard"
    operator = {"tenant": "default", "scopes": (Scope.OPERATOR,)}
    path = f"/v1/operator/jobs/{job.job_id}"
    assert ask(gateway, "PATCH", path, {"priority": "interactive"}, **operator)[0] == 403
    status, many = ask(
        gateway,
        "POST",
        "/v1/operator/jobs:reprioritise-where",
        {"priority": "interactive", "where": {"tenant": "acme", "state": ["parked"]}},
        **operator,
    )
    assert status == 200, many
    assert "policy_refused" in json.dumps(many)
    assert job.status().priority == "standard"


def test_a_default_time_limit_ends_what_says_none(gateway, client, tenants):
    tenants.set(defaults={"time_limit_ms": 600_000}, regions=["eu"])
    limited, own = (
        client.submit("m", "p", max_tokens=2),
        client.submit("m", "p", max_tokens=2, time_limit=5_000),
    )
    statuses = [job.status() for job in (limited, own)]
    limits = [round((status.deadline - status.created_at) / 1000, -2) for status in statuses]
    assert limits == [600, 5_000]


def test_jobs_are_kept_for_as_long_as_the_policy_says(fleet, client, tenants):
    def kept(job):
        query = select(jobs.c.retention_ms).where(jobs.c.job_id == job.job_id)
        return tenants.store.read(lambda connection: connection.execute(query).scalar_one())

    tenants.set(defaults={"retention_ms": 60_000})
    short = client.submit("m", "p", max_tokens=2)
    tenants.set()
    usual = client.submit("m", "p", max_tokens=2)
    assert (kept(short), kept(usual)) == (60_000, None)
    for job in (short, usual):
        job.result(PATIENCE_SECONDS)
    eventually(
        lambda: short.status().finished_at and usual.status().finished_at, PATIENCE_SECONDS, "both ended"
    )
    later = short.status().finished_at + 60_001
    prune = Prune(tenants.store, None, retention_ms=None, now_ms=lambda: later)
    prune._trimmed_at = MAX_TIME_MS
    prune()
    with pytest.raises(JobNotFound):
        short.status()
    assert usual.status().state is JobState.SUCCEEDED


def test_a_job_that_names_no_priority_gets_the_tenant_s(fleet, gateway, client, tenants):
    tenants.set(defaults={"priority": "batch"}, regions=["eu"])
    with Tether.direct(fleet.cluster.settings, tenant="acme") as direct:
        sent = by_command(fleet, gateway, "submit", "-m", "m", "--no-wait", "p").stdout.strip()
        jobs = [
            client.submit("m", "p", max_tokens=2),
            direct.submit("m", "p", max_tokens=2),
            client.job(sent),
            client.job(direct.infer.send(model="m", prompt="p", max_tokens=2).message_id),
        ]
        named = client.submit("m", "p", max_tokens=2, priority="standard")
        assert [job.status().priority for job in jobs] == ["batch"] * 4
    assert named.status().priority == "standard"


def test_a_chat_completion_that_names_no_priority_has_the_most_urgent_one_that_is_allowed(
    gateway, client, tenants
):
    tenants.set(priority_ceiling="standard")
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    status, document = ask(gateway, "POST", "/v1/chat/completions", chat)
    assert status == 200, document
    [job] = client.jobs()
    assert job.priority == "standard"
    status, document = ask(gateway, "POST", "/v1/chat/completions", {**chat, "priority": "interactive"})
    assert (status, document["error"]["code"]) == (403, "policy_refused")
