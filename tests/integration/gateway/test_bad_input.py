"""Each line of the table "Bad input" in the reference of the gateway."""

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from support.api_keys import add_api_key
from support.clients import OTHER_TENANT
from support.cluster import Cluster
from support.databases import fresh_postgres
from support.event_streams import EventStream, texts
from support.gateways import RunningGateway
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.gateway.json_bodies import MAX_VALUES
from tether.gateway.server.protocol import MAX_SMALL_CHUNKS
from tether.store import Store
from tether.store.api_keys import revoke_key
from tether.store.epoch import raise_epoch

REFERENCE = ROOT / "docs" / "reference" / "http.md"
GOOD = {"model": "counter", "prompt": "one two"}

CASES = {}


def case(line):
    """Marks the test of one line of the table."""

    def mark(test):
        CASES[line] = test
        return test

    return mark


def ask(gateway, method, path, body=None, *, key=None, headers=None):
    """The gateway's answer: status, error or document, headers."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    told = {"Authorization": f"Bearer {gateway.key() if key is None else key}", **(headers or {})}
    data = json.dumps(body) if isinstance(body, dict) else body
    connection.request(method, path, data, told)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document.get("error", document), answer.headers


def refused(gateway, body, status, code, words, **more):
    found, error, _ = ask(gateway, "POST", "/v1/jobs", body, **more)
    assert (found, error["code"]) == (status, code), error
    assert re.search(words, error["message"]), error["message"]


@pytest.fixture
def submit(gateway):
    def submit_one(**more):
        status, document, _ = ask(gateway, "POST", "/v1/jobs", {**GOOD, **more})
        assert status == 202
        return document["job_id"]

    return submit_one


def test_the_reference_s_table_and_these_tests_have_the_same_lines():
    table = REFERENCE.read_text().partition("## Bad input")[2]
    lines = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", table, re.M)
    assert sorted(lines[1:]) == sorted(CASES)


@case("values of wrong types")
def test_values_of_wrong_types(gateway):
    body = {**GOOD, "max_tokens": "8", "temperature": [], "labels": 5, "priority": "high", "stop": [1]}
    named = "".join(f"(?=.*{name})" for name in ("max_tokens", "temperature", "priority", "stop", "labels"))
    refused(gateway, body, 422, "request_invalid", f"5 problems{named}")
    refused(gateway, {"model": 5, "prompt": {}}, 422, "request_invalid", "model is of type int")


@case("unknown fields")
def test_unknown_fields(gateway):
    refused(gateway, {**GOOD, "temprature": 1}, 422, "request_invalid", "did you mean temperature")


@case("malformed JSON")
def test_malformed_json(gateway):
    refused(gateway, b'{"model": "counter",}', 400, "body_malformed", "line 1, column 2")
    refused(gateway, b"", 400, "body_malformed", "empty")


@case("invalid UTF-8")
def test_invalid_utf_8(gateway):
    refused(gateway, b'{"model": "\xff"}', 400, "body_malformed", "byte 11")


@case("NUL")
def test_nul(gateway):
    refused(gateway, b'{"model": "\0"}', 400, "body_malformed", "control character")
    for name in ("model", "correlation_id", "retry_token", "adapter"):
        refused(gateway, {**GOOD, name: "a\0"}, 422, "request_invalid", name)
    refused(gateway, {**GOOD, "labels": {"a": "\0"}}, 422, "request_invalid", "labels")
    status, document, _ = ask(gateway, "POST", "/v1/jobs", {**GOOD, "prompt": "a\0b"})
    assert status == 202
    assert list(EventStream(gateway, document["job_id"]).events())[-1][1] == "finished"
    assert ask(gateway, "GET", "/v1/jobs/%00")[0] == 404


@case("an empty prompt")
def test_an_empty_prompt(gateway):
    refused(gateway, {**GOOD, "prompt": ""}, 422, "request_invalid", "prompt is missing or empty")


@case("invalid messages")
def test_invalid_messages(gateway):
    said = {"role": "user", "content": "x"}
    for messages, words in (
        ([], "1 to 1000"),
        ("hi", "not a list"),
        ([said, {"role": "tool", "content": "x"}], r"messages\[1\].role='tool'"),
        ([said, said, {**said, "content": [said]}], r"messages\[2\].content is of type list"),
    ):
        refused(gateway, {"model": "counter", "messages": messages}, 422, "request_invalid", words)


@case("a prompt and messages")
def test_a_prompt_and_messages(gateway):
    messages = [{"role": "user", "content": "x"}]
    refused(gateway, {**GOOD, "messages": messages}, 422, "request_invalid", "give only one")


@case("a chat completion with unsupported fields")
def test_a_chat_completion_with_unsupported_fields(gateway):
    body = {"model": "counter", "messages": [{"role": "user", "content": "x"}], "n": 2}
    status, error, headers = ask(gateway, "POST", "/v1/chat/completions", body)
    assert (status, error["code"], error["param"]) == (400, "request_invalid", "n")
    assert headers["x-should-retry"] == "false"


@case("an oversize prompt")
def test_an_oversize_prompt(gateway):
    refused(gateway, {**GOOD, "prompt": "x" * 200_000}, 422, "request_invalid", "context of model 'counter'")
    limit = gateway.settings.gateway.body_limit
    refused(gateway, {**GOOD, "prompt": "x" * limit}, 413, "request_too_large", str(limit))


def test_a_prompt_has_its_own_limit_where_the_body_s_is_higher(service):
    limits = service.settings.gateway.model_copy(update={"body_limit": 16_777_216})
    with RunningGateway(service.settings.model_copy(update={"gateway": limits})) as gateway:
        refused(gateway, {**GOOD, "prompt": "é" * 2_200_000}, 422, "request_invalid", "4400000 bytes")


def test_a_body_whose_length_is_not_told_is_counted_as_it_comes(service):
    limits = service.settings.gateway.model_copy(update={"body_limit": 1_024})
    with RunningGateway(service.settings.model_copy(update={"gateway": limits})) as gateway:
        refused(gateway, iter([b" " * 1_000, b" " * 25]), 413, "request_too_large", "1024 bytes")
        status, document, _ = ask(gateway, "POST", "/v1/jobs", iter([json.dumps(GOOD).encode(), b" " * 900]))
        assert status == 202, document


@case("more JSON values than a body may have")
def test_more_json_values_than_a_body_may_have(gateway):
    for unit in (b"{}", b"[]", b"1"):
        body = b'{"jobs":[' + b",".join([unit] * MAX_VALUES) + b"]}"
        status, error, _ = ask(gateway, "POST", "/v1/jobs:batch", body)
        assert (status, error["code"]) == (413, "request_too_large")


@case("a number of too many digits")
def test_a_number_of_too_many_digits(gateway):
    body = json.dumps({**GOOD, "seed": 0}).replace(" 0", " " + "9" * 200).encode()
    refused(gateway, body, 400, "body_malformed", "number that is too long")


@case("a body in thousands of tiny chunks")
def test_a_body_in_thousands_of_tiny_chunks(gateway):
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key()}\r\n"
    head = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    body = json.dumps(GOOD).encode().ljust(MAX_SMALL_CHUNKS)
    for padding, status in ((b"", 202), (b"1\r\n \r\n" * MAX_SMALL_CHUNKS, 400)):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
            chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
            connection.sendall(head + chunks + padding + b"0\r\n\r\n")
            assert connection.recv(65_536).startswith(f"HTTP/1.1 {status}".encode())
            if status == 202:
                # And the connection is good for another request.
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b"ok" in b"".join(iter(lambda: connection.recv(65_536), b""))


@contextlib.contextmanager
def begun_body(gateway, size, *, tenant="default"):
    """A request whose body does not come; yields its connection once the gateway waits for that."""
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key(tenant)}\r\n"
    head = f"{head}Content-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode())
        yield connection, connection.recv(65_536)


@case("more request bodies at once than a tenant may send")
def test_more_request_bodies_at_once_than_a_tenant_may_send(service):
    limits = {"body_limit": 100_000, "batch_body_limit": 100_000, "bodies_in_flight": 300_000}
    limits = service.settings.gateway.model_copy(update=limits)
    with RunningGateway(service.settings.model_copy(update={"gateway": limits})) as gateway:
        with begun_body(gateway, 100_000) as (slow, answer):
            assert answer.startswith(b"HTTP/1.1 100")
            with begun_body(gateway, 100_001) as (_, answer):
                assert answer.startswith(b"HTTP/1.1 413")
            with begun_body(gateway, 60_000) as (_, answer):
                assert answer.startswith(b"HTTP/1.1 100")
                with begun_body(gateway, 60_000) as (_, answer):
                    assert answer.startswith(b"HTTP/1.1 429")
                    assert b"retry-after: 1\r\n" in answer
                with begun_body(gateway, 60_000, tenant=OTHER_TENANT) as (_, answer):
                    assert answer.startswith(b"HTTP/1.1 100")
                key = gateway.key(OTHER_TENANT)
                assert ask(gateway, "POST", "/v1/jobs", GOOD, key=key)[0] == 202
            body = json.dumps(GOOD).encode().ljust(100_000)
            slow.sendall(body)
            assert slow.recv(65_536).startswith(b"HTTP/1.1 202")

        def is_taken():
            with begun_body(gateway, 100_000) as (_, answer):
                return answer.startswith(b"HTTP/1.1 100")

        # Whoever left has given back what it had.
        eventually(is_taken, PATIENCE_SECONDS, "there is room again")


@case("oversize headers")
def test_oversize_headers(gateway):
    limit = gateway.settings.gateway.header_limit
    refused(gateway, GOOD, 431, "headers_too_large", str(limit), headers={"X-Long": "x" * limit})


@case("max_tokens above the context length")
def test_max_tokens_above_the_context_length(gateway):
    refused(gateway, {**GOOD, "max_tokens": 100_000}, 422, "request_invalid", "which is 8192 tokens")


@case("an unknown model")
def test_an_unknown_model(gateway):
    refused(gateway, {**GOOD, "model": "countr"}, 404, "model_unknown", "did you mean 'counter'")


@case("a stream of an unknown job")
def test_a_stream_of_an_unknown_job(gateway):
    for job_id in (uuid4(), "x", "..%2F..%2Fmetrics", "%F0%9F"):
        status, error, _ = ask(gateway, "GET", f"/v1/jobs/{job_id}/stream")
        assert (status, error["code"]) in ((404, "job_unknown"), (404, "route_unknown"))


@case("a stream of another tenant's job")
def test_a_stream_of_another_tenant_s_job(gateway, submit):
    job_id = submit()
    status, theirs, _ = ask(gateway, "GET", f"/v1/jobs/{job_id}/stream", key=gateway.key(OTHER_TENANT))
    absent = ask(gateway, "GET", f"/v1/jobs/{uuid4()}/stream")[1]
    assert (status, theirs["code"]) == (404, absent["code"])


@case("an invalid stream offset")
def test_an_invalid_stream_offset(gateway, submit):
    job_id = submit()
    for place in ("-1", "end", "1.2.3", "99999999999"):
        for path, headers in ((f"?offset={place}", {}), ("", {"Last-Event-ID": place})):
            status, error, _ = ask(gateway, "GET", f"/v1/jobs/{job_id}/stream{path}", headers=headers)
            assert (status, error["code"]) == (422, "request_invalid"), place


@case("a repeated cancel")
def test_a_repeated_cancel(gateway, submit):
    job_id = submit(model="slow", max_tokens=1_000)
    assert [ask(gateway, "DELETE", f"/v1/jobs/{job_id}")[0] for _ in range(2)] == [200, 200]
    assert list(EventStream(gateway, job_id).events())[-1][2]["state"] == "cancelled"
    assert ask(gateway, "DELETE", f"/v1/jobs/{job_id}")[1]["state"] == "cancelled"


@case("a cancel of a finished job")
def test_a_cancel_of_a_finished_job(gateway, submit):
    job_id = submit()
    assert list(EventStream(gateway, job_id).events())[-1][1] == "finished"
    status, document, _ = ask(gateway, "DELETE", f"/v1/jobs/{job_id}")
    assert (status, document["state"]) == (200, "succeeded")


@case("an idempotency key reused with another body")
def test_an_idempotency_key_reused_with_another_body(gateway):
    headers = {"Idempotency-Key": uuid4().hex}
    _, first, _ = ask(gateway, "POST", "/v1/jobs", GOOD, headers=headers)
    refused(gateway, {**GOOD, "seed": 1}, 409, "key_conflict", first["job_id"], headers=headers)


@case("a missing or unknown API key")
def test_a_missing_or_unknown_api_key(gateway):
    for header in (
        "",
        "Bearer",
        "Bearer sk-1234",
        "Basic dGs6",
        f"Bearer tk_{'x' * 43}",
        "tk_é".encode().decode("latin-1"),
    ):
        status, error, headers = ask(gateway, "GET", "/v1/jobs", headers={"Authorization": header})
        assert (status, error["code"], headers["WWW-Authenticate"]) == (
            401,
            "unauthenticated",
            'Bearer realm="tether"',
        )
        assert "tether keys create" in error["message"]


@case("an API key revoked mid-stream")
def test_an_api_key_revoked_mid_stream(service, gateway, submit):
    key, key_id = add_api_key(service.settings)
    job_id = submit(model="slow", max_tokens=1_000)
    stream = EventStream(gateway, job_id, key=key).events()
    next(stream)
    with Store(service.settings.database.url) as store:
        store.write_alone(revoke_key, key_id, None, 5).result()
    *_, (_, kind, data) = stream
    assert (kind, data["code"], data["retryable"]) == ("interrupted", "unauthenticated", False)
    eventually(lambda: ask(gateway, "GET", "/v1/jobs", key=key)[0] == 401, PATIENCE_SECONDS, "it is refused")
    ask(gateway, "DELETE", f"/v1/jobs/{job_id}")


@case("too many open streams of a tenant")
def test_too_many_open_streams_of_a_tenant(service, submit):
    limits = service.settings.gateway.model_copy(update={"streams_per_tenant": 2})
    with RunningGateway(service.settings.model_copy(update={"gateway": limits})) as gateway:
        job_id = submit(model="slow", max_tokens=1_000)
        readers = [EventStream(gateway, job_id) for _ in range(2)]
        status, error, headers = ask(gateway, "GET", f"/v1/jobs/{job_id}/stream")
        assert (status, error["code"], headers["Retry-After"]) == (429, "too_many_requests", "5")
        assert EventStream(gateway, job_id, key=gateway.key(OTHER_TENANT)).status == 404
        readers.pop().close()
        eventually(
            lambda: EventStream(gateway, job_id).status == 200, PATIENCE_SECONDS, "there is room for another"
        )
        ask(gateway, "DELETE", f"/v1/jobs/{job_id}")


@case("a port in use")
def test_a_port_in_use(service):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = subprocess.run(
            [sys.executable, "-m", "tether_cli", "gateway", "--port", str(port)],
            env=service.cluster.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    assert ran.returncode == 5
    assert ran.stderr.splitlines()[-1].startswith(
        f"tether: another program is listening on 127.0.0.1:{port}: stop it"
    )
    assert "Traceback" not in ran.stderr


@contextlib.contextmanager
def full_disk():
    """No SQLite database of this process can grow, as on a full disk. Yields what makes room again."""
    limit = 1

    def set_limit(connection, cursor, *_):
        if connection.dialect.name == "sqlite":
            cursor.execute(f"PRAGMA max_page_count={limit}")

    def make_room():
        nonlocal limit
        limit = 2**30

    event.listen(Engine, "before_cursor_execute", set_limit)
    try:
        yield make_room
    finally:
        make_room()
        event.remove(Engine, "before_cursor_execute", set_limit)


@case("a full disk")
def test_a_full_disk(gateway):
    body = {**GOOD, "prompt": "x" * 100_000, "delay_ms": 3_600_000}
    headers = {"Idempotency-Key": uuid4().hex}
    with full_disk() as make_room:
        status, error, _ = ask(gateway, "POST", "/v1/jobs", body, headers=headers)
        assert (status, error["code"], error["retryable"]) == (503, "store_unavailable", True)
        assert "disk is full" in error["message"]
        assert "sqlite" not in error["message"]
        assert "/" not in error["message"]
        status, error, _ = ask(gateway, "POST", "/v1/jobs:batch", {"jobs": [body]})
        assert (status, error["code"]) == (503, "store_unavailable")
        assert "/" not in error["message"]
        assert ask(gateway, "GET", "/v1/jobs")[0] == 200
        status, document, _ = ask(gateway, "GET", "/readyz")
        assert (status, document["status"], document["database"]) == (503, "unavailable", "unavailable")
        make_room()
        # Nobody has submitted anything meanwhile.
        eventually(lambda: ask(gateway, "GET", "/readyz")[0] == 200, PATIENCE_SECONDS, "it is ready")
        status, document, _ = ask(gateway, "POST", "/v1/jobs", body, headers=headers)
        assert (status, document["is_new"]) == (202, True)
    ask(gateway, "DELETE", f"/v1/jobs/{document['job_id']}")


@case("a locked database")
def test_a_locked_database(service, monkeypatch):
    monkeypatch.setattr("tether.store.engines.BUSY_TIMEOUT_MS", 300)
    headers = {"Idempotency-Key": uuid4().hex}
    with RunningGateway(service.settings) as gateway, Store(service.settings.database.url) as other:
        gateway.key()
        held, let_go = threading.Event(), threading.Event()

        def hold(connection):
            raise_epoch(connection)
            held.set()
            assert let_go.wait(PATIENCE_SECONDS)
            raise RuntimeError("nothing of it stays")

        holding = other.write_alone(hold)
        assert held.wait(PATIENCE_SECONDS)
        status, error, _ = ask(gateway, "POST", "/v1/jobs", GOOD, headers=headers)
        assert (status, error["code"]) == (503, "store_unavailable")
        assert ask(gateway, "GET", "/v1/jobs")[0] == 200
        let_go.set()
        with pytest.raises(RuntimeError):
            holding.result(PATIENCE_SECONDS)
        assert ask(gateway, "POST", "/v1/jobs", GOOD, headers=headers)[0] == 202


@case("a database unavailable at startup")
def test_a_database_unavailable_at_startup(service, postgres_url, caplog):
    with fresh_postgres(postgres_url) as url:
        with Store(url):
            pass
        absent = re.sub(r"/(test_\w+)", r"/no_\1", url)
        database = service.settings.database.model_copy(update={"url": absent})
        with RunningGateway(service.settings.model_copy(update={"database": database})) as gateway:
            key = "tk_" + "x" * 43
            status, error, headers = ask(gateway, "POST", "/v1/jobs", GOOD, key=key)
            assert (status, error["code"]) == (503, "store_unavailable")
            assert int(headers["Retry-After"]) >= 1
            assert ask(gateway, "GET", "/healthz", key=key)[0] == 200
            assert ask(gateway, "GET", "/readyz", key=key)[1]["database"] == "unavailable"
            assert "Waiting for it" in caplog.text
            name = re.search(r"/no_(test_\w+)", absent).group(1)
            rename(postgres_url, name, f"no_{name}")
            try:
                eventually(
                    lambda: ask(gateway, "GET", "/readyz", key=key)[0] == 200,
                    PATIENCE_SECONDS,
                    "the gateway goes on",
                )
                assert ask(gateway, "POST", "/v1/jobs", GOOD, key=key)[0] == 401
                assert ask(gateway, "POST", "/v1/jobs", GOOD)[0] == 202
            finally:
                gateway.stop()
                rename(postgres_url, f"no_{name}", name)


def rename(server_url, old, new):
    import psycopg

    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (old,)
        )
        connection.execute(f"ALTER DATABASE {old} RENAME TO {new}")


@pytest.fixture
def cluster():
    with Cluster(models={"counter": (0, 8), "slow": (50, 200)}) as opened:
        yield opened


@case("Redis unavailable at startup")
def test_redis_unavailable_at_startup(cluster, caplog):
    cluster.server.kill()
    with RunningGateway(cluster.settings) as gateway:
        assert "Redis cannot be reached" in caplog.text
        assert ask(gateway, "GET", "/readyz")[1] == {
            "status": "degraded",
            "database": "ok",
            "redis": "unavailable",
            "orchestrator": "absent",
        }
        accepted = [ask(gateway, "POST", "/v1/jobs", GOOD) for _ in range(3)]
        assert [status for status, _, _ in accepted] == [202] * 3
        cluster.server.restart()

        def health():
            return ask(gateway, "GET", "/readyz")[:2]

        alone = {"status": "degraded", "database": "ok", "redis": "ok", "orchestrator": "absent"}
        eventually(lambda: health() == (200, alone), PATIENCE_SECONDS, "no orchestrator is left to miss")
        cluster.start_orchestrator()
        whole = alone | {"status": "ready", "orchestrator": "ok"}
        eventually(lambda: health() == (200, whole), PATIENCE_SECONDS, "nothing is missed")
        cluster.start_worker()
        for _, document, _ in accepted:
            assert list(EventStream(gateway, document["job_id"]).events())[-1][1] == "finished"


@case("Redis failing at runtime")
def test_redis_failing_at_runtime(cluster):
    cluster.start_orchestrator()
    cluster.start_worker()
    with RunningGateway(cluster.settings) as gateway, Tether(gateway.url, gateway.key()) as tether:
        following = tether.submit("slow", "one").events()
        seen = [next(following) for _ in range(5)]
        cluster.server.kill()
        job_ids = []
        for _ in range(5):
            status, document, _ = ask(gateway, "POST", "/v1/jobs", GOOD)
            assert status == 202
            job_ids.append(document["job_id"])
        assert ask(gateway, "GET", f"/v1/jobs/{job_ids[0]}")[0] == 200
        assert ask(gateway, "DELETE", f"/v1/jobs/{job_ids[0]}")[0] == 200
        cluster.server.restart()
        seen += following
        assert sum(len(one.pieces) for one in seen) == 200
        ends = [list(EventStream(gateway, job_id).events())[-1] for job_id in job_ids]
        assert [kind for _, kind, _ in ends] == ["failed"] + ["finished"] * 4
        assert texts(EventStream(gateway, job_ids[1]).events())
