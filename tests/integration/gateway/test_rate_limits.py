"""Rate limits of tenants through every door: over HTTP, with OpenAI's client, from Python, by the command."""

import http.client
import itertools
import json
import threading
from dataclasses import replace

import openai
import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.databases import NOW, make_tenants
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether import Tether
from tether.core.control_plane import ControlPlane
from tether.errors import RateLimited
from tether.jobs import JobRequest
from tether.policies.reading import policy_text, read_policy
from tether.scheduling import known_policies
from tether.store import Store
from tether.store.policies import set_policy
from tether.store.tenants import change_tenant
from tether.telemetry import metrics
from tether_cli.main import main

numbers = itertools.count()
ALMOST_NONE = {"requests_per_minute": 1, "burst_seconds": 120}
"""Two at once, and then none while a test runs."""


@pytest.fixture(autouse=True)
def _policies_count_at_once(monkeypatch):
    monkeypatch.setattr(known_policies, "FRESH_POLICIES_SECONDS", 0)


class Limited:
    """A tenant of its own for a test, and its ways in."""

    def __init__(self, settings, gateway, limits):
        self.name = f"limited-{next(numbers)}"
        self.settings = settings
        self.gateway = gateway
        with Store(settings.database.url) as store:
            make_tenants(store, self.name)
        self.set(limits)

    def set(self, limits):
        document = policy_text(read_policy({"limits": limits} if limits else {}))
        with Store(self.settings.database.url) as store:
            store.write_alone(set_policy, self.name, document, "test", NOW).result()

    def post(self, path, body, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=PATIENCE_SECONDS)
        key = {"Authorization": f"Bearer {self.gateway.key(self.name)}"}
        connection.request("POST", path, json.dumps(body), {**key, **headers})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, document

    def submit(self, **fields):
        key = {"Idempotency-Key": fields.pop("key")} if "key" in fields else {}
        return self.post("/v1/jobs", {"model": "counter", "prompt": "a", **fields}, **key)

    def statuses(self, count, **fields):
        return [self.submit(**fields)[0] for _ in range(count)]


@pytest.fixture
def limited(service, gateway):
    return lambda **limits: Limited(service.settings, gateway, limits)


def rate_headers_of(headers):
    return {name: value for name, value in headers.items() if "ratelimit" in name or name == "retry-after"}


