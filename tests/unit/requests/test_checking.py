import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.admission.fits_model import check_for_model
from tether.errors import InvalidRequest
from tether.jobs import JobRequest, Message, Priority, Sampling
from tether.models.registry import ModelVersion
from tether.requests.checking import read_request
from tether.requests.fields import (
    MAX_KEY_CHARACTERS,
    MAX_LABEL_CHARACTERS,
    MAX_LABELS,
    MAX_MESSAGES,
    MAX_PROMPT_BYTES,
    MAX_STOPS,
    MAX_TOKENS,
    TABLE,
    canonical_json,
)
from tether.requests.options import check_request, make_request
from tether.requests.payload import payload_of, read_payload
from tether.requests.table import DELAYS

GOOD = {"model": "demo", "prompt": "one"}
NOW = 1_800_000_000_000


def refusal(**values):
    with pytest.raises(InvalidRequest) as refused:
        read_request({**GOOD, **values})
    return str(refused.value)


def test_a_request_of_two_fields_gets_the_defaults():
    assert read_request(GOOD) == JobRequest(model="demo", prompt="one")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"max_attempts": 101}, "max_attempts=101 is not an integer from 1 to 100"),
        ({"max_attempts": -1}, "max_attempts=-1 is not"),
        ({"retry_base_ms": 3_600_001}, "retry_base_ms=3600001 is not an integer number of milliseconds"),
        ({"retry_on": ["engine failed"]}, "retry_on contains something other than words"),
        ({"retry_on": "x" * 65}, "retry_on contains something other than strings of 1 to 64"),
        ({"retry_on": ["x"] * 17}, "retry_on is not a string or a list of at most 16"),
        ({"retry_on": 3}, "retry_on is not a string or a list"),
    ],
)
def test_what_a_job_asks_of_retries_is_bounded(values, problem):
    assert problem in refusal(**values)


def test_every_field_is_read():
    values = {
        **GOOD,
        "adapter": "pirate",
        "traceparent": "00-1-2-01",
        "correlation_id": "c",
        "retry_token": "r",
        "priority": "batch",
        "labels": {"a": "b"},
        "not_before": 1,
        "deadline": 2,
        "expires_at": 8,
        "max_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "seed": 5,
        "stop": ["x", "y"],
        "max_attempts": 6,
        "retry_base_ms": 7,
        "retry_on": ["engine_failed"],
        "region": "eu",
        "gpu_class": "h100",
        "min_vram": "40GiB",
        "any_version": False,
        "prefer": ["region", "min_vram"],
    }
    assert set(values) == {*TABLE.fields} - {"messages", "chat_template_kwargs", *DELAYS}
    assert read_request(values) == JobRequest(
        model="demo",
        prompt="one",
        max_attempts=6,
        retry_base_ms=7,
        retry_on=("engine_failed",),
        region="eu",
        gpu_class="h100",
        min_vram=40 * 2**30,
        prefer=("min_vram", "region"),
        adapter="pirate",
        traceparent="00-1-2-01",
        correlation_id="c",
        retry_token="r",
        priority=Priority.BATCH,
        labels={"a": "b"},
        not_before=1,
        deadline=2,
        expires_at=8,
        sampling=Sampling(max_tokens=3, temperature=0.5, top_p=0.9, top_k=4, seed=5, stop=("x", "y")),
    )


TALK = [{"role": "user", "content": "hi"}]


