"""The gateway as plain HTTP clients see it."""

import http.client
import json
import socket
import threading
import time
from uuid import uuid4

import pytest
from fastapi import FastAPI

from support.api_keys import add_api_key
from support.clients import OTHER_TENANT, TOKENS
from support.event_streams import EventStream, texts
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.gateway.keys.api_keys import Scope
from tether.store import Store
from tether.store.api_keys import revoke_key
from tether.store.schema import jobs


@pytest.fixture
def ask(gateway):
    """Asks the gateway; answers status, headers and document."""

    def ask_one(method, path, body=None, *, key=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        told = {"Authorization": f"Bearer {key or gateway.key()}", **(headers or {})}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, data, {k: v for k, v in told.items() if v})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, answer.headers, json.loads(text) if is_json else text.decode()

    return ask_one


@pytest.fixture
def submit(ask):
    def submit_one(**body):
        status, _, document = ask("POST", "/v1/jobs", {"model": "counter", "prompt": "one two", **body})
        assert status == 202, document
        return document["job_id"]

    return submit_one


def test_a_job_is_submitted_followed_and_shown(ask, gateway, submit):
    job_id = submit(labels={"team": "search"})
    events = list(EventStream(gateway, job_id).events())
    assert events[0][1] in ("started", "rerouted")
    assert (events[-1][1], len(texts(events))) == ("finished", TOKENS)
    _, _, shown = ask("GET", f"/v1/jobs/{job_id}")
    assert (shown["state"], shown["labels"]) == ("succeeded", {"team": "search"})
    assert shown["result"]["text"] == "".join(texts(events))
    assert (len(shown["result"]["token_ids"]), shown["result"]["finish_reason"]) == (TOKENS, "stop")


def test_a_job_that_has_ended_a_moment_ago_has_its_result(ask, submit):
    for _ in range(10):
        job_id = submit(max_tokens=3)
        shown = eventually(
            lambda job_id=job_id: (
                (found := ask("GET", f"/v1/jobs/{job_id}")[2])["state"] == "succeeded" and found
            ),
            PATIENCE_SECONDS,
            "it ends",
        )
        assert len(shown["result"]["token_ids"]) == 3


def test_the_answer_to_a_submission_says_where_the_job_is(ask):
    status, headers, document = ask("POST", "/v1/jobs", {"model": "counter", "prompt": "x"})
    assert (status, document["is_new"]) == (202, True)
    assert headers["Location"] == f"/v1/jobs/{document['job_id']}"
    assert ask("GET", headers["Location"])[0] == 200


def test_the_same_key_is_the_same_job_and_another_body_a_conflict(ask):
    headers = {"Idempotency-Key": uuid4().hex, "X-Correlation-Id": "größe".encode().decode("latin-1")}
    body = {"model": "counter", "prompt": "x", "delay_ms": 3_600_000}
    first = ask("POST", "/v1/jobs", body, headers=headers)
    again = ask("POST", "/v1/jobs", body, headers=headers)
    assert (first[0], again[0]) == (202, 200)
    assert first[2]["job_id"] == again[2]["job_id"]
    assert first[2]["correlation_id"] == "größe"
    status, _, document = ask("POST", "/v1/jobs", {**body, "prompt": "y"}, headers=headers)
    assert (status, document["error"]["code"]) == (409, "key_conflict")
    assert first[2]["job_id"] in document["error"]["message"]


def test_each_of_a_batch_is_answered_for_itself(ask):
    good = {"model": "counter", "prompt": "x"}
    bad = [{"model": "countr", "prompt": "x"}, {"model": "counter"}, 5, {**good, "label": {}}]
    status, _, document = ask("POST", "/v1/jobs:batch", {"jobs": [good, *bad, good]})
    assert status == 200
    assert [item["status"] for item in document["data"]] == [202, 404, 422, 422, 422, 202]
    assert "did you mean labels" in document["data"][4]["error"]["message"]


