"""What clients send, read or refused with what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.client.documents import request_to_json
from tether.client.requests import make_request
from tether.errors import InvalidRequest, MalformedBody, TetherError
from tether.gateway.bodies import LONGEST_DELAY_MS, parse_json, read_job
from tether.gateway.schemas import JobRequestBody
from tether.gateway.validation import FIELDS

NOW = 1_800_000_000_000
LEAST = {"model": "m", "prompt": "p"}

BROKEN = {
    "nothing": (b"", "empty"),
    "white space": (b" \n", "empty"),
    "bad UTF-8": (b'{"a": "\xff"}', "byte 7"),
    "no JSON": (b"model=m", "line 1, column 1"),
    "cut off": (b'{"a": ', "column 7"),
    "a list": (b"[]", "list"),
    "null": (b"null", "NoneType"),
    "text": (b'"{}"', "str"),
    "not a number": (b'{"a": NaN}', "NaN"),
    "no end": (b'{"a": -Infinity}', "-Infinity"),
    "a raw NUL": (b'{"a": "\0"}', "control character"),
    "two documents": (b"{}{}", "Extra data"),
    "a field twice": (b'{"a": 1, "a": 2}', "'a' twice"),
    "too deep": (b"[" * 200_000, "nested too deep"),
    "too long a number": (b'{"a": ' + b"9" * 5_000 + b"}", "too long a number"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_body_that_is_no_json_object_is_refused_with_what_is_wrong(case):
    body, words = BROKEN[case]
    with pytest.raises(MalformedBody, match=words):
        parse_json(body)


def test_of_many_fields_the_one_that_stands_twice_is_found():
    body = json.dumps({f"k{n}": 1 for n in range(50_000)})[:-1] + ', "k49999": 2}'
    with pytest.raises(MalformedBody, match="'k49999' twice"):
        parse_json(body.encode())


@given(st.binary(max_size=200))
def test_no_body_makes_the_reader_fail(body):
    try:
        found = parse_json(body)
    except MalformedBody as refusal:
        found = {"words": str(refusal)[:300]}
    assert isinstance(found, dict)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "delay_ms", "time_limit_ms"]) | st.text(), json_values, max_size=6
    )
)
def test_whatever_an_object_holds_it_is_a_request_or_refused(values):
    try:
        read_job({**LEAST, **values}, NOW)
    except InvalidRequest:
        return


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"delay": 1.001, "time_limit": 60},
        {"sampling": {"max_tokens": 3, "stop": ["a", "b"], "temperature": 0.5, "seed": 2**63 - 1}},
        {"labels": {"größe": "ü"}, "priority": "batch", "adapter": "x", "correlation_id": "c"},
        {"retry_token": "t"},
    ],
)
def test_what_a_client_sends_is_the_request_that_it_made(arguments):
    made = make_request("m", "p", now_ms=NOW, **arguments)
    read = read_job(json.loads(json.dumps(request_to_json(made))), NOW)
    assert (read, read.digest()) == (made, made.digest())


def test_messages_that_a_client_sends_are_those_that_it_made():
    made = make_request("m", messages=[{"role": "user", "content": "süß"}], now_ms=NOW)
    sent = request_to_json(made)
    assert "prompt" not in sent
    read = read_job(json.loads(json.dumps(sent)), NOW)
    assert (read, read.digest()) == (made, made.digest())


def test_a_delay_counts_from_the_gateway_s_clock_and_is_the_same_request_later():
    body = {**LEAST, "delay_ms": 5_000, "time_limit_ms": 9_000}
    first, later = read_job(body, NOW), read_job(body, NOW + 700)
    assert (first.not_before, first.deadline) == (NOW + 5_000, NOW + 9_000)
    assert later.not_before == NOW + 5_700
    assert first.digest() == later.digest()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_tokens": 8.5}, "max_tokens=8.5"),
        ({"delay_ms": -1}, "delay_ms=-1"),
        ({"delay_ms": 1.5}, "delay_ms=1.5"),
        ({"delay_ms": True}, "delay_ms=True"),
        ({"delay_ms": LONGEST_DELAY_MS + 1}, "ten years"),
        ({"delay_ms": 5, "not_before": NOW}, "delay_ms and not_before are both given"),
        ({"time_limit_ms": 5, "deadline": NOW}, "time_limit_ms and deadline are both given"),
        ({"delay": 5}, "did you mean delay_ms"),
        ({"temprature": 1, "priority": "high"}, "2 problems"),
    ],
)
def test_times_and_fields_that_are_not_possible_are_named(more, words):
    with pytest.raises(InvalidRequest, match=words):
        read_job({**LEAST, **more}, NOW)


def test_of_many_unknown_fields_some_are_named():
    with pytest.raises(InvalidRequest, match="more fields that are not known") as refusal:
        read_job({**LEAST, **{f"field{n}": n for n in range(50_000)}}, NOW)
    assert "49990 more" in str(refusal.value)
    assert len(str(refusal.value)) < 1_000


def test_null_is_not_given_and_a_whole_number_may_have_a_point():
    read = read_job({**LEAST, "seed": None, "stop": None, "time_limit_ms": None, "max_tokens": 8.0}, NOW)
    assert read == read_job({**LEAST, "max_tokens": 8}, NOW)
    assert type(read.sampling.max_tokens) is int


def test_keys_may_stand_in_headers():
    headers = {
        "idempotency-key": "t",
        "x-correlation-id": "ü".encode().decode("latin-1"),
        "traceparent": "00-x",
    }
    read = read_job(LEAST, NOW, headers)
    assert (read.retry_token, read.correlation_id, read.traceparent) == ("t", "ü", "00-x")
    assert read_job({**LEAST, "retry_token": "t"}, NOW, headers).retry_token == "t"
    with pytest.raises(InvalidRequest, match="retry_token stands in the body and, differently"):
        read_job({**LEAST, "retry_token": "other"}, NOW, headers)


def test_the_document_shows_every_field_that_is_read():
    shown = set(JobRequestBody.model_json_schema()["properties"])
    assert shown == {*FIELDS, "delay_ms", "time_limit_ms"}


@given(st.dictionaries(st.sampled_from(sorted(JobRequestBody.model_fields)), json_values, max_size=4))
def test_the_document_takes_what_the_gateway_takes(values):
    """But for texts of other scripts, which its patterns leave out, and null, which is as good as nothing."""
    body = {**LEAST, **{name: value for name, value in values.items() if value is not None}}
    try:
        read_job(body, NOW)
    except TetherError:
        return
    if json.dumps(body).isascii() and "\\u" not in json.dumps(body):
        JobRequestBody.model_validate(body)