def test_a_tenant_gets_its_burst_and_then_is_told_when_to_come_again(limited):
    tenant = limited(requests_per_minute=6, burst_seconds=20)
    status, headers, _ = tenant.submit()
    assert status == 202
    assert rate_headers_of(headers) == {
        "ratelimit-policy": '"requests";q=2;w=20',
        "ratelimit": '"requests";r=1;t=10',
    }
    assert tenant.submit()[0] == 202
    status, headers, document = tenant.submit()
    assert (status, document["error"]["code"], document["error"]["retryable"]) == (429, "rate_limited", True)
    wait = document["error"]["retry_after_ms"]
    assert 5_000 < wait <= 10_000
    assert int(headers["retry-after"]) == -(-wait // 1000)
    assert headers["ratelimit"].startswith('"requests";r=0;t=')
    assert int(headers["ratelimit"].rpartition("=")[2]) <= int(headers["retry-after"])


def test_tokens_count_with_the_prompt_and_the_longest_answer(limited):
    tenant = limited(tokens_per_minute=1, burst_seconds=3_600)
    status, headers, _ = tenant.submit(prompt="x" * 40, max_tokens=40)
    assert (status, headers["ratelimit-policy"]) == (202, '"tokens";q=60;w=3600;qu="tokens"')
    assert headers["ratelimit"].startswith('"tokens";r=9;')
    status, _, document = tenant.submit(prompt="a", max_tokens=30)
    assert (status, document["error"]["code"]) == (429, "rate_limited")
    assert tenant.submit(prompt="a", max_tokens=8)[0] == 202


def test_what_is_larger_than_the_whole_burst_is_refused_for_good(limited):
    tenant = limited(tokens_per_minute=100)
    status, _, document = tenant.submit(max_tokens=200)
    assert (status, document["error"]["code"]) == (422, "request_invalid")
    assert document["error"]["param"] == "max_tokens"
    assert tenant.submit(max_tokens=90)[0] == 202


def test_the_same_keys_again_are_not_charged_and_never_refused(limited):
    tenant = limited(**ALMOST_NONE)
    assert [tenant.submit(key="k")[0] for _ in range(5)] == [202, 200, 200, 200, 200]
    assert tenant.statuses(2) == [202, 429]
    assert tenant.submit(key="k")[0] == 200
    assert tenant.submit(key="k", prompt="another")[0] == 409


def test_what_other_gates_refuse_is_not_charged(limited):
    tenant = limited(**ALMOST_NONE)
    assert tenant.submit(model="nothing")[0] == 404
    assert tenant.submit(max_tokens=10**6)[0] == 422
    assert tenant.statuses(3) == [202, 202, 429]


def test_what_the_quota_refuses_is_not_charged(limited):
    tenant = limited(requests_per_minute=1, burst_seconds=180)
    with Store(tenant.settings.database.url) as store:
        store.write_alone(change_tenant, tenant.name, {"quota": 0}).result()
        for _ in range(5):
            assert tenant.submit()[2]["error"]["code"] == "quota_exceeded"
        store.write_alone(change_tenant, tenant.name, {"quota": 10}).result()
    assert tenant.statuses(4) == [202, 202, 202, 429]


def test_each_of_a_batch_is_judged_by_itself_in_order(limited):
    tenant = limited(tokens_per_minute=1, burst_seconds=3_600)
    jobs = [{"model": "counter", "prompt": "a", "max_tokens": tokens} for tokens in (39, 39, 9, 9)]
    jobs.insert(1, {"model": "nothing", "prompt": "a"})
    status, headers, document = tenant.post("/v1/jobs:batch", {"jobs": jobs})
    assert status == 200
    assert [item["status"] for item in document["data"]] == [202, 404, 429, 202, 202]
    assert headers["ratelimit"].startswith('"tokens";r=0;')
    assert document["data"][2]["error"]["code"] == "rate_limited"


def test_a_batch_that_is_sent_again_is_the_same_jobs(limited):
    tenant = limited(**ALMOST_NONE)
    jobs = [{"model": "counter", "prompt": "a", "retry_token": str(number)} for number in range(3)]
    statuses = [
        [item["status"] for item in tenant.post("/v1/jobs:batch", {"jobs": jobs})[2]["data"]]
        for _ in range(2)
    ]
    assert statuses == [[202, 202, 429], [200, 200, 429]]


def test_who_is_not_limited_is_told_nothing_and_redis_is_not_asked(limited, service):
    tenant = limited()
    _, headers, _ = tenant.submit()
    assert not rate_headers_of(headers)
    assert not service.cluster.redis.exists(service.cluster.keys.bucket(tenant.name))


def test_limits_that_are_changed_count(limited):
    tenant = limited(**ALMOST_NONE)
    assert tenant.statuses(3) == [202, 202, 429]
    tenant.set({"requests_per_minute": 60_000})
    assert tenant.statuses(2) == [202, 202]
    tenant.set({})
    assert tenant.statuses(2) == [202, 202]


def test_several_gateways_admit_what_one_would(limited, service):
    tenant = limited(requests_per_minute=1, burst_seconds=1_200)
    admitted = []
    with RunningGateway(service.settings) as second, RunningGateway(service.settings) as third:

        def ask(gateway):
            mine = Tether(gateway.url, api_key=gateway.key(tenant.name), patience=0)
            with mine:
                for _ in range(12):
                    try:
                        admitted.append(mine.submit("counter", prompt="a"))
                    except RateLimited:
                        refused.append(1)

        refused = []
        gateways = (tenant.gateway, second, third)
        threads = [threading.Thread(target=ask, args=(gateway,)) for gateway in gateways]
        for thread in threads:
            thread.start()
        for thread in threads:
            join(thread)
    # One more for each minute that it took.
    assert 20 <= len(admitted) <= 22
    assert len(admitted) + len(refused) == 36


def test_openais_client_sees_its_headers_and_waits_as_it_is_told(limited):
    tenant = limited(requests_per_minute=60, tokens_per_minute=60_000, burst_seconds=1)
    answers = []
    with openai.OpenAI(
        base_url=f"{tenant.gateway.url}/v1",
        api_key=tenant.gateway.key(tenant.name),
        max_retries=2,
        timeout=PATIENCE_SECONDS,
    ) as client:
        client._client.event_hooks["response"].append(answers.append)

        def ask(**options):
            said = [{"role": "user", "content": "a b"}]
            return client.chat.completions.with_raw_response.create(
                model="counter", messages=said, max_tokens=9, **options
            )

        first = ask().headers
        assert first["x-ratelimit-limit-requests"] == "1"
        assert first["x-ratelimit-remaining-requests"] == "0"
        assert first["x-ratelimit-reset-requests"] == "1s"
        assert first["x-ratelimit-limit-tokens"] == "1000"
        assert int(first["x-ratelimit-remaining-tokens"]) < 1000
        assert first["x-ratelimit-reset-tokens"].endswith("ms")
        assert first["ratelimit-policy"] == '"requests";q=1;w=1, "tokens";q=1000;w=1;qu="tokens"'
        # Who came again before the time would be refused once more.
        tenant.set({"requests_per_minute": 12, "burst_seconds": 5})
        assert ask(stream=True).headers["x-ratelimit-remaining-requests"] == "0"
    statuses = [answer.status_code for answer in answers]
    assert statuses in ([200, 429, 200], [200, 200])
    if 429 in statuses:
        refused = answers[1].headers
        assert 1 <= int(refused["retry-after"]) <= 5
        assert refused["x-should-retry"] == "true"
        assert refused["x-ratelimit-remaining-requests"] == "0"


def test_openais_client_raises_its_own_error(limited):
    tenant = limited(**ALMOST_NONE)
    assert tenant.statuses(2) == [202, 202]
    with (
        openai.OpenAI(
            base_url=f"{tenant.gateway.url}/v1", api_key=tenant.gateway.key(tenant.name), max_retries=0
        ) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="counter", messages=[{"role": "user", "content": "a"}])
    assert caught.value.code == "rate_limited"
    assert int(caught.value.response.headers["retry-after"]) > 1


def test_a_python_client_is_told_by_type_and_when(limited):
    tenant = limited(**ALMOST_NONE)
    with Tether(tenant.gateway.url, api_key=tenant.gateway.key(tenant.name), patience=0) as client:
        client.submit("counter", prompt="a")
        client.submit("counter", prompt="a")
        with pytest.raises(RateLimited) as caught:
            client.submit("counter", prompt="a")
    assert 50 < caught.value.retry_after <= 60


def test_a_python_client_waits_as_long_as_its_patience_lasts(limited):
    tenant = limited(requests_per_minute=120, burst_seconds=1)
    with Tether(tenant.gateway.url, api_key=tenant.gateway.key(tenant.name)) as client:
        assert len({client.submit("counter", prompt="a").job_id for _ in range(4)}) == 4


def test_a_direct_client_has_the_same_bucket(limited, service):
    tenant = limited(**ALMOST_NONE)
    assert tenant.statuses(1) == [202]
    with Tether.direct(service.settings, tenant=tenant.name) as client:
        client.submit("counter", prompt="a")
        with pytest.raises(RateLimited, match="has used up its rate limit of 1 requests a minute"):
            client.submit("counter", prompt="a")
    assert tenant.statuses(1) == [429]


def test_the_command_exits_as_for_other_refusals_that_pass(limited):
    tenant = limited(**ALMOST_NONE)
    assert tenant.statuses(2) == [202, 202]
    environ = {"TETHER_URL": tenant.gateway.url, "TETHER_API_KEY": tenant.gateway.key(tenant.name)}
    result = CliRunner().invoke(main, ["submit", "--model", "counter", "a"], env=environ)
    assert result.exit_code == 4, result.output
    assert "rate limit of 1 requests a minute" in result.output


def test_jobs_of_tasks_count_and_are_not_refused(limited, service):
    tenant = limited(**ALMOST_NONE)
    with ControlPlane(service.settings) as plane:
        request = JobRequest(model="counter", prompt="a")
        for _ in range(4):
            envelope = plane.scheduler.envelope(request, tenant.name)
            plane.broker.enqueue(replace(envelope, is_promised=True))
    assert tenant.statuses(1) == [429]


def test_refusals_are_counted_by_what_ran_out(limited):
    counter = metrics.RATE_LIMITED.labels(limit="requests")
    tenant = limited(**ALMOST_NONE)
    before = counter.value
    assert tenant.statuses(4) == [202, 202, 429, 429]
    assert counter.value == before + 2


@pytest.fixture
def without_redis():
    with Cluster(models={"counter": (0, 1)}) as cluster, RunningGateway(cluster.settings) as running:
        yield Limited(cluster.settings, running, ALMOST_NONE), cluster


def test_while_redis_is_away_the_gateway_counts_for_itself(without_redis):
    tenant, cluster = without_redis
    assert tenant.statuses(1) == [202]
    cluster.server.kill()
    assert tenant.statuses(3) == [202, 429, 429]
    cluster.server.restart()
    # What was taken meanwhile, Redis has not been told.
    eventually(lambda: 202 in tenant.statuses(1), PATIENCE_SECONDS, "that Redis is asked again")
    eventually(lambda: 429 in tenant.statuses(1), PATIENCE_SECONDS, "a refusal")
