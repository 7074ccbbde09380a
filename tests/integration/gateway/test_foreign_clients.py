"""The gateway as clients meet it that were made for others: their addresses, fields, and browsers."""

import http.client
import json

import openai
import pytest

from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS

SAID = {"model": "counter", "messages": [{"role": "user", "content": "one two"}]}
JOB = {"model": "counter", "prompt": "one two"}
PAGE = "https://app.example.com"


@pytest.fixture(scope="module")
def lenient(service):
    """A gateway that ignores unknown fields, and that pages of one origin may call."""
    gateway = service.settings.gateway.model_copy(
        update={"unknown_fields": "ignore", "cors_origins": (PAGE,)}
    )
    with RunningGateway(service.settings.model_copy(update={"gateway": gateway})) as opened:
        yield opened


def ask(gateway, method, path, body=None, *, key=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    told = {"Authorization": f"Bearer {gateway.key() if key is None else key}", **headers}
    connection.request(method, path, None if body is None else json.dumps(body), told)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    is_json = text and answer.headers.get_content_type() == "application/json"
    return answer.status, answer.headers, json.loads(text) if is_json else text.decode()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/models/", None, 200),
        ("GET", "//v1//models/counter//", None, 200),
        ("POST", "/v1//chat/completions/", SAID, 200),
        ("POST", "/v1/jobs/", JOB, 202),
        ("GET", "/v1/jobs/?limit=1", None, 200),
        ("GET", "//healthz/", None, 200),
        ("HEAD", "/readyz/", None, 200),
    ],
)
def test_slashes_too_many_change_nothing(gateway, method, path, body, status):
    assert ask(gateway, method, path, body)[0] == status


def test_a_base_url_with_a_slash_at_its_end_is_right(gateway):
    with openai.OpenAI(base_url=f"{gateway.url}//v1/", api_key=gateway.key(), max_retries=0) as client:
        assert client.models.retrieve("counter").id == "counter"


@pytest.mark.parametrize("base", ["", "/v1/v1", "/api/v1"])
def test_a_base_url_that_is_none_is_told_what_it_must_be(gateway, base):
    with (
        openai.OpenAI(base_url=f"{gateway.url}{base}", api_key=gateway.key(), max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match=r"did you mean /v1/chat/completions.*base URL") as refused,
    ):
        client.chat.completions.create(**SAID)
    assert refused.value.code == "route_unknown"


def test_a_method_that_is_not_allowed_is_told_so_at_any_spelling(gateway):
    status, headers, document = ask(gateway, "DELETE", "/v1//models/")
    assert (status, headers["allow"]) == (405, "GET"), document


def test_unknown_fields_are_refused_unless_the_settings_say_otherwise(gateway, lenient):
    for path, body in (("/v1/chat/completions", SAID), ("/v1/jobs", JOB)):
        status, _, document = ask(gateway, "POST", path, {**body, "foo": 1})
        assert status in (400, 422)
        assert document["error"]["param"] == "foo"
        status, headers, document = ask(lenient, "POST", path, {**body, "foo": 1, "a,\r\nü": 2})
        assert status in (200, 202), document
        assert headers["x-tether-ignored"] == "foo, a%2C%0D%0A%C3%BC"
        assert ask(lenient, "POST", path, body)[1]["x-tether-ignored"] is None
    many = {**JOB, **{f"f{n}": n for n in range(30)}}
    status, headers, document = ask(lenient, "POST", "/v1/jobs:batch", {"jobs": [many, {**JOB, "foo": 1}]})
    assert [item["status"] for item in document["data"]] == [202, 202]
    assert headers["x-tether-ignored"].endswith("f19, and 11 more")


def test_a_field_of_any_name_is_ignored_and_costs_no_answer(lenient):
    odd = {"\ud800": 1, **{chr(0x4E00 + n) * 80: n for n in range(30)}}
    for path, body in (("/v1/chat/completions", SAID), ("/v1/jobs", JOB)):
        status, headers, document = ask(lenient, "POST", path, {**body, **odd})
        assert status in (200, 202), document
        assert headers["x-tether-ignored"].startswith("%3F, %E4%B8%80")
        assert headers["x-tether-ignored"].endswith(", and 28 more")
        assert len(headers["x-tether-ignored"]) < 2_100


def test_what_is_ignored_is_told_before_a_stream_and_with_an_error(lenient):
    body = {**SAID, "presence_penalty": 0.5}
    status, headers, text = ask(lenient, "POST", "/v1/chat/completions", {**body, "stream": True})
    assert (status, headers["x-tether-ignored"]) == (200, "presence_penalty")
    assert text.endswith("data: [DONE]\n\n")
    status, headers, document = ask(lenient, "POST", "/v1/chat/completions", {**body, "model": "refusing"})
    assert (status, headers["x-tether-ignored"]) == (400, "presence_penalty")
    assert document["error"]["param"] == "messages"


def preflight(gateway, origin, path="/v1/chat/completions", **more):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,x-stainless-lang",
    }
    # A browser sends no key with it.
    return ask(gateway, "OPTIONS", path, key="none", **asked, **more)


def test_a_page_of_a_known_origin_may_ask_without_a_key_what_it_may(lenient):
    status, headers, _ = preflight(lenient, PAGE)
    assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
    assert "POST" in headers["access-control-allow-methods"]
    assert "x-stainless-lang" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origin", ["https://other.example.com", "null", "https://app.example.com.evil"])
def test_a_page_of_another_origin_may_nothing(lenient, origin):
    status, headers, _ = preflight(lenient, origin)
    assert status == 400
    assert "access-control-allow-origin" not in headers
    _, headers, _ = ask(lenient, "GET", "/v1/models", Origin=origin)
    assert "access-control-allow-origin" not in headers


def test_a_preflight_has_the_limits_of_all_other_requests(lenient):
    status, _, told = preflight(lenient, PAGE, **{"X-Large": "x" * 40_000})
    assert (status, told["error"]["code"]) == (431, "headers_too_large")
    assert preflight(lenient, PAGE, **{"X-Small": "x" * 10_000})[0] == 200


def test_without_the_setting_there_is_no_cors(gateway):
    status, headers, _ = preflight(gateway, PAGE)
    assert status == 405
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("method", "path", "body", "more", "status"),
    [
        ("POST", "/v1/chat/completions", SAID, {}, 200),
        ("POST", "/v1/chat/completions", {**SAID, "stream": True}, {}, 200),
        ("POST", "/v1/chat/completions", {**SAID, "model": "none"}, {}, 404),
        ("GET", "/v1/models", None, {"key": "none"}, 401),
        ("GET", "/nothing", None, {}, 404),
        ("GET", "/v1/models", None, {"X-Large": "x" * 40_000}, 431),
    ],
)
def test_a_page_can_read_every_answer_and_what_its_headers_say(lenient, method, path, body, more, status):
    found, headers, _ = ask(lenient, method, path, body, **more, Origin=PAGE)
    assert (found, headers["access-control-allow-origin"]) == (status, PAGE)
    assert "x-tether-job-id" in headers["access-control-expose-headers"]