def test_a_stream_goes_on_from_any_place(gateway, submit):
    job_id = submit()
    whole = list(EventStream(gateway, job_id).events())
    for place in range(TOKENS + 1):
        rest = list(EventStream(gateway, job_id, last_id=place).events())
        assert texts(rest) == texts(whole)[place:]
        assert rest[-1][1] == "finished"
        assert list(EventStream(gateway, job_id, query=f"?offset={place}").events()) == rest
    assert texts(EventStream(gateway, job_id, last_id=2, query="?offset=6").events()) == texts(whole)[2:]


def test_two_follow_one_stream_and_one_of_them_from_its_middle(gateway, ask, submit):
    job_id = submit(model="slow", max_tokens=40)
    first = EventStream(gateway, job_id).events()
    seen = [next(first) for _ in range(6)]
    second = list(EventStream(gateway, job_id, last_id=seen[-1][0]).events())
    whole = texts(seen) + texts(first)
    assert len(whole) == 40
    assert texts(seen) + texts(second) == whole
    assert ask("GET", f"/v1/jobs/{job_id}")[2]["result"]["text"] == "".join(whole)


def test_a_stream_comes_from_the_database_when_redis_no_longer_has_it(service, gateway, submit):
    job_id = submit()
    whole = list(EventStream(gateway, job_id).events())
    with Store(service.settings.database.url) as store:
        eventually(
            lambda: store.read(
                lambda c: c.execute(jobs.select().where(jobs.c.job_id == job_id)).one().result
            ),
            PATIENCE_SECONDS,
            "its result is stored",
        )
    service.cluster.redis.delete(service.cluster.keys.stream(job_id), service.cluster.keys.job(job_id))
    assert texts(EventStream(gateway, job_id).events()) == texts(whole)
    rest = list(EventStream(gateway, job_id, last_id=3).events())
    assert (texts(rest), rest[-1][1]) == (texts(whole)[3:], "finished")


def test_a_restart_of_the_gateway_in_mid_stream_loses_nothing(gateway, ask, submit):
    job_id = submit(model="slow", max_tokens=60)
    first = EventStream(gateway, job_id).events()
    seen = [next(first) for _ in range(5)]
    stopping = threading.Thread(target=gateway.restart)
    stopping.start()
    seen += first
    stopping.join()
    _, kind, data = seen.pop()
    assert (kind, data["code"], data["retryable"]) == ("interrupted", "gateway_stopping", True)
    seen += EventStream(gateway, job_id, last_id=seen[-1][0]).events()
    assert len(texts(seen)) == 60
    assert ask("GET", f"/v1/jobs/{job_id}")[2]["result"]["text"] == "".join(texts(seen))


def test_while_it_stops_it_answers_on_open_connections_and_says_that_they_end(service):
    with RunningGateway(service.settings) as gateway:
        headers = {"Authorization": f"Bearer {gateway.key()}"}
        used, unused = (
            http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS) for _ in "12"
        )
        used.request("GET", "/v1/models", headers=headers)
        assert "connection" not in {name.lower() for name, _ in read_out(used)}
        unused.connect()
        body = {"model": "slow", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 60}
        waiting = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        waiting.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        eventually(
            lambda: metric("tether_open_streams", gateway) == 1.0, PATIENCE_SECONDS, "it is waited for"
        )
        stopping = threading.Thread(target=lambda: gateway.stop(is_replaced=True))
        stopping.start()
        eventually(lambda: refuses(gateway.port), PATIENCE_SECONDS, "it accepts no more connections")
        for connection in (used, unused, waiting):
            if connection is not waiting:
                connection.request("GET", "/v1/models", headers=headers)
            assert ("connection", "close") in [(name.lower(), value) for name, value in read_out(connection)]
        join(stopping)


def read_out(connection):
    """The headers of an answer that is read to its end."""
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    return answer.getheaders()


