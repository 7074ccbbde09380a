"""Operators over HTTP: they reach all tenants, nobody else does, and what they do stands in the audit log."""

import http.client
import itertools
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from nacl.signing import SigningKey

from support.api_keys import add_api_key
from support.clients import OTHER_TENANT
from support.gateways import RunningGateway
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether.core.list_reads import MAX_RUNNING
from tether.discovery.announcements.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    CacheManifest,
    manifest_of,
    worker_id,
)
from tether.errors import BrokerUnavailable, CommandUnanswered, ConfigError, JobFailed, StoreUnavailable
from tether.gateway.app import ROOMS
from tether.gateway.keys.api_keys import TENANT_SCOPES, Scope
from tether.gateway.operator import audit, fleet_reads, workers
from tether.statuses import MAX_JOBS_PER_PAGE
from tether.store import api_keys
from tether.store.audit_pages import AuditPage
from tether.store.engines import READERS

ROUTES = [route for room in ROOMS for route in room.routes]
OF_OPERATORS = [route for route in ROUTES if Scope.OPERATOR in route.scopes]
OF_TENANTS = [route for route in ROUTES if route.scopes and Scope.OPERATOR not in route.scopes]
LESSER = [scopes for count in (1, 2, 3) for scopes in itertools.combinations(TENANT_SCOPES, count)]


def name_of(route):
    return f"{route.method} {route.path}"


@pytest.fixture
def ask(gateway):
    """Asks the gateway; answers status and document."""

    def ask_one(method, path, body=None, *, key=None, scopes=(Scope.OPERATOR,), tenant="default"):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {key or gateway.key(tenant, scopes)}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return answer.status, document

    return ask_one


@pytest.fixture
def log(ask):
    """The newest entries of the audit log with these filters."""

    def entries(**filters):
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        status, page = ask("GET", f"/v1/operator/audit?{query}")
        assert status == 200, page
        return page["data"]

    return entries


@pytest.fixture
def submit(ask):
    def submit_one(tenant=OTHER_TENANT, **options):
        body = {"model": "counter", "prompt": "one two", **options}
        status, document = ask("POST", "/v1/jobs", body, scopes=(Scope.SUBMIT,), tenant=tenant)
        assert status == 202, document
        return document["job_id"]

    return submit_one


def test_the_routes_of_operators_are_those_under_their_prefix():
    assert {route.path.startswith("/v1/operator/") for route in OF_OPERATORS} == {True}
    assert not [route.path for route in ROUTES if "/operator/" in route.path and route not in OF_OPERATORS]
    assert {route.scopes for route in OF_OPERATORS} == {(Scope.OPERATOR,)}


@pytest.mark.parametrize("route", OF_OPERATORS, ids=name_of)
def test_a_route_of_operators_is_closed_to_every_key_without_that_scope(ask, log, route):
    path = re.sub(r"\{[a-z_]+\}", "x", route.path)
    before = log(limit=1)
    for scopes in LESSER:
        status, document = ask(route.method, path, {}, scopes=scopes, tenant=OTHER_TENANT)
        assert (status, document["error"]["code"]) == (403, "forbidden"), scopes
    assert ask(route.method, path, {}, key="tk_" + "x" * 43)[0] == 401
    assert log(limit=1) == before


@pytest.mark.parametrize("route", OF_TENANTS, ids=name_of)
def test_an_operator_s_key_alone_is_no_tenant_s(ask, route):
    path = re.sub(r"\{[a-z_:]+\}", "x", route.path)
    assert ask(route.method, path, {})[0] == 403


def test_a_tenant_s_admin_reaches_no_other_tenant_s_jobs_and_keys(ask, gateway, service, submit):
    admin = {"scopes": (Scope.ADMIN,), "tenant": OTHER_TENANT}
    job_id = submit("default")
    _, key_id = add_api_key(service.settings, "default", (Scope.READ,))
    _, operator_id = add_api_key(service.settings, OTHER_TENANT, (Scope.OPERATOR, Scope.READ))
    for method, path in (
        ("GET", f"/v1/jobs/{job_id}"),
        ("GET", f"/v1/jobs/{job_id}/stream"),
        ("DELETE", f"/v1/jobs/{job_id}"),
        ("DELETE", f"/v1/keys/{key_id}"),
        # An operator's key is not its tenant's, whichever it was made for.
        ("DELETE", f"/v1/keys/{operator_id}"),
    ):
        assert ask(method, path, **admin)[0] == 404, path
    listed = {key["key_id"] for key in ask("GET", "/v1/keys", **admin)[1]["data"]}
    assert not listed & {key_id, operator_id}
    jobs = ask("GET", f"/v1/jobs?limit={MAX_JOBS_PER_PAGE}", **admin)[1]["data"]
    assert job_id not in [job["job_id"] for job in jobs]
    assert ask("GET", "/v1/jobs?tenant=default", **admin)[0] == 422


