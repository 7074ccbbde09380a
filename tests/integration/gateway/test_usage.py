"""Quotas of a day and a month, and what was used, over HTTP and in Python."""

import http.client
import json

import pytest

from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.errors import SpendingExceeded
from tether.gateway.keys.api_keys import Scope
from tether.store import Store
from tether.store.policies import set_policy
from tether.store.tenants import Tenant, create_tenant

TENANT = "thrifty"


@pytest.fixture(scope="module")
def thrifty(service):
    """A tenant that may spend two jobs a day."""
    document = json.dumps({"quotas": {"requests_per_day": 2, "tokens_per_month": 1_000_000}})
    with Store(service.settings.database.url) as store:
        store.write_alone(create_tenant, Tenant(TENANT, TENANT, 1.0, None, 1)).result()
        store.write_alone(set_policy, TENANT, document, "cli:test", 1).result()


@pytest.fixture
def ask(gateway):
    def ask_one(method, path, body=None, scopes=(Scope.READ, Scope.SUBMIT), tenant=TENANT):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {gateway.key(tenant, scopes)}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return answer.status, document, answer.headers

    return ask_one


def test_who_has_spent_its_quota_is_told_until_when_and_sees_what_it_used(thrifty, ask, gateway):
    body = {"model": "counter", "prompt": "one two", "max_tokens": 4}
    jobs = [ask("POST", "/v1/jobs", {**body, "labels": {"n": str(n)}})[1]["job_id"] for n in range(2)]
    for job_id in jobs:
        eventually(
            lambda job_id=job_id: ask("GET", f"/v1/jobs/{job_id}")[1]["state"] == "succeeded",
            PATIENCE_SECONDS,
            "the job succeeds",
        )
    status, document, headers = ask("POST", "/v1/jobs", body)
    assert (status, document["error"]["code"]) == (429, "spending_exceeded")
    assert "2 requests in the day" in document["error"]["message"]
    assert 0 < int(headers["retry-after"]) <= 86_400
    chat = {"model": "counter", "messages": [{"role": "user", "content": "one"}]}
    status, document, _ = ask("POST", "/v1/chat/completions", chat)
    assert (status, document["error"]["code"]) == (429, "spending_exceeded")
    with Tether(gateway.url, gateway.key(TENANT)) as client, pytest.raises(SpendingExceeded) as caught:
        client.submit("counter", "one two")
    assert caught.value.retry_after > 0

    _, report, _ = ask("GET", "/v1/usage")
    (row,) = report["data"]
    assert (row["tenant_id"], row["model"], row["jobs"], row["succeeded"]) == (TENANT, "counter", 2, 2)
    assert row["output_tokens"] == 8
    assert [(use["unit"], use["per"], use["limit"], use["held"]) for use in report["quotas"]] == [
        ("requests", "day", 2, 0),
        ("tokens", "month", 1_000_000, 0),
    ]
    assert [use["spent"] for use in report["quotas"]] == [2, row["input_tokens"] + 8]
    operator = {"scopes": (Scope.OPERATOR,), "tenant": "default"}
    _, whole, _ = ask("GET", "/v1/operator/usage", **operator)
    assert row in whole["data"]
    assert "quotas" not in whole
    assert ask("GET", f"/v1/operator/usage?tenant={TENANT}", **operator)[1] == report
    status, unknown, _ = ask("GET", "/v1/operator/usage?tenant=nobody", **operator)
    assert (status, unknown["error"]["code"]) == (404, "tenant_unknown")


@pytest.mark.parametrize(
    "query",
    ["from=yesterday", "from=2026-02-30", "from=2026-01-02&to=2026-01-01", "days=3", "tenant=default"],
)
def test_what_is_no_day_is_refused(ask, query):
    status, document, _ = ask("GET", f"/v1/usage?{query}", tenant="default")
    assert (status, document["error"]["code"]) == (422, "request_invalid")