def test_variables_of_the_chat_template_stand_beside_messages():
    variables = {"enable_thinking": False, "style": {"tone": ["dry", 2, None]}}
    asked = {"model": "demo", "messages": TALK, "chat_template_kwargs": variables}
    request = read_request(asked)
    assert request.chat_template_kwargs == variables
    assert payload_of(request)["chat_template_kwargs"] == variables
    assert read_payload(json.loads(canonical_json(payload_of(request)))).chat_template_kwargs == variables
    assert request.digest() != read_request({"model": "demo", "messages": TALK}).digest()
    assert read_request({**asked, "chat_template_kwargs": None}).chat_template_kwargs == {}
    with pytest.raises(InvalidRequest, match="no chat template is applied to a prompt"):
        read_request({**GOOD, "chat_template_kwargs": variables})


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ([], "of type list, not an object"),
        ("{}", "of type str, not an object"),
        ({"messages": []}, "must not contain messages"),
        ({"tools": []}, "must not contain tools"),
        ({"add_generation_prompt": False}, "must not contain add_generation_prompt"),
        ({"bos_token": "x"}, "must not contain bos_token"),
        ({"additional_special_tokens": []}, "must not contain additional_special_tokens"),
        ({"tokenize": True}, "must not contain tokenize"),
        ({"": 1}, "names are letters"),
        ({"a-b": 1}, "names are letters"),
        ({"__class__": 1}, "names are letters"),
        ({"enable_thinking\n": 1}, "names are letters"),
        ({1: 1}, "names are letters"),
        ({"a": {1: 1}}, "key of type int"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": {"\ud800": 1}}, "surrogate"),
        ({"a": float("nan")}, "that JSON does not have"),
        ({"a": 2**53 + 1}, "integer beyond"),
        ({"a": {1, 2}}, "type set"),
        ({"a": [[[[[[[[1]]]]]]]]}, "deeper than 8"),
        ({"a": "x" * 16_384}, "has 16392 bytes; the maximum is 16384"),
    ],
)
def test_variables_that_a_template_cannot_have_are_refused_by_name(variables, words):
    with pytest.raises(InvalidRequest, match=words) as refused:
        read_request({"model": "demo", "messages": TALK, "chat_template_kwargs": variables})
    assert refused.value.param == "chat_template_kwargs"


def test_messages_take_the_place_of_the_prompt():
    told = [{"role": "system", "content": ""}, Message("user", "hi"), {"role": "assistant", "content": "ho"}]
    request = read_request({"model": "demo", "messages": told})
    assert request.prompt == ""
    assert request.messages == (Message("system", ""), Message("user", "hi"), Message("assistant", "ho"))


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages is not a list of 1 to 1000"),
        ((), "messages is not a list of 1 to 1000"),
        ("hi", "messages is not a list"),
        ({"role": "user"}, "messages is not a list"),
        ([USER] * (MAX_MESSAGES + 1), "messages is not a list of 1 to 1000"),
        ([USER, "hi"], r"messages\[1\] is of type str, not an object"),
        (
            [{"role": "tool", "content": "x"}],
            r"messages\[0\].role='tool' is not one of system, user, assistant",
        ),
        ([{"role": [], "content": "x"}], r"role=\[\]"),
        ([{"content": "x"}], "role=None"),
        ([{"role": "user"}], "content is of type NoneType"),
        ([{"role": "user", "content": ["x"]}], "content is of type list, not a string"),
        ([{**USER, "name": "me"}], "has an unknown field 'name'; the fields are role and content"),
        ([{"role": "user", "content": "\ud800"}], "an unpaired surrogate"),
        ([{"role": "user", "content": "é" * (MAX_PROMPT_BYTES // 4)}] * 3, "bytes in total"),
        ([Message("user", 5)], "content is of type int"),
    ],
)
def test_messages_that_are_none_are_refused_by_number(messages, words):
    with pytest.raises(InvalidRequest, match=words):
        read_request({"model": "demo", "messages": messages})


def test_a_prompt_and_messages_are_not_both_given():
    assert "prompt and messages are mutually exclusive" in refusal(messages=[USER])


def test_one_stop_text_needs_no_list():
    assert read_request({**GOOD, "stop": "end"}).sampling.stop == ("end",)


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 1},
        {"max_tokens": MAX_TOKENS},
        {"temperature": 0},
        {"temperature": 2.0},
        {"top_p": 1},
        {"top_p": 1e-9},
        {"seed": 2**63 - 1},
        {"prompt": "x" * MAX_PROMPT_BYTES},
        {"correlation_id": "k" * MAX_KEY_CHARACTERS},
        {"stop": ["x"] * MAX_STOPS},
        {"labels": {str(i): "x" * MAX_LABEL_CHARACTERS for i in range(MAX_LABELS)}},
        {"labels": None},
    ],
)
def test_what_lies_on_a_limit_is_allowed(values):
    read_request({**GOOD, **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_tokens": 0}, "max_tokens=0 is not an integer from 1"),
        ({"max_tokens": MAX_TOKENS + 1}, "max_tokens"),
        ({"max_tokens": 1.0}, "max_tokens=1.0 is not an integer"),
        ({"max_tokens": True}, "max_tokens=True"),
        ({"max_tokens": None}, "max_tokens=None"),
        ({"temperature": float("inf")}, "temperature=inf is not a number from 0 to 2"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": 2.5}, "temperature=2.5 is not a number from 0 to 2"),
        ({"temperature": [{"type": "x", "y": {"z": 1}}]}, "temperature=a list of 1 item is not"),
        ({"temperature": {str(n): n for n in range(9)}}, "temperature=an object of 9 fields is not"),
        ({"temperature": "x" * 90}, f"temperature='{'x' * 80}'… is not"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p=0 is not a number greater than 0"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"not_before": -1}, "not_before"),
        ({"deadline": 1.5}, "deadline"),
        ({"priority": "urgent"}, "priority='urgent' is not interactive, standard or batch"),
        ({"priority": None}, "priority"),
        ({"priority": []}, "priority"),
        ({"prompt": "x" * (MAX_PROMPT_BYTES + 1)}, "prompt has 4194305 bytes"),
        ({"prompt": "\ud800"}, "an unpaired surrogate"),
        ({"prompt": b"one"}, "prompt is of type bytes"),
        ({"prompt": ""}, "prompt is missing or empty"),
        ({"model": "a\nb"}, "unprintable characters"),
        ({"adapter": 5}, "adapter is of type int"),
        ({"correlation_id": "k" * (MAX_KEY_CHARACTERS + 1)}, "correlation_id has more than 200"),
        ({"retry_token": "a\x00"}, "retry_token"),
        ({"stop": 5}, "stop is not a string or a list"),
        ({"stop": ["x"] * (MAX_STOPS + 1)}, "at most 16"),
        ({"stop": [""]}, "stop contains something other"),
        ({"stop": ["\ud800"]}, "stop contains something other"),
        ({"labels": {"a": "\x00"}}, "labels contains"),
        ({"labels": {"a": 1}}, "labels contains"),
        ({"labels": {1: "a"}}, "labels contains"),
        ({"labels": ["a"]}, "labels is not an object"),
        ({"labels": {str(i): "" for i in range(MAX_LABELS + 1)}}, "at most 32"),
        ({"tempratur": 1}, "unknown field 'tempratur'; did you mean temperature?"),
        ({"zzz": 1}, "unknown field 'zzz'"),
    ],
)
def test_what_is_wrong_is_named(values, words):
    assert words in refusal(**values)


def test_all_problems_are_told_at_once():
    message = refusal(max_tokens=0, top_p=2, prompt="", surprise=1)
    assert message.startswith("4 problems: ")
    assert all(name in message for name in ("max_tokens", "top_p", "prompt", "surprise"))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*TABLE.fields, "other"]), ANYTHING))