def test_a_key_gives_no_more_than_it_has(ask):
    for scopes in LESSER:
        status, document = ask("POST", "/v1/keys", {"scopes": ["read", "operator"]}, scopes=scopes)
        assert (status, document["error"]["code"]) == (403, "forbidden")
    body = {"tenant_id": "default", "scopes": ["operator"]}
    status, made = ask("POST", "/v1/operator/keys", body)
    assert (status, made["scopes"]) == (201, ["operator"])
    assert ask("GET", "/v1/operator/tenants", key=made["key"])[0] == 200
    assert ask("DELETE", f"/v1/operator/keys/{made['key_id']}")[0] == 200
    eventually(
        lambda: ask("GET", "/v1/operator/tenants", key=made["key"])[0] == 401,
        PATIENCE_SECONDS,
        "it is refused",
    )


def test_an_operator_sees_and_cancels_jobs_of_all_tenants(ask, log, submit):
    mine, theirs = submit("default"), submit(OTHER_TENANT, delay_ms=3_600_000)
    _, page = ask("GET", f"/v1/operator/jobs?limit={MAX_JOBS_PER_PAGE}")
    owners = {job["job_id"]: job["tenant_id"] for job in page["data"]}
    assert (owners[mine], owners[theirs]) == ("default", OTHER_TENANT)
    _, page = ask("GET", f"/v1/operator/jobs?tenant={OTHER_TENANT}&limit={MAX_JOBS_PER_PAGE}")
    assert {job["tenant_id"] for job in page["data"]} == {OTHER_TENANT}
    _, first = ask("GET", "/v1/operator/jobs?limit=1")
    _, second = ask("GET", f"/v1/operator/jobs?limit=1&cursor={first['next_cursor']}")
    assert [first["data"][0]["job_id"], second["data"][0]["job_id"]] == [theirs, mine]
    status, shown = ask("GET", f"/v1/operator/jobs/{theirs}")
    assert (status, shown["tenant_id"], "result" in shown, "prompt" in shown) == (
        200,
        OTHER_TENANT,
        False,
        False,
    )
    status, document = ask("DELETE", f"/v1/operator/jobs/{theirs}")
    assert (status, document["state"]) == (200, "cancelled")
    assert [(entry["result"], entry["tenant_id"]) for entry in log(target=theirs)] == [
        ("ok", OTHER_TENANT),
        ("begun", OTHER_TENANT),
    ]
    unknown = "0" * 8 + mine[8:]
    assert ask("DELETE", f"/v1/operator/jobs/{unknown}")[0] == 404
    assert [entry["result"] for entry in log(target=unknown)] == ["job_unknown"]


def test_an_operator_cancels_jobs_of_all_tenants_by_filter(ask, log, submit):
    label = {"run": "by filter"}
    jobs = [submit(tenant, delay_ms=3_600_000, labels=label) for tenant in ("default", OTHER_TENANT)]
    body = {"where": {"labels": label, "state": ["parked"]}}
    address = "/v1/operator/jobs:cancel-where"
    before = log(action="jobs.cancel_where")
    status, seen = ask("POST", address, {**body, "dry_run": True})
    assert (status, [each["job_id"] for each in seen["data"]]) == (200, jobs[::-1])
    _, first = ask("POST", address, {**body, "limit": 1.0})
    assert [each["tenant_id"] for each in first["data"]] == [OTHER_TENANT]
    where = {**body["where"], "tenant": "default"}
    _, second = ask("POST", address, {"where": where, "cursor": first["next_cursor"]})
    assert [(each["job_id"], each["state"]) for each in second["data"]] == [(jobs[0], "cancelled")]
    assert second["next_cursor"] is None
    entries = log(action="jobs.cancel_where")[: -len(before) or None]
    assert [(entry["result"], entry["tenant_id"]) for entry in entries] == [
        *[("ok", "default"), ("begun", "default")],
        *[("ok", None), ("begun", None)],
    ]
    assert entries[0]["details"] == where
    for wrong in (
        *({}, {"where": []}, {"where": {"color": "red"}}, {"where": {}, "limit": 201}),
        *({"where": {}, "dry_run": 1}, {"where": {"state": ["dead"]}}, {"where": {"tenant": "a\0"}}),
        *({"where": {"state": "x"}}, {"where": {"labels": []}}, {"where": {}, "cursor": "x"}),
    ):
        status, refused = ask("POST", address, wrong)
        assert (status, refused["error"]["code"]) == (422, "request_invalid"), wrong