def refuses(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def metric(name, gateway):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_a_reader_that_comes_back_to_a_gateway_that_stops_is_told_to_come_back_again(service):
    with RunningGateway(service.settings) as gateway:
        job_id = submit_to(gateway)
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        connection.connect()
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        eventually(lambda: refuses(gateway.port), PATIENCE_SECONDS, "it accepts no more connections")
        connection.request(
            "GET", f"/v1/jobs/{job_id}/stream", headers={"Authorization": f"Bearer {gateway.key()}"}
        )
        answer = connection.getresponse()
        assert answer.status == 200
        assert "gateway_stopping" in answer.read().decode()
        join(stopping)


def submit_to(gateway):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    body = {"model": "slow", "prompt": "one two", "max_tokens": 60}
    connection.request("POST", "/v1/jobs", json.dumps(body), {"Authorization": f"Bearer {gateway.key()}"})
    return json.loads(connection.getresponse().read())["job_id"]


def test_a_reader_that_leaves_leaves_nothing_behind(gateway, ask, submit):
    job_id = submit(model="slow", max_tokens=200)
    readers = [EventStream(gateway, job_id) for _ in range(5)]
    for reader in readers:
        next(reader.events())
    assert "tether_open_streams 5.0" in ask("GET", "/metrics")[2]
    for reader in readers:
        reader.close()
    eventually(
        lambda: "tether_open_streams 0.0" in ask("GET", "/metrics")[2],
        PATIENCE_SECONDS,
        "all streams are closed",
    )
    ask("DELETE", f"/v1/jobs/{job_id}")


def test_a_revoked_key_ends_its_stream_and_is_refused(service, gateway, ask, submit):
    key, key_id = add_api_key(service.settings)
    job_id = submit(model="slow", max_tokens=1_000)
    stream = EventStream(gateway, job_id, key=key).events()
    next(stream)
    with Store(service.settings.database.url) as store:
        assert store.write_alone(revoke_key, key_id, None, 5).result() is not None
    *_, (_, kind, data) = stream
    assert (kind, data["code"], data["retryable"]) == ("interrupted", "unauthenticated", False)
    eventually(
        lambda: ask("GET", f"/v1/jobs/{job_id}", key=key)[0] == 401, PATIENCE_SECONDS, "the key is refused"
    )
    ask("DELETE", f"/v1/jobs/{job_id}")


def test_a_job_is_cancelled_as_often_as_one_likes(ask, submit):
    job_id = submit(delay_ms=3_600_000)
    answers = [ask("DELETE", f"/v1/jobs/{job_id}") for _ in range(2)]
    assert [(status, document["state"]) for status, _, document in answers] == [(200, "cancelled")] * 2
    done = submit()
    eventually(lambda: ask("GET", f"/v1/jobs/{done}")[2]["finished_at"], PATIENCE_SECONDS, "it has ended")
    assert ask("DELETE", f"/v1/jobs/{done}")[2]["state"] == "succeeded"


def test_a_tenant_sees_nothing_of_another(gateway, ask, submit):
    job_id = submit()
    key = gateway.key(OTHER_TENANT)
    absent = f"/v1/jobs/{uuid4()}"
    for method, path in (
        ("GET", f"/v1/jobs/{job_id}"),
        ("DELETE", f"/v1/jobs/{job_id}"),
        ("GET", f"/v1/jobs/{job_id}/stream"),
        ("GET", absent),
        ("DELETE", absent),
        ("GET", f"{absent}/stream"),
    ):
        status, _, document = ask(method, path, key=key)
        assert (status, document["error"]["code"]) == (404, "job_unknown")
    assert job_id not in str(ask("GET", "/v1/jobs?limit=200", key=key)[2])


def test_a_key_is_good_for_its_scopes_only(gateway, ask, submit):
    reads, submits = gateway.key(scopes=(Scope.READ,)), gateway.key(scopes=(Scope.SUBMIT,))
    job_id = submit(delay_ms=3_600_000)
    body = {"model": "counter", "prompt": "x"}
    assert ask("POST", "/v1/jobs", body, key=reads)[0] == 403
    assert ask("DELETE", f"/v1/jobs/{job_id}", key=reads)[0] == 403
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/stream", "/v1/models"):
        assert ask("GET", path, key=submits)[0] == 403
    assert ask("GET", "/v1/keys")[0] == 403
    assert ask("DELETE", f"/v1/jobs/{job_id}", key=submits)[0] == 200


def test_an_admin_s_key_makes_and_revokes_keys_of_its_tenant(gateway, ask):
    admin = gateway.key(OTHER_TENANT, (Scope.ADMIN,))
    status, _, made = ask("POST", "/v1/keys", {"scopes": ["read"], "name": "a board"}, key=admin)
    assert (status, made["scopes"], made["tenant_id"]) == (201, ["read"], OTHER_TENANT)
    assert made["name"] == "a board"
    assert ask("GET", "/v1/jobs", key=made["key"])[0] == 200
    listed = ask("GET", "/v1/keys", key=admin)[2]["data"]
    assert made["key_id"] in [key["key_id"] for key in listed]
    assert made["key"] not in str(listed)
    assert ask("DELETE", f"/v1/keys/{made['key_id']}", key=gateway.key(scopes=(Scope.ADMIN,)))[0] == 404
    assert ask("DELETE", f"/v1/keys/{made['key_id']}", key=admin)[2]["revoked_at"]
    eventually(lambda: ask("GET", "/v1/jobs", key=made["key"])[0] == 401, PATIENCE_SECONDS, "it is refused")
    for body in (
        {},
        {"scopes": []},
        {"scopes": ["all"]},
        {"scopes": "read"},
        {"scopes": ["read"], "tenant": "x"},
    ):
        assert ask("POST", "/v1/keys", body, key=admin)[0] == 422


def test_models_are_in_the_shape_of_openai_s_list(ask):
    _, _, document = ask("GET", "/v1/models")
    first = document["data"][0]
    assert document["object"] == "list"
    assert (first["id"], first["object"], first["owned_by"], first["workers"]) == (
        "counter",
        "model",
        "tether",
        1,
    )
    assert ask("GET", "/v1/models/counter")[2] == first
    status, _, refused = ask("GET", "/v1/models/countr")
    assert (status, refused["error"]["code"]) == (404, "model_unknown")
    assert "did you mean 'counter'" in refused["error"]["message"]


def test_what_a_client_makes_up_does_not_become_a_metric(ask):
    for method in ("PUT", "MADEUP1", "MADEUP2"):
        assert ask(method, "/v1/jobs")[0] == 405
        assert ask(method, f"/{method}")[0] == 404
    assert ask("PATCH", "/v1/jobs")[0] == 405
    text = ask("GET", "/metrics")[2]
    assert 'tether_http_requests_total{method="other",route="/v1/jobs",status="405"}' in text
    assert 'tether_http_requests_total{method="PATCH",route="/v1/jobs",status="405"}' in text
    assert 'route="other",status="404"' in text
    assert "MADEUP" not in text


def test_pages_follow_each_other(ask, submit):
    mark = uuid4().hex
    ids = [submit(labels={"mark": mark}, delay_ms=3_600_000) for _ in range(5)]
    found, cursor = [], ""
    while cursor is not None:
        path = f"/v1/jobs?limit=2&label=mark%3D{mark}" + (f"&cursor={cursor}" if cursor else "")
        page = ask("GET", path)[2]
        found += [job["job_id"] for job in page["data"]]
        cursor = page["next_cursor"]
    assert found == ids[::-1]


def test_whoever_sends_half_of_a_request_does_not_keep_a_connection(service, monkeypatch):
    monkeypatch.setattr("tether.gateway.server.protocol.HEAD_SECONDS", 0.3)
    monkeypatch.setattr("tether.gateway.receiving.BODY_SECONDS", 0.3)
    with RunningGateway(service.settings) as gateway:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key()}\r\n"
        for sent in (b"", b"GET /healthz HT", head.encode(), f"{head}Content-Length: 9\r\n\r\n{{".encode()):
            with socket.create_connection(
                ("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS
            ) as connection:
                connection.sendall(sent)
                answer = b""
                while data := connection.recv(65_536):
                    answer += data
            assert (b"request_timeout" in answer) == (b"Content-Length" in sent)
        # A connection that did its work and rests is another matter.
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        for pause in (0, 0.5):
            threading.Event().wait(pause)
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.close()


def raw(gateway, sent):
    """What is answered to these bytes, until the connection ends."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(sent)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return answer


def test_a_body_that_is_answered_early_is_not_read_for_ever(gateway, monkeypatch):
    monkeypatch.setattr("tether.gateway.server.protocol.LINGER_SECONDS", 0.3)
    chunk = b"1000\r\n" + b" " * 4_096 + b"\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401")
        with pytest.raises(ConnectionError):
            connection.sendall(chunk * 100_000)


def test_what_is_no_http_is_answered_in_the_form_of_errors(gateway):
    answer = raw(gateway, b"\x16\x03\x01 not HTTP at all\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert b'"code":"body_malformed"' in answer


def test_headers_that_contradict_each_other_are_refused(gateway):
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {gateway.key()}\r\n"
    )
    for more, words in (
        ("Idempotency-Key: a\r\nIdempotency-Key: b\r\n", b"duplicate header idempotency-key"),
        ("Authorization: Bearer x\r\n", b"duplicate header authorization"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"cannot be combined"),
    ):
        answer = raw(gateway, f"{head}{more}\r\n0\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 422"), answer
        assert words in answer


def test_more_connections_than_the_process_can_have_are_closed_and_others_served(service, monkeypatch):
    with RunningGateway(service.settings) as gateway:
        monkeypatch.setattr("tether.gateway.server.protocol.max_connections", lambda: 5)
        idle = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(20)]

        def refused():
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
            try:
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
            except (OSError, http.client.HTTPException):
                # One that is closed makes room for the next.
                idle.pop(0).close()
                return 0
            finally:
                connection.close()
            return float(text.partition("\ntether_connections_refused_total ")[2].partition("\n")[0])

        assert eventually(refused, PATIENCE_SECONDS, "somebody is served, and somebody was refused") >= 15
        for connection in idle:
            connection.close()


def test_a_client_that_leaves_in_mid_body_is_no_failure(gateway, ask, caplog):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(
                f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key()}\r\n"
                "Content-Length: 100\r\n\r\n{".encode()
            )
    counted = 'tether_http_requests_total{method="POST",route="/v1/jobs",status="400"}'
    eventually(lambda: counted in ask("GET", "/metrics")[2], PATIENCE_SECONDS, "they are counted")
    assert "A request failed" not in caplog.text


def test_load_balancers_may_ask_with_head(gateway):
    for path in ("/healthz", "/readyz"):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.close()


def test_health_needs_no_key(ask):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        status, headers, _ = ask("GET", path, headers={"Authorization": ""})
        assert status == 200, path
        assert headers.get_content_type() in ("application/json", "text/plain")
    assert ask("GET", "/readyz")[2] == {
        "status": "ready",
        "database": "ok",
        "redis": "ok",
        "orchestrator": "ok",
    }


def test_open_streams_do_not_keep_a_gateway_from_stopping(service, submit):
    other = RunningGateway(service.settings)
    job_id = submit(model="slow", max_tokens=1_000)
    readers = [EventStream(other, job_id).events() for _ in range(20)]
    for reader in readers:
        next(reader)
    began = time.monotonic()
    other.stop()
    assert time.monotonic() - began < service.settings.gateway.drain_timeout / 1000
    assert [list(reader)[-1][1] for reader in readers] == ["interrupted"] * 20
    assert not [t.name for t in threading.enumerate() if t.name.startswith("tether-gateway")]


def test_the_contract_is_written_on_a_thread_before_anybody_asks_for_it(service, monkeypatch):
    make, threads = FastAPI.openapi, []

    def noted(app):
        threads.append(threading.current_thread().name)
        return make(app)

    monkeypatch.setattr(FastAPI, "openapi", noted)
    with RunningGateway(service.settings) as gateway:
        assert b"/v1/jobs" in raw(
            gateway, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert b" 405 " in raw(gateway, b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert len(threads) == 1
    assert threads[0].startswith("tether-async")