def test_any_values_make_a_request_or_are_refused(values):
    try:
        request = read_request(values)
    except InvalidRequest:
        return
    assert check_request(request) == request
    assert len(request.digest()) == 64


@given(
    st.dictionaries(
        st.sampled_from(["labels", "priority", "delay", "eta", "time_limit", "adapter"]), ANYTHING
    )
)
def test_any_arguments_of_submit_make_a_request_or_are_refused(arguments):
    try:
        request = make_request("demo", "one", now_ms=NOW, **arguments)
    except InvalidRequest:
        return
    assert request.not_before == 0 or request.not_before >= NOW


@given(ANYTHING, ANYTHING, ANYTHING)
def test_a_request_that_a_program_made_is_checked_too(prompt, labels, stop):
    request = JobRequest(model="demo", prompt=prompt, labels=labels, sampling=Sampling(stop=stop))
    try:
        checked = check_request(request)
    except InvalidRequest:
        return
    assert isinstance(checked.prompt, str)
    assert check_request(checked) == checked


@pytest.mark.parametrize("value", [None, {}, "x", Sampling(), JobRequest])
def test_what_is_no_request_is_refused(value):
    with pytest.raises(InvalidRequest, match="not a JobRequest"):
        check_request(value)


@pytest.mark.parametrize(
    "times",
    [
        {"delay_ms": -1},
        {"delay_ms": 1.5, "not_before": 1},
        {"time_limit_ms": True, "deadline": 1},
        {"delay_ms": 5},
        {"time_limit_ms": 5},
        {"expires_in_ms": 5},
        {"expires_in_ms": "5", "expires_at": 5},
    ],
)
def test_delays_that_go_with_no_time_are_refused(times):
    with pytest.raises(InvalidRequest, match=f"^{next(iter(times))}"):
        check_request(JobRequest(model="demo", prompt="x", **times))


