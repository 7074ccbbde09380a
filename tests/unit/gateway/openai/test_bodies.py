"""Requests for chat completions, read or refused with what is wrong."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import InvalidRequest, TetherError, UnknownModel
from tether.gateway.openai.bodies import IGNORED, UNSUPPORTED, known_fields, read_chat
from tether.gateway.openai.schemas import chat_request_body
from tether.jobs import Message, Priority, Sampling
from tether.models.registry import ModelVersion, Registry

NOW = 1_800_000_000_000
SMALL = ModelVersion(name="small", version="2", digest="1" * 64, context=100)
REGISTRY = Registry([ModelVersion(name="demo", version="1", digest="0" * 64, context=8_192), SMALL])
DOCUMENT = jsonschema_rs.validator_for(chat_request_body())
LEAST = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}


def read(headers=None, **values):
    return read_chat(
        {**LEAST, **values}, NOW, headers or {}, find=REGISTRY.find, randomness=lambda count: b"\xff" * count
    )


def test_where_nothing_is_said_it_is_as_openai_s_clients_expect():
    asked = read()
    assert (asked.model.name, asked.is_streamed, asked.wants_usage) == ("demo", False, False)
    assert asked.job.messages == (Message("user", "hi"),)
    assert asked.job.priority is Priority.INTERACTIVE
    assert asked.job.sampling == Sampling(temperature=1.0, seed=2**63 - 1)


def test_every_field_that_counts_is_read():
    asked = read(
        model="small@2",
        max_completion_tokens=5,
        temperature=0,
        top_p=0.5,
        top_k=3,
        seed=-1,
        stop=["a", "b"],
        metadata={"team": "search"},
        adapter="pirate",
        priority="batch",
        time_limit_ms=1_000,
        correlation_id="c",
        retry_token="t",
        stream=True,
        stream_options={"include_usage": True},
        user="somebody",
        store=False,
        n=1,
        tools=[],
        response_format={"type": "text"},
    )
    assert asked.model is SMALL
    job = asked.job
    assert job.sampling == Sampling(
        max_tokens=5, temperature=0, top_p=0.5, top_k=3, seed=2**63 - 1, stop=("a", "b")
    )
    assert (job.adapter, job.priority, job.labels) == ("pirate", Priority.BATCH, {"team": "search"})
    assert (job.correlation_id, job.retry_token, job.time_limit_ms) == ("c", "t", 1_000)
    assert (asked.is_streamed, asked.wants_usage) == (True, True)


def test_the_default_of_tokens_is_no_more_than_the_context():
    assert read(model="small").job.sampling.max_tokens == 100
    assert read(max_tokens=7).job.sampling.max_tokens == 7


def test_content_in_parts_and_the_role_of_developers_are_taken():
    asked = read(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": None, "tool_calls": [], "annotations": []},
            {"role": "user", "content": "d", "name": "me"},
        ]
    )
    said = [(message.role, message.content) for message in asked.job.messages]
    assert said == [("system", "be brief"), ("user", "ab"), ("assistant", "c"), ("user", "d")]


@pytest.mark.parametrize(
    ("values", "param", "words"),
    [
        ({"n": 2}, "n", "n=2 is not supported, other than 1"),
        ({"n": True}, "n", "n=True"),
        ({"tools": [{"type": "function"}]}, "tools", "tools="),
        ({"presence_penalty": 0.5}, "presence_penalty", "other than 0"),
        ({"logprobs": True}, "logprobs", "logprobs=True"),
        ({"response_format": {"type": "json_object"}}, "response_format", "json_object"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "leave it out"),
        ({"temprature": 1}, "temprature", "did you mean temperature"),
        ({"stream": 1}, "stream", "neither true nor false"),
        ({"stream_options": []}, "stream_options", "of type list"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options", "include_usage"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "differ"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "tools are not supported"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "'image_url'"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages", "without a type"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "messages", "tool_calls"),
        ({"messages": []}, None, "messages is not a list of 1 to"),
        ({"messages": "hi"}, None, "messages is not a list of 1 to"),
        ({"messages": [{"role": "user", "content": None}]}, None, "content is of type NoneType"),
        ({"temperature": -1}, None, "temperature=-1"),
        ({"seed": 0.5}, None, "seed=0.5"),
        ({"metadata": {"a": 1}}, None, "labels contains"),
        ({"model": 5}, None, "model is of type int"),
        ({"model": ""}, None, "model is missing"),
    ],
)
def test_what_is_not_possible_is_refused_by_name(values, param, words):
    with pytest.raises(InvalidRequest, match=words) as refused:
        read(**values)
    assert refused.value.param == param


def test_a_model_that_is_not_there_is_unknown():
    with pytest.raises(UnknownModel, match="did you mean 'demo'"):
        read(model="dem")


def test_the_same_key_is_the_same_request_also_where_the_seed_is_made():
    first = read({"idempotency-key": "t"})
    assert read({"idempotency-key": "t"}).job.digest() == first.job.digest()
    assert read({"idempotency-key": "u"}).job.sampling.seed != first.job.sampling.seed
    assert read(retry_token="t").job.digest() == first.job.digest()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(known_fields()) | st.text(), json_values, max_size=6))
def test_whatever_a_body_holds_it_is_a_request_or_refused(values):
    try:
        read(**values)
    except (InvalidRequest, UnknownModel):
        return


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["role", "content", "name"]) | st.text(), json_values), max_size=3
    )
)
def test_whatever_messages_hold_they_are_taken_or_refused(messages):
    try:
        read(messages=messages)
    except InvalidRequest:
        return


def test_the_document_shows_every_field_that_is_read():
    keys = {"correlation_id", "retry_token"}
    assert set(chat_request_body()["properties"]) == {*known_fields()} - {*IGNORED} - {*UNSUPPORTED} - keys


@given(st.dictionaries(st.sampled_from(sorted(chat_request_body()["properties"])), json_values, max_size=4))
def test_the_document_takes_what_is_taken(values):
    body = {**LEAST, **{name: value for name, value in values.items() if value is not None}}
    try:
        read(**body)
    except TetherError:
        return
    if json.dumps(body).isascii() and "\\u" not in json.dumps(body):
        DOCUMENT.validate(body)