def test_an_operator_gives_jobs_of_all_tenants_other_priorities(ask, log, submit):
    label = {"run": "other priorities"}
    jobs = [submit(tenant, delay_ms=3_600_000, labels=label) for tenant in ("default", OTHER_TENANT)]
    body = {"where": {"labels": label}, "priority": "batch"}
    address = "/v1/operator/jobs:reprioritise-where"
    status, seen = ask("POST", address, {**body, "dry_run": True})
    assert (status, [each["job_id"] for each in seen["data"]]) == (200, jobs[::-1])
    assert log(action="jobs.reprioritise_where") == []
    _, first = ask("POST", address, {**body, "limit": 1})
    _, second = ask("POST", address, {**body, "cursor": first["next_cursor"]})
    assert [each["job_id"] for each in first["data"] + second["data"]] == jobs[::-1]
    assert second["next_cursor"] is None
    entries = log(action="jobs.reprioritise_where")
    assert [entry["result"] for entry in entries] == ["ok", "begun"] * 2
    assert entries[0]["details"] == {"labels": label, "priority": "batch"}
    for job_id in jobs:
        assert ask("GET", f"/v1/operator/jobs/{job_id}")[1]["priority"] == "batch"
        assert ask("GET", f"/v1/operator/jobs/{job_id}/attempts")[1]["priority"] == "batch"
    status, document = ask("PATCH", f"/v1/operator/jobs/{jobs[1]}", {"priority": "interactive"})
    assert (status, document) == (200, {"object": "job.state", "job_id": jobs[1], "state": "parked"})
    assert ask("GET", f"/v1/operator/jobs/{jobs[1]}")[1]["priority"] == "interactive"
    (entry, _) = log(target=jobs[1])
    assert (entry["action"], entry["tenant_id"], entry["details"]) == (
        *("jobs.reprioritise", OTHER_TENANT),
        {"priority": "interactive"},
    )
    ask("DELETE", f"/v1/operator/jobs/{jobs[1]}")
    status, refused = ask("PATCH", f"/v1/operator/jobs/{jobs[1]}", {"priority": "batch"})
    assert (status, refused["error"]["code"]) == (409, "job_ended")
    assert log(target=jobs[1])[0]["result"] == "job_ended"
    unknown = "0" * 8 + jobs[0][8:]
    assert ask("PATCH", f"/v1/operator/jobs/{unknown}", {"priority": "batch"})[0] == 404
    assert [entry["result"] for entry in log(target=unknown)] == ["job_unknown"]
    for wrong in ({}, {"priority": "urgent"}, {"priority": None}, {"priority": "batch", "model": "x"}):
        assert ask("PATCH", f"/v1/operator/jobs/{jobs[0]}", wrong)[0] == 422, wrong
    for wrong in ({"where": {}}, {"priority": "batch"}, {**body, "priority": 1}, {**body, "weight": 1}):
        assert ask("POST", address, wrong)[0] == 422, wrong
    where = {"where": {"state": ["dead"]}, "priority": "batch"}
    assert ask("POST", address, where)[0] == 422
    ask("DELETE", f"/v1/operator/jobs/{jobs[0]}")