def test_a_request_with_a_delay_passes_as_it_is():
    times = {"delay": 1.5, "time_limit": 3, "expires_in": timedelta(seconds=2)}
    request = make_request("demo", "x", now_ms=NOW, **times)
    assert (request.not_before, request.deadline, request.expires_at) == (
        NOW + 1_500,
        NOW + 3_000,
        NOW + 2_000,
    )
    assert check_request(request) == request
    assert make_request("demo", "x", now_ms=NOW + 7, **times).digest() == request.digest()
    assert make_request("demo", "x", now_ms=NOW, **times | {"expires_in": 2.5}).digest() != request.digest()


@pytest.mark.parametrize("name", ["delay", "time_limit", "expires_in"])
def test_more_than_ten_years_are_refused_by_the_name_and_in_the_unit_of_the_argument(name):
    make_request("demo", "x", now_ms=NOW, **{name: timedelta(days=3_650)})
    words = f"{name}=315360001 is not a time in seconds, from 0 to ten years"
    with pytest.raises(InvalidRequest, match=words):
        make_request("demo", "x", now_ms=NOW, **{name: 315_360_001})


VERSION = ModelVersion(name="demo", version="1", digest="0" * 64, context=100, adapters=("pirate",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampling": Sampling(max_tokens=101)}, "max_tokens=101 exceeds the context of model 'demo'"),
        ({"adapter": "piratt"}, "no adapter 'piratt'; available: pirate"),
        ({"deadline": NOW}, "the deadline is before the job could start"),
        ({"deadline": NOW + 5, "not_before": NOW + 5}, "the deadline is before the job could start"),
        ({"expires_at": NOW}, "the job would expire before it could start"),
        ({"expires_at": NOW + 5, "not_before": NOW + 5}, "the job would expire before it could start"),
    ],
)
def test_what_the_model_or_the_time_does_not_allow_is_refused(changes, words):
    fields = {"sampling": Sampling(max_tokens=100), **changes}
    request = JobRequest(model="demo", prompt="x", **fields)
    with pytest.raises(InvalidRequest, match=words):
        check_for_model(request, VERSION, NOW)


@pytest.mark.parametrize(
    ("times", "given"),
    [
        ({"delay": 60, "expires_in": 5}, "expires_in_ms"),
        ({"delay": 60, "time_limit": 5}, "time_limit_ms"),
    ],
)
def test_a_limit_that_ends_before_the_delay_is_refused_by_the_name_of_what_was_given(times, given):
    request = make_request("demo", "x", now_ms=NOW, max_tokens=1, **times)
    with pytest.raises(InvalidRequest, match="count from when it is submitted") as refusal:
        check_for_model(request, VERSION, NOW)
    assert refusal.value.param == given
    assert "expires_at" not in str(refusal.value)


def test_messages_that_are_too_long_whatever_the_tokenizer_are_refused():
    messages = (Message("system", "x" * 800), Message("user", "x" * 800))
    request = JobRequest(model="demo", messages=messages, sampling=Sampling(max_tokens=1))
    with pytest.raises(InvalidRequest, match="the messages have 1600 characters, at least 100 tokens"):
        check_for_model(request, VERSION, NOW)


def test_a_request_of_messages_that_a_program_made_passes_as_it_is():
    request = make_request("demo", messages=[USER], now_ms=NOW)
    assert request.messages == (Message("user", "x"),)
    assert check_request(request) == request
    for bad in (JobRequest(model="demo"), replace(request, prompt="x"), replace(request, messages=("x",))):
        with pytest.raises(InvalidRequest):
            check_request(bad)


def test_what_the_model_and_the_time_allow_passes():
    request = JobRequest(
        model="demo",
        prompt="x",
        sampling=Sampling(max_tokens=100),
        adapter="pirate",
        not_before=NOW + 5,
        deadline=NOW + 6,
        expires_at=NOW + 6,
    )
    check_for_model(request, VERSION, NOW)
