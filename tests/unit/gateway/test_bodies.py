"""What clients send, read or refused with what is wrong."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.client.submission_documents import request_to_json
from tether.errors import InvalidRequest, TetherError
from tether.gateway.bodies import MAX_JOBS, read_batch, read_job_request
from tether.gateway.jobs.documents import job_request_body
from tether.requests.checking import MAX_GUESSED
from tether.requests.fields import MAX_DELAY_MS, TABLE
from tether.requests.options import make_request

NOW = 1_800_000_000_000
LEAST = {"model": "m", "prompt": "p"}
DOCUMENT = jsonschema_rs.validator_for(job_request_body())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(TABLE.fields)) | st.text(), json_values, max_size=6))
def test_whatever_an_object_holds_it_is_a_request_or_refused(values):
    try:
        read_job_request({**LEAST, **values}, NOW)
    except InvalidRequest:
        return


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"delay": 1.001, "time_limit": 60},
        {"max_tokens": 3, "stop": ["a", "b"], "temperature": 0.5, "seed": 2**63 - 1},
        {"labels": {"größe": "ü"}, "priority": "batch", "adapter": "x", "correlation_id": "c"},
        {"retry_token": "t"},
    ],
)
def test_what_a_client_sends_is_the_request_that_it_made(arguments):
    made = make_request("m", "p", now_ms=NOW, **arguments)
    read = read_job_request(json.loads(json.dumps(request_to_json(made))), NOW)
    assert (read, read.digest()) == (made, made.digest())


def test_messages_that_a_client_sends_are_those_that_it_made():
    made = make_request("m", messages=[{"role": "user", "content": "süß"}], now_ms=NOW)
    sent = request_to_json(made)
    assert "prompt" not in sent
    read = read_job_request(json.loads(json.dumps(sent)), NOW)
    assert (read, read.digest()) == (made, made.digest())


def test_a_delay_counts_from_the_gateway_s_clock_and_is_the_same_request_later():
    body = {**LEAST, "delay_ms": 5_000, "time_limit_ms": 9_000, "expires_in_ms": 7_000}
    first, later = read_job_request(body, NOW), read_job_request(body, NOW + 700)
    assert (first.not_before, first.deadline, first.expires_at) == (NOW + 5_000, NOW + 9_000, NOW + 7_000)
    assert (later.expires_in_ms, later.expires_at) == (7_000, NOW + 7_700)
    assert later.not_before == NOW + 5_700
    assert first.digest() == later.digest()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_tokens": 8.5}, "max_tokens=8.5"),
        ({"delay_ms": -1}, "delay_ms=-1"),
        ({"delay_ms": 1.5}, "delay_ms=1.5"),
        ({"delay_ms": True}, "delay_ms=True"),
        ({"delay_ms": MAX_DELAY_MS + 1}, "ten years"),
        ({"delay_ms": 5, "not_before": NOW}, "delay_ms and not_before are mutually exclusive"),
        ({"time_limit_ms": 0}, "time_limit_ms=0 leaves the job no time"),
        ({"expires_in_ms": 0}, "expires_in_ms=0 leaves the job no time"),
        ({"time_limit_ms": 5, "deadline": NOW}, "time_limit_ms and deadline are mutually exclusive"),
        ({"expires_in_ms": 5, "expires_at": NOW}, "expires_in_ms and expires_at are mutually exclusive"),
        ({"expires_in_ms": -1}, "expires_in_ms=-1"),
        ({"delay": 5}, "did you mean delay_ms"),
        ({"temprature": 1, "priority": "high"}, "2 problems"),
    ],
)
def test_times_and_fields_that_are_not_possible_are_named(more, words):
    with pytest.raises(InvalidRequest, match=words):
        read_job_request({**LEAST, **more}, NOW)


def test_of_many_unknown_fields_some_are_named():
    with pytest.raises(InvalidRequest, match="more unknown fields") as refusal:
        read_job_request({**LEAST, **{f"field{n}": n for n in range(50_000)}}, NOW)
    assert "49990 more" in str(refusal.value)
    assert len(str(refusal.value)) < 1_000


def test_null_is_not_given_and_a_whole_number_may_have_a_point():
    read = read_job_request(
        {**LEAST, "seed": None, "stop": None, "time_limit_ms": None, "max_tokens": 8.0}, NOW
    )
    assert read == read_job_request({**LEAST, "max_tokens": 8}, NOW)
    assert type(read.sampling.max_tokens) is int


def test_a_batch_that_is_none_is_refused_whole_and_an_item_that_is_none_alone():
    for batch in (
        {},
        {"jobs": {}},
        {"jobs": []},
        {"jobs": [LEAST] * (MAX_JOBS + 1)},
        {"jobs": [LEAST], "x": 1},
    ):
        with pytest.raises(InvalidRequest, match="1 to 1000 job requests"):
            read_batch(batch, NOW)
    read = read_batch({"jobs": [LEAST, 5, {"model": "m"}, LEAST]}, NOW)
    assert read[0] == read[3] == read_job_request(LEAST, NOW)
    assert ["type int" in str(read[1]), "prompt is missing" in str(read[2])] == [True, True]


def test_only_for_some_unknown_fields_it_is_said_what_was_meant():
    with pytest.raises(InvalidRequest) as refusal:
        read_job_request({**LEAST, "temprature": 1, "max_token": 1, "topp": 1, "seeed": 1}, NOW)
    assert str(refusal.value).count("did you mean") == MAX_GUESSED
    assert "unknown field 'seeed'" in str(refusal.value)


def test_keys_may_stand_in_headers():
    headers = {
        "idempotency-key": "t",
        "x-correlation-id": "ü".encode().decode("latin-1"),
        "traceparent": "00-x",
    }
    read = read_job_request(LEAST, NOW, headers)
    assert (read.retry_token, read.correlation_id, read.traceparent) == ("t", "ü", "00-x")
    assert read_job_request({**LEAST, "retry_token": "t"}, NOW, headers).retry_token == "t"
    with pytest.raises(InvalidRequest, match="retry_token in the body differs from the header"):
        read_job_request({**LEAST, "retry_token": "other"}, NOW, headers)


def test_the_document_shows_every_field_that_is_read():
    shown = set(job_request_body()["properties"])
    assert shown == set(TABLE.fields)


@given(st.dictionaries(st.sampled_from(sorted(TABLE.fields)), json_values, max_size=4))
def test_the_document_takes_what_the_gateway_takes(values):
    """But for texts of other scripts, which its patterns leave out, and null, which is as good as nothing."""
    body = {**LEAST, **{name: value for name, value in values.items() if value is not None}}
    try:
        read_job_request(body, NOW)
    except TetherError:
        return
    if json.dumps(body).isascii() and "\\u" not in json.dumps(body):
        DOCUMENT.validate(body)


def test_where_unknown_fields_are_ignored_they_are_named():
    ignored = []
    assert read_job_request({**LEAST, "foo": 1, "bar": 2}, NOW, ignored=ignored) == read_job_request(
        LEAST, NOW
    )
    assert ignored == ["foo", "bar"]
    ignored = []
    made, wrong = read_batch(
        {"jobs": [{**LEAST, "foo": 1}, {**LEAST, "top_p": 9, "baz": 1}]}, NOW, ignored=ignored
    )
    assert made == read_job_request(LEAST, NOW)
    assert isinstance(wrong, InvalidRequest)
    assert ignored == ["foo", "baz"]


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"top_p": 9}, "top_p"),
        ({"foo": 1}, "foo"),
        ({"prompt": ""}, "prompt"),
        ({"delay_ms": -1}, "delay_ms"),
    ],
)
def test_the_field_that_is_wrong_is_told_apart_from_the_message(values, param):
    with pytest.raises(InvalidRequest) as refused:
        read_job_request({**LEAST, **values}, NOW)
    assert refused.value.param == param