def test_an_operator_makes_and_changes_tenants_and_their_keys(ask, log, service):
    status, made = ask("POST", "/v1/operator/tenants", {"tenant_id": "new", "quota": 3.0})
    assert (status, made["name"], made["weight"], made["quota"]) == (201, "new", 1.0, 3)
    assert ask("POST", "/v1/operator/tenants", {"tenant_id": "new"})[0] == 422
    status, changed = ask("PATCH", "/v1/operator/tenants/new", {"quota": None, "weight": 2})
    assert (status, changed["quota"], changed["weight"]) == (200, None, 2.0)
    assert changed in ask("GET", "/v1/operator/tenants")[1]["data"]
    assert [(entry["action"], entry["result"], entry["details"]) for entry in log(target="new")] == [
        ("tenants.set", "ok", {"quota": None, "weight": 2.0}),
        ("tenants.create", "request_invalid", {}),
        ("tenants.create", "ok", {"quota": 3}),
    ]
    for body in (
        {},
        {"weight": 0},
        {"weight": "2"},
        {"quota": -1},
        {"quota": True},
        {"quota": 0.5},
        {"size": 1},
    ):
        assert ask("PATCH", "/v1/operator/tenants/new", body)[0] == 422, body
    assert ask("PATCH", "/v1/operator/tenants/none", {"weight": 1})[0] == 404
    assert ask("POST", "/v1/operator/tenants", {"tenant_id": "No"})[0] == 422
    for odd in ("\ud800", "a\0", "x" * 3_000):
        status, refused = ask("POST", "/v1/operator/keys", {"tenant_id": odd, "scopes": ["read"]})
        assert (status, refused["error"]["code"]) == (422, "request_invalid")
    status, key = ask("POST", "/v1/operator/keys", {"tenant_id": "new", "scopes": ["read"], "name": "n"})
    assert (status, key["tenant_id"]) == (201, "new")
    listed = ask("GET", "/v1/operator/keys?tenant=new")[1]["data"]
    assert [each["key_id"] for each in listed] == [key["key_id"]]
    (entry,) = log(target=key["key_id"])
    assert (entry["action"], entry["tenant_id"]) == ("keys.create", "new")
    assert entry["actor"].startswith("key_")
    assert entry["address"] == "127.0.0.1"
    assert entry["details"] == {"name": "n", "scopes": ["read"]}
    assert key["key"] not in json.dumps(log(limit=1000))
    for body in ({"scopes": ["read"]}, {"tenant_id": "none", "scopes": ["read"]}):
        assert ask("POST", "/v1/operator/keys", body)[0] in (404, 422)
    assert ask("DELETE", "/v1/operator/keys/none")[0] == 404
    for method, path in (
        ("DELETE", "keys"),
        ("PATCH", "tenants"),
        ("DELETE", "worker-keys"),
        ("GET", "workers"),
    ):
        assert ask(method, f"/v1/operator/{path}/%00", {"weight": 1})[0] == 404, path
    assert ask("GET", "/v1/operator/keys?tenant=A")[0] == 422


def test_what_a_tenant_s_admin_does_stands_in_the_log_too(ask, log):
    admin = {"scopes": (Scope.ADMIN,), "tenant": OTHER_TENANT}
    _, made = ask("POST", "/v1/keys", {"scopes": ["read"]}, **admin)
    for _ in range(2):
        ask("DELETE", f"/v1/keys/{made['key_id']}", **admin)
    # What changes nothing would let anybody with a tenant of his own fill the log.
    assert ask("DELETE", "/v1/keys/key_none", **admin)[0] == 404
    assert log(target="key_none") == []
    assert [(entry["action"], entry["tenant_id"]) for entry in log(target=made["key_id"])] == [
        ("keys.revoke", OTHER_TENANT),
        ("keys.create", OTHER_TENANT),
    ]


