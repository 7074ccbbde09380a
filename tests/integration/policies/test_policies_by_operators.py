"""Policies are shown, checked, compared and set: over HTTP, and by the command, here or over HTTP."""

import http.client
import json

import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.databases import make_tenants
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS
from tether.gateway.keys.api_keys import Scope
from tether.store import Store
from tether.store.audit_pages import audit_page
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

PATH = "/v1/operator/tenants/acme/policy"


@pytest.fixture
def cluster(database_url):
    with Cluster(database=database_url, models={"m": (0, 1)}) as opened:
        with Store(opened.settings.database.url) as store:
            make_tenants(store, "acme")
        yield opened


@pytest.fixture
def gateway(cluster):
    with RunningGateway(cluster.settings) as running:
        yield running


@pytest.fixture
def ask(gateway):
    def ask_one(method, path=PATH, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {gateway.key('default', (Scope.OPERATOR,))}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return answer.status, document

    return ask_one


def test_a_policy_is_set_over_http_version_by_version(ask, cluster):
    assert ask("GET") == (
        200,
        {
            "object": "policy",
            "tenant_id": "acme",
            "version": 0,
            "document": {},
            "problem": None,
            "created_at": None,
            "created_by": None,
        },
    )
    first = {"models": ["m*"], "aliases": {"a": "m"}}
    status, made = ask("POST", body={"document": first, "if_version": 0})
    assert (status, made["version"], made["document"]) == (200, 1, first)
    assert made["differences"] == [
        {"path": "models", "before": None, "after": ["m*"]},
        {"path": "aliases.a", "before": None, "after": "m"},
    ]
    assert ask("POST", body={"document": {}, "if_version": 0})[1]["error"]["code"] == "policy_conflict"
    status, dry = ask("POST", body={"document": {}, "dry_run": True})
    assert (status, dry["version"], len(dry["differences"])) == (200, 1, 2)
    assert ask("POST", body={"document": {}, "if_version": 1.0})[1]["version"] == 2
    assert ask("GET", f"{PATH}?version=1")[1]["document"] == first
    assert ask("GET")[1]["document"] == {}
    with Store(cluster.settings.database.url) as store:
        entries = store.read(audit_page, action="policies.set").entries
    assert [(entry.target, entry.result) for entry in entries] == [
        ("acme", "ok"),
        ("acme", "policy_conflict"),
        ("acme", "ok"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (PATH, {"document": {"model": 1, "regions": []}}, 422, "policy_invalid"),
        (PATH, {"document": []}, 422, "policy_invalid"),
        (PATH, {}, 422, "request_invalid"),
        (PATH, {"document": {}, "version": 1}, 422, "request_invalid"),
        (PATH, {"document": {}, "if_version": -1}, 422, "request_invalid"),
        (PATH, {"document": {}, "dry_run": 1}, 422, "request_invalid"),
        (PATH.replace("acme", "nobody"), {"document": {}}, 404, "tenant_unknown"),
        (PATH.replace("acme", "No body"), {"document": {}}, 404, "tenant_unknown"),
        (PATH, {"document": {"models": ["m" * 250] * 600}}, 413, "request_too_large"),
        (f"{PATH}?version=2", None, 404, "policy_unknown"),
        (f"{PATH}?version=x", None, 422, "request_invalid"),
        (f"{PATH}?vers=1", None, 422, "request_invalid"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_set(ask, path, body, status, code):
    method = "GET" if body is None else "POST"
    found, document = ask(method, path.replace(" ", "%20"), body)
    assert (found, document["error"]["code"]) == (status, code), document
    assert ask("GET")[1]["version"] == 0


@pytest.fixture(params=["here", "over HTTP"])
def run(request, cluster):
    gateway = request.getfixturevalue("gateway") if request.param == "over HTTP" else None

    def run_one(*words, status=0, given=None, asks=True):
        environ = {"TETHER_CONFIG": str(cluster.file), "TETHER_DIR": None}
        if gateway is not None:
            environ = {"TETHER_API_KEY": gateway.key("default", (Scope.OPERATOR,))}
            words = (*words, "--url", gateway.url) if asks else words
        surroundings = CommandEnvironment(find_running=lambda: None)
        result = CliRunner(env=environ).invoke(main, ["policies", *words], input=given, obj=surroundings)
        assert result.exit_code == status, result.output
        return result

    return run_one


def test_the_command_shows_checks_compares_and_sets(run, tmp_path):
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"regions": ["eu"], "defaults": {"time_limit_ms": 5}}))
    assert "everything is allowed" in run("show", "acme").stderr
    assert "valid" in run("check", str(file), asks=False).stderr
    assert run("check", str(file), "--tenant", "acme").stdout == run("diff", "acme", str(file)).stdout
    assert run("diff", "acme", str(file)).stdout.splitlines() == [
        'regions: not set -> ["eu"]',
        "defaults.time_limit_ms: not set -> 5",
    ]
    assert "version 1 now" in run("set", "acme", str(file), "--if-version", "0").stderr
    assert "version 1" in run("diff", "acme", str(file)).stderr
    assert json.loads(run("show", "acme").stdout) == json.loads(file.read_text())
    conflict = run("set", "acme", "-", "--if-version", "0", given="{}", status=2)
    assert "has version 1, not 0" in conflict.stderr
    made = json.loads(run("set", "acme", "-", "--json", given="{}").stdout)
    assert (made["version"], made["document"], len(made["differences"])) == (2, {}, 2)
    old = json.loads(run("show", "acme", "--version", "1", "--json").stdout)
    assert (old["version"], old["problem"]) == (1, None)
    assert old["created_by"].startswith(("cli:", "key_", "k"))
    assert "no version 9" in run("show", "acme", "--version", "9", status=2).stderr
    assert "no tenant 'acne'" in run("show", "acne", status=2).stderr


def test_the_command_says_all_that_is_wrong_at_once(run):
    result = run("check", "-", given='{"regoins": ["eu"], "priority_ceiling": "high"}', status=2, asks=False)
    assert "regoins: unknown field; did you mean regions?" in result.stderr
    assert "priority_ceiling: 'high' is not valid" in result.stderr
    assert "line 1" in run("set", "acme", "-", given="{", status=2).stderr
    shown = json.loads(run("check", "-", "--json", given='{"models": []}', asks=False).stdout)
    assert shown == {"object": "policy_check", "document": {"models": []}}
