"""Requests for chat completions, read or refused with what is wrong."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import InvalidRequest, TetherError, UnknownModel
from tether.gateway.openai.bodies import in_words_of, known_fields, read_chat
from tether.gateway.openai.foreign_fields import HARMLESS, UNSUPPORTED
from tether.gateway.openai.schemas import chat_request_body
from tether.jobs import Message, Priority, Sampling
from tether.models.registry import ModelVersion, Registry

NOW = 1_800_000_000_000
SMALL = ModelVersion(name="small", version="2", digest="1" * 64, context=100)
REGISTRY = Registry([ModelVersion(name="demo", version="1", digest="0" * 64, context=8_192), SMALL])
DOCUMENT = jsonschema_rs.validator_for(chat_request_body())
LEAST = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}


def read(headers=None, ignores_unknown=False, **values):
    return read_chat(
        {**LEAST, **values},
        NOW,
        headers or {},
        find=REGISTRY.find,
        randomness=lambda count: b"\xff" * count,
        ignores_unknown=ignores_unknown,
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
        expires_in_ms=500,
        region="eu",
        gpu_class="h100",
        min_vram=5,
        prefer="region",
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
    assert job.expires_in_ms == 500
    assert (job.region, job.gpu_class, job.min_vram, job.prefer) == ("eu", "h100", 5, ("region",))
    assert read(model="small@2", any_version=True).job.any_version
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
        ({"n": True}, "n", "n=true"),
        ({"tools": [{"type": "function"}]}, "tools", "tools=.* is not supported, other than"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "tools=a list of 1 item is"),
        ({"presence_penalty": 0.5}, "presence_penalty", "other than 0"),
        ({"logprobs": True}, "logprobs", "logprobs=true is not supported, other than false"),
        ({"response_format": {"type": "json_object"}}, "response_format", "json_object"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "leave it out"),
        ({"temprature": 1}, "temprature", "did you mean temperature"),
        ({"stream": 1}, "stream", "neither true nor false"),
        ({"stream_options": []}, "stream_options", "of type list"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options", "include_usage"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "differ"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "tools are not supported"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "'image_url'"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages", "without a type"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "messages", "tool_calls"),
        ({"messages": []}, "messages", "messages is not a list of 1 to"),
        ({"messages": "hi"}, "messages", "messages is not a list of 1 to"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", "content is of type NoneType"),
        ({"temperature": -1}, "temperature", "temperature=-1"),
        ({"temperature": 2.5}, "temperature", "from 0 to 2"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "^max_completion_tokens=0 is not"),
        ({"max_tokens": 0}, "max_tokens", "^max_tokens=0 is not"),
        ({"top_k": -2}, "top_k", "top_k=-2"),
        ({"top_p": 3, "temperature": 9}, "temperature", "2 problems: temperature"),
        ({"seed": 0.5}, "seed", "seed=0.5"),
        ({"metadata": {"a": 1}}, "metadata", "^metadata contains"),
        ({"time_limit_ms": -1}, "time_limit_ms", "time_limit_ms=-1"),
        ({"expires_in_ms": -1}, "expires_in_ms", "expires_in_ms=-1"),
        ({"model": 5}, "model", "model is of type int"),
        ({"enable_thinking": 1}, "enable_thinking", "neither true nor false"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs", "of type list"),
        ({"chat_template_kwargs": 1, "enable_thinking": True}, "chat_template_kwargs", "of type int"),
        ({"chat_template_kwargs": {"eos_token": ""}}, "chat_template_kwargs", "must not contain eos_token"),
        (
            {"chat_template_kwargs": {"enable_thinking": True}, "enable_thinking": False},
            "enable_thinking",
            "differ",
        ),
        ({"model": ""}, "model", "model is missing"),
    ],
)
def test_what_is_not_possible_is_refused_by_name(values, param, words):
    with pytest.raises(InvalidRequest, match=words) as refused:
        read(**values)
    assert refused.value.param == param


def test_a_model_that_is_not_there_is_unknown():
    with pytest.raises(UnknownModel, match="did you mean 'demo'") as refused:
        read(model="dem")
    assert refused.value.param == "model"


@pytest.mark.parametrize("ignores_unknown", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        {"repetition_penalty": 1, "min_p": 0, "top_k": -1, "reasoning_effort": "none", "verbosity": "medium"},
        {"repetition_penalty": 1.0, "min_p": 0.0, "length_penalty": 1.0, "min_tokens": 0, "best_of": 1},
        {
            "chat_template_kwargs": {},
            "thinking": {"type": "disabled"},
            "logit_bias": {},
            "stop_token_ids": [],
        },
    ],
)
def test_what_asks_for_nothing_is_taken_and_changes_nothing(values, ignores_unknown):
    asked = read(ignores_unknown=ignores_unknown, **values)
    assert asked.ignored == ()
    assert asked.job.digest() == read().job.digest()


def test_variables_of_the_chat_template_are_the_jobs():
    given = {"chat_template_kwargs": {"enable_thinking": False, "effort": "low"}}
    asked = read(**given)
    assert asked.job.chat_template_kwargs == given["chat_template_kwargs"]
    assert asked.job.digest() != read().job.digest()
    beside = read(enable_thinking=False, chat_template_kwargs={"effort": "low"})
    assert beside.job.digest() == asked.job.digest()
    assert read(enable_thinking=True).job.chat_template_kwargs == {"enable_thinking": True}
    DOCUMENT.validate({**LEAST, **given, "enable_thinking": False})


def test_what_clients_send_back_of_an_answer_is_taken():
    parts = [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "c"}]
    told = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "refusal": None, "function_call": None, "audio": None},
        {"role": "assistant", "content": "b", "reasoning_content": "hm", "reasoning": "hm"},
        {"role": "assistant", "content": parts, "reasoning_details": [{}], "thinking_blocks": [{}]},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "d"},
    ]
    said = [message.content for message in read(messages=told).job.messages]
    assert said == ["a", "", "b", "c", "no", "no", "d"]
    DOCUMENT.validate({**LEAST, "messages": [told[1]]})


@pytest.mark.parametrize(
    "message", [{"role": "user", "content": [{"type": "reasoning", "text": "x"}]}, {"role": "user"}]
)
def test_what_only_an_answer_can_have_is_refused_of_others(message):
    with pytest.raises(InvalidRequest, match=r"messages\[0\]"):
        read(messages=[message])


def test_where_unknown_fields_are_ignored_they_are_named():
    told = [{"role": "user", "content": "a", "cache": 1}, {"role": "user", "content": "b", "name": "x"}]
    asked = read(ignores_unknown=True, foo=1, presence_penalty=0.5, messages=told, user="u", min_p=0)
    assert asked.ignored == ("foo", "presence_penalty", "messages[0].cache")
    assert (
        asked.job.digest() == read(messages=[{"role": "user", "content": text} for text in "ab"]).job.digest()
    )


@pytest.mark.parametrize(
    "values",
    [
        {"n": 2},
        {"tools": [{}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"temperature": 3},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
    ],
)
def test_what_asks_for_another_form_of_answer_is_never_ignored(values):
    with pytest.raises(InvalidRequest):
        read(ignores_unknown=True, **values)


@pytest.mark.parametrize(
    ("given", "param", "text"),
    [
        ("max_completion_tokens", "max_completion_tokens", "max_completion_tokens=9 is"),
        ("max_tokens",) * 2 + ("max_tokens=9 is",),
    ],
)
def test_refusals_of_the_job_name_the_field_that_the_client_sent(given, param, text):
    error = InvalidRequest("max_tokens=9 is too much")
    error.param = "max_tokens"
    told = in_words_of(error, read(**{given: 5}).names)
    assert told.param == param
    assert str(told).startswith(text)


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
    assert set(chat_request_body()["properties"]) == {*known_fields()} - {*HARMLESS} - {*UNSUPPORTED} - keys


@given(st.dictionaries(st.sampled_from(sorted(chat_request_body()["properties"])), json_values, max_size=4))
def test_the_document_takes_what_is_taken(values):
    body = {**LEAST, **{name: value for name, value in values.items() if value is not None}}
    try:
        read(**body)
    except TetherError:
        return
    if json.dumps(body).isascii() and "\\u" not in json.dumps(body):
        DOCUMENT.validate(body)