def test_a_tenant_s_admin_makes_no_more_keys_than_may_be_and_an_operator_does(ask, log, monkeypatch):
    monkeypatch.setattr(api_keys, "MAX_GOOD_KEYS", 3)
    monkeypatch.setattr(api_keys, "MAX_REVOKED_KEYS", 2)
    ask("POST", "/v1/operator/tenants", {"tenant_id": "many"})
    _, admins = ask("POST", "/v1/operator/keys", {"tenant_id": "many", "scopes": ["admin"]})
    admin, wanted = {"key": admins["key"]}, {"scopes": ["read"]}

    def revoked():
        _, keys = ask("GET", "/v1/keys", **admin)
        return {key["key_id"] for key in keys["data"] if key["revoked_at"]}

    made = []
    while (answer := ask("POST", "/v1/keys", wanted, **admin))[0] == 201 and len(made) < 5:
        made.append(answer[1]["key_id"])
    assert (answer[0], answer[1]["error"]["code"]) == (422, "request_invalid")
    assert "revoke those that are not in use" in answer[1]["error"]["message"]
    # A refusal is no entry.
    noted = {entry["target"] for entry in log(tenant="many", action="keys")}
    assert (len(made), noted) == (2, {admins["key_id"], *made})
    status, other = ask("POST", "/v1/operator/keys", {"tenant_id": "many", **wanted})
    assert status == 201
    for key_id in (*made, other["key_id"]):
        assert ask("DELETE", f"/v1/keys/{key_id}", **admin)[0] == 200
    assert revoked() == {*made, other["key_id"]}
    assert ask("POST", "/v1/keys", wanted, **admin)[0] == 201
    assert len(revoked()) == 2


def test_workers_are_listed_shown_cordoned_drained_and_taken_back(ask, log, submit):
    # One that has loaded nothing would be shown as cold.
    job_id = submit()
    eventually(
        lambda: ask("GET", f"/v1/operator/jobs/{job_id}")[1]["state"] == "succeeded",
        PATIENCE_SECONDS,
        "the worker has loaded a model",
    )
    (worker,) = ask("GET", "/v1/operator/workers")[1]["data"]
    status, whole = ask("GET", f"/v1/operator/workers/{worker['worker_id']}")
    assert (status, whole["pub_key"]) == (
        200,
        ask("GET", f"/v1/operator/workers/{whole['pub_key']}")[1]["pub_key"],
    )
    assert {last["is_served_elsewhere"] for last in whole["last_of"]} == {False}
    assert sorted(last["pool"] for last in whole["last_of"]) == sorted(whole["pools"])
    for action, state in (("cordon", "cordoned"), ("drain", "draining"), ("uncordon", "serving")):
        status, command = ask("POST", f"/v1/operator/workers/{worker['worker_id']}/{action}")
        assert (status, command["action"], command["worker_id"]) == (202, action, worker["worker_id"])
        # Once it is cordoned it serves no pool any more.
        assert command["last_of"] == (whole["last_of"] if action == "cordon" else [])

        def is_shown(state=state):
            return ask("GET", f"/v1/operator/workers/{worker['worker_id']}")[1]["state"] == state

        eventually(is_shown, PATIENCE_SECONDS, f"the worker is {state}")
        assert [entry["result"] for entry in log(action=f"fleet.{action}")] == ["ok", "begun"]
    assert ask("POST", "/v1/operator/workers/nobody/drain")[0] == 404
    assert log(action="fleet.drain")[0]["result"] == "worker_unknown"
    assert ask("POST", f"/v1/operator/workers/{worker['worker_id']}/stop")[0] == 404


