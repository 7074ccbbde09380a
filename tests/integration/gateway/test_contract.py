"""The gateway against its own OpenAPI document: whatever is sent, what is answered stands in the document."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tether.gateway.keys.api_keys import Scope

EXAMPLES, LONG_EXAMPLES = 12, 25
"""Examples of an operation, and with `--long`. They are the same ones every time, the shorter row first."""

FLEET_EXAMPLES = 6
"""Examples of a route that reads the whole fleet from Redis each time."""


@pytest.fixture(scope="module")
def operations(gateway):
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


OPERATIONS = [
    *("POST /v1/jobs", "POST /v1/jobs:batch", "GET /v1/jobs", "GET /v1/jobs/{job_id}"),
    *("POST /v1/chat/completions", "GET /v1/jobs/{job_id}/attempts", "GET /v1/jobs/{job_id}/placements"),
    "POST /v1/explain",
    *("DELETE /v1/jobs/{job_id}", "GET /v1/jobs/{job_id}/stream", "GET /v1/models", "GET /v1/models/{name}"),
    *(
        "GET /v1/keys",
        "POST /v1/keys",
        "DELETE /v1/keys/{key_id}",
        *("GET /v1/operator/workers", "GET /v1/operator/workers/{worker}"),
        *(f"POST /v1/operator/workers/{{worker}}/{action}" for action in ("cordon", "drain", "uncordon")),
        *("GET /v1/operator/pools", "GET /v1/operator/pools/{pool}"),
        *(f"POST /v1/operator/pools/{{pool}}/{verb}" for verb in ("pause", "resume", "move", "purge")),
        *("GET /v1/operator/breakers", "POST /v1/operator/breakers/reset"),
        *("GET /v1/operator/worker-keys", "POST /v1/operator/worker-keys"),
        "DELETE /v1/operator/worker-keys/{worker}",
        *("GET /v1/operator/jobs", "GET /v1/operator/jobs/{job_id}", "DELETE /v1/operator/jobs/{job_id}"),
        *("GET /v1/operator/tenants", "POST /v1/operator/tenants", "PATCH /v1/operator/tenants/{tenant_id}"),
        *(f"{method} /v1/operator/tenants/{{tenant_id}}/policy" for method in ("GET", "POST")),
        *("GET /v1/usage", "GET /v1/operator/usage"),
        *("GET /v1/operator/keys", "POST /v1/operator/keys", "DELETE /v1/operator/keys/{key_id}"),
        *(f"GET /v1/operator/jobs/{{job_id}}/{part}" for part in ("attempts", "placements")),
        "GET /v1/operator/audit",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    ),
]

LETTERS = [
    f"{method} {prefix}/dead-letters{rest}"
    for prefix in ("/v1", "/v1/operator")
    for method, rest in (
        *(("GET", ""), ("GET", ":export"), ("GET", ":summary"), ("GET", "/{job_id}")),
        *(("POST", ":retry"), ("POST", ":retry-where"), ("POST", ":purge")),
    )
]
MESSAGES = [
    *("GET /v1/operator/dead-messages/{queue}", "GET /v1/operator/dead-messages/{queue}/{retry_token}"),
    *("POST /v1/operator/dead-messages:retry", "POST /v1/operator/dead-messages:purge"),
]
CHANGES = [
    f"POST {prefix}/jobs:{verb}-where"
    for prefix in ("/v1", "/v1/operator")
    for verb in ("cancel", "reprioritise")
]
OPERATIONS += ["PATCH /v1/jobs/{job_id}", "PATCH /v1/operator/jobs/{job_id}"]
OPERATIONS += [*LETTERS, "GET /v1/operator/dead-messages", *MESSAGES, *CHANGES]

ENDLESS = ("GET /v1/operator/fleet/changes",)
"""They answer until the client leaves."""

CONTRADICT = (
    # A token that was never issued is none, however well it is formed; filters can be texts that no text is.
    *(*LETTERS, *MESSAGES, *CHANGES),
    *("POST /v1/jobs", "POST /v1/chat/completions", "GET /v1/jobs", "GET /v1/operator/jobs"),
    "POST /v1/explain",
    # Aliases can stand for what a policy does not allow, and days be in the wrong order.
    *("GET /v1/usage", "GET /v1/operator/usage"),
    "POST /v1/operator/tenants/{tenant_id}/policy",
    # Not every such number is a key; and a tenant can be made once.
    *("POST /v1/operator/worker-keys", "POST /v1/operator/tenants"),
)
TAKE_NOTHING = ("GET /healthz", "GET /readyz", "GET /metrics")
TAKE_MORE = (
    *(*LETTERS, *MESSAGES, *CHANGES),
    *("GET /v1/operator/jobs", "GET /v1/operator/audit", "POST /v1/operator/keys"),
    *("POST /v1/operator/tenants", "PATCH /v1/operator/tenants/{tenant_id}", "POST /v1/operator/worker-keys"),
    "POST /v1/keys",
    "POST /v1/jobs:batch",
    "POST /v1/jobs",
    "POST /v1/explain",
    "GET /v1/jobs",
    "POST /v1/chat/completions",
)


def test_the_document_names_every_route(operations):
    assert sorted(operations) == sorted((*OPERATIONS, *ENDLESS))


@pytest.mark.parametrize(
    ("mode", "label"),
    [("positive", label) for label in OPERATIONS]
    + [("negative", label) for label in OPERATIONS if label not in TAKE_NOTHING],
)
def test_every_answer_stands_in_the_document(operations, gateway, request, label, mode):
    operation = operations[label]
    examples = LONG_EXAMPLES if request.config.getoption("--long") else EXAMPLES
    scope = Scope.OPERATOR if "/operator/" in label else Scope.ADMIN
    headers = {"Authorization": f"Bearer {gateway.key(scopes=(scope,))}"} if "/v1" in label else {}
    # Each of a batch is refused for itself; texts of other scripts are taken than the document's; and fields
    # that are good each can contradict each other.
    checks = schemathesis.checks
    left_out = [checks.negative_data_rejection] if label in TAKE_MORE else []
    left_out += [checks.positive_data_acceptance] if label in CONTRADICT else []

    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    @settings(
        max_examples=FLEET_EXAMPLES if "/workers" in label else examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        case.call_and_validate(headers=headers, timeout=30, excluded_checks=left_out)

    check()