def watched(gateway, key):
    """The events of the fleet, each as its kind and document."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/v1/operator/fleet/changes", headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers.get_content_type()) == (200, "text/event-stream")
    fields = {}
    try:
        while line := answer.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
            if name == "data":
                yield fields["event"], json.loads(fields["data"])
                assert answer.readline() == b"\n"
    finally:
        connection.close()


def test_the_fleet_is_watched_as_it_changes(gateway, ask):
    (worker,) = ask("GET", "/v1/operator/workers")[1]["data"]
    key = gateway.key("default", (Scope.OPERATOR,))
    readers = [watched(gateway, key) for _ in range(2)]
    for reader in readers:
        kind, document = next(reader)
        assert (kind, document["kind"], document["worker_id"]) == ("present", "present", worker["worker_id"])
    try:
        assert ask("POST", f"/v1/operator/workers/{worker['worker_id']}/cordon")[0] == 202
        for reader in readers:
            kind, document = next(reader)
            assert (kind, document["state"]) == ("state", "cordoned")
    finally:
        ask("POST", f"/v1/operator/workers/{worker['worker_id']}/uncordon")
    for reader in readers:
        assert next(reader)[1]["former_state"] == "cordoned"
        reader.close()


def test_who_watches_the_fleet_is_told_that_the_gateway_stops(service):
    with RunningGateway(service.settings) as gateway:
        reader = watched(gateway, gateway.key("default", (Scope.OPERATOR,)))
        assert next(reader)[0] == "present"
        gateway.stop()
        kind, document = list(reader)[-1]
    assert (kind, document["code"], document["retryable"]) == ("interrupted", "gateway_stopping", True)


def test_a_cache_that_does_not_fit_an_announcement_is_asked_for(ask, monkeypatch):
    found, whole = workers.meant_member, manifest_of((artifact("ab"), artifact("cd")))

    def announces_less(*given):
        member = found(*given)
        part = CacheManifest(whole.artifacts[:1], whole.digest, is_complete=False)
        return replace(member, presence=replace(member.presence, cache=part))

    monkeypatch.setattr("tether.gateway.operator.workers.meant_member", announces_less)
    monkeypatch.setattr("tether.gateway.operator.workers.whole_cache", lambda reading, member: whole)
    (worker,) = ask("GET", "/v1/operator/workers")[1]["data"]
    where = f"/v1/operator/workers/{worker['worker_id']}"
    told = {query: ask("GET", f"{where}{query}")[1]["cache"] for query in ("", "?full=false", "?full=true")}
    assert [(one["is_complete"], len(one["artifacts"])) for one in told.values()] == [
        *((False, 1), (False, 1), (True, 2))
    ]
    assert ask("GET", f"{where}?full=maybe")[0] == 422

    def say_nothing(reading, member):
        raise CommandUnanswered("it did not send its cache")

    monkeypatch.setattr("tether.gateway.operator.workers.whole_cache", say_nothing)
    status, refused = ask("GET", f"{where}?full=true")
    assert (status, refused["error"]["code"]) == (504, "command_unanswered")


def artifact(digits):
    return Artifact(digits * 32, ArtifactKind.MODEL, ArtifactState.DISK, 1_000)


def test_a_worker_s_key_is_trusted_revoked_and_trusted_again(ask, log):
    pub_key = SigningKey.generate().verify_key.encode().hex()
    status, key = ask("POST", "/v1/operator/worker-keys", {"pub_key": pub_key, "name": "box"})
    assert (status, key["worker_id"], key["name"]) == (200, worker_id(pub_key), "box")
    status, key = ask("DELETE", "/v1/operator/worker-keys/box")
    assert (status, key["revoked_at"] is None, key["last_of"]) == (200, False, [])
    assert ask("POST", "/v1/operator/worker-keys", {"pub_key": pub_key})[0] == 422
    status, key = ask("POST", "/v1/operator/worker-keys", {"pub_key": pub_key, "again": True})
    assert (status, key["revoked_at"]) == (200, None)
    assert key in ask("GET", "/v1/operator/worker-keys")[1]["data"]
    assert [(entry["action"], entry["result"]) for entry in log(target=key["worker_id"])] == [
        ("fleet.trust", "ok"),
        ("fleet.trust", "request_invalid"),
        ("fleet.revoke", "ok"),
        ("fleet.trust", "ok"),
    ]
    for body in ({}, {"pub_key": "/etc/hostname.pub"}, {"pub_key": pub_key, "again": 1}, {"pub_key": 3}):
        assert ask("POST", "/v1/operator/worker-keys", body)[0] == 422, body
    assert ask("DELETE", "/v1/operator/worker-keys/nobody")[0] == 404


def test_where_the_log_cannot_be_written_nothing_is_done(ask, service, monkeypatch):
    def full(*arguments):
        raise StoreUnavailable("the disk is full")

    tenants = ask("GET", "/v1/operator/tenants")[1]
    (worker,) = ask("GET", "/v1/operator/workers")[1]["data"]
    sent = []
    monkeypatch.setattr("tether.store.audit.add_entry", full)
    monkeypatch.setattr(
        "tether.gateway.operator.workers.tell_worker", lambda *given, **more: sent.append(given)
    )
    assert ask("POST", "/v1/operator/tenants", {"tenant_id": "lost"})[0] == 503
    assert ask("POST", f"/v1/operator/workers/{worker['worker_id']}/drain")[0] == 503
    assert ask("GET", "/v1/operator/tenants")[1] == tenants
    assert sent == []


@pytest.mark.parametrize(
    ("error", "status"), [(BrokerUnavailable("at /secret/redis"), 503), (ConfigError("/secret/key"), 500)]
)
def test_a_command_that_cannot_be_sent_stands_in_the_log_and_tells_no_paths(
    ask, log, monkeypatch, error, status
):
    def fail(*given, **options):
        raise error

    (worker,) = ask("GET", "/v1/operator/workers")[1]["data"]
    monkeypatch.setattr("tether.gateway.operator.workers.tell_worker", fail)
    answered, document = ask("POST", f"/v1/operator/workers/{worker['worker_id']}/drain")
    assert (answered, document["error"]["code"], "secret" in str(document)) == (status, error.code, False)
    assert [entry["result"] for entry in log(action="fleet.drain", limit=2)] == [error.code, "begun"]


def test_more_than_two_who_have_the_fleet_read_at_once_are_refused(ask, monkeypatch):
    reading, go_on = threading.Semaphore(0), threading.Event()
    open_fleet = fleet_reads.open_fleet

    def open_slowly(settings):
        reading.release()
        assert go_on.wait(PATIENCE_SECONDS)
        return open_fleet(settings)

    monkeypatch.setattr("tether.gateway.operator.fleet_reads.open_fleet", open_slowly)
    with ThreadPoolExecutor() as pool:
        first = [pool.submit(ask, "GET", "/v1/operator/workers") for _ in range(2)]
        for _ in first:
            assert reading.acquire(timeout=PATIENCE_SECONDS)
        assert ask("GET", "/v1/operator/workers")[0] == 429
        go_on.set()
        assert [one.result()[0] for one in first] == [200, 200]
    assert ask("GET", "/v1/operator/workers")[0] == 200


def test_the_log_is_read_by_pages(ask, log):
    for _ in range(3):
        ask("DELETE", "/v1/operator/keys/none")
    entries = log(target="none", limit=1000)
    path, paged = "/v1/operator/audit?target=none&limit=2", []
    cursor = ""
    while cursor is not None:
        _, page = ask("GET", path + (f"&cursor={cursor}" if cursor else ""))
        paged += page["data"]
        cursor = page["next_cursor"]
    assert paged == entries
    assert len(entries) >= 3
    for query in ("limit=0", "limit=x", "cursor=x", "tenant=A", "who=1", "actor=%00"):
        assert ask("GET", f"/v1/operator/audit?{query}")[0] == 422, query


def test_readings_of_the_log_leave_connections_for_all_else(ask, monkeypatch):
    under_way, may_end = [], threading.Event()

    def slow(connection, **filters):
        under_way.append(filters)
        may_end.wait(PATIENCE_SECONDS)
        return AuditPage([], None)

    monkeypatch.setattr(audit, "audit_page", slow)
    with ThreadPoolExecutor(2 * READERS) as pool:
        asked = [pool.submit(ask, "GET", "/v1/operator/audit") for _ in range(2 * READERS)]
        try:
            eventually(lambda: len(under_way) >= MAX_RUNNING, PATIENCE_SECONDS, "as many as may are read")
            assert ask("GET", "/v1/operator/tenants")[0] == 200
            assert len(under_way) == MAX_RUNNING
        finally:
            may_end.set()
    assert {one.result()[0] for one in asked} == {200}


def test_a_retry_by_token_stands_in_the_log_with_the_dead_job_and_its_tenant(ask, log, service, submit):
    client = service.client(on_loop=False, tenant=OTHER_TENANT)
    job_id = submit(model="broken")
    with pytest.raises(JobFailed):
        client.job(job_id).result()
    token = client.letters.show(job_id).retry_token
    for status in (202, 200):
        body = {"retry_token": token}
        assert ask("POST", "/v1/operator/dead-letters:retry", body)[0] == status
    body = {"retry_token": "never issued"}
    assert ask("POST", "/v1/operator/dead-letters:retry", body)[0] == 404
    found = [
        (entry["target"], entry["tenant_id"], entry["result"])
        for entry in log(action="dead_letters.retry", limit=6)
    ]
    assert found == [
        *(("dead letters", None, result) for result in ("retry_token_unknown", "begun")),
        *[(job_id, OTHER_TENANT, result) for result in ("ok", "begun")] * 2,
    ]
    assert token not in str(log(action="dead_letters.retry", limit=6))


@pytest.mark.parametrize(
    ("verb", "body", "said"),
    [
        ("pause", {"reason": 7}, "reason must be printable text of at most 200 characters"),
        ("pause", {"reason": "a\nb"}, "reason must be printable text"),
        ("pause", {"why": "x"}, "unknown field 'why'; available: reason"),
        ("move", {"to": 7}, "to must be the name of a pool"),
        ("move", {"park": "yes"}, "park must be true or false"),
        ("move", {"limit": 0}, "limit must be an integer from 1 to 256"),
        ("purge", {"limit": 257}, "limit must be an integer from 1 to 256"),
        ("purge", {"limit": True}, "limit must be an integer from 1 to 256"),
        ("purge", {"yes": True}, "unknown field 'yes'; available: limit"),
    ],
)
def test_what_a_change_of_a_pool_cannot_be_is_refused_and_told(ask, verb, body, said):
    status, document = ask("POST", f"/v1/operator/pools/{'x' * 500}/{verb}", body)
    assert (status, document["error"]["code"]) == (422, "request_invalid")
    assert said in document["error"]["message"]


@pytest.mark.parametrize("name", ["x", "x" * 4_000, "%00", "%ED%B2%80", "a%0Ab", "..", "gpu%20x"])
def test_a_name_that_no_pool_has_is_404_whatever_it_is(ask, name):
    for method, tail in (("GET", ""), ("POST", "/resume")):
        status, document = ask(method, f"/v1/operator/pools/{name}{tail}")
        assert status in (404, 422), document
        assert len(document["error"]["message"]) < 300


def acts_of_the_guide():
    """What the guide's table says: the route of each act, the scope, and what the log calls it."""
    rows = re.findall(
        r"^\| `(\w+) (\S+)` \| (\w+) \| [^|]*\| `([a-z._]+)` \|$",
        (ROOT / "docs" / "guide" / "keys.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == len([route for route in OF_OPERATORS if route.method != "GET"]) + 2
    return rows


@pytest.mark.parametrize(("method", "path", "scope", "action"), acts_of_the_guide())
def test_the_log_calls_an_act_as_the_guide_says(ask, log, service, submit, method, path, scope, action):
    signing = SigningKey.generate().verify_key.encode().hex()
    bodies = {
        "keys": {"scopes": ["read"], **({"tenant_id": OTHER_TENANT} if "operator" in path else {})},
        "tenants": {"tenant_id": f"of-the-guide-{signing[:8]}"},
        "worker-keys": {"pub_key": signing},
        "jobs:cancel-where": {"where": {"model": "none"}},
        "jobs:reprioritise-where": {"where": {"model": "none"}, "priority": "batch"},
        "dead-letters:retry": {"retry_token": "never issued"},
        "dead-letters:retry-where": {"where": {"model": "counter"}},
        "dead-letters:purge": {"where": {"model": "counter"}},
        "dead-messages:retry": {"queue": "default", "retry_token": "never issued"},
        "dead-messages:purge": {"queue": "default"},
        "reset": {"model": "none", "region": "local"},
        **{verb: {} for verb in ("pause", "move", "purge")},
        "policy": {"document": {}},
    }
    target = {
        "{worker}": lambda: "nobody" if "worker-keys" not in path else trusted(ask),
        "{job_id}": submit,
        "{pool}": lambda: "gpu.cpu.local.none-00000000",
        "{tenant_id}": lambda: OTHER_TENANT,
        "{key_id}": lambda: add_api_key(service.settings, OTHER_TENANT, (Scope.READ,))[1],
    }
    sent_to = re.sub(r"\{[a-z_]+\}", lambda found: target[found.group()](), path)
    changes = {"weight": 2.0} if "tenants" in path else {"priority": "batch"}
    body = changes if method == "PATCH" else bodies.get(path.rpartition("/")[2])
    before = [entry["entry_id"] for entry in log(action=action, limit=1)]
    ask(method, sent_to, body, scopes=(Scope(scope),), tenant=OTHER_TENANT)
    assert [entry["entry_id"] for entry in log(action=action, limit=1)] != before


def trusted(ask):
    pub_key = SigningKey.generate().verify_key.encode().hex()
    assert ask("POST", "/v1/operator/worker-keys", {"pub_key": pub_key})[0] in (200, 201)
    return pub_key
