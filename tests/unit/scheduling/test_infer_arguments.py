"""What Dramatiq's options of a message to `infer` mean for its job."""

import pytest
from dramatiq import Message

from tether.errors import InvalidRequest
from tether.scheduling.infer_arguments import keys_of_message, request_of_message

NOW = 1_800_000_000_000


def message(options=None, **kwargs):
    asked = {"model": "counter", "prompt": "x", **kwargs}
    return Message("infer", "infer", (), asked, options or {}, "the-message", NOW - 1_000)


def request(options=None, delay=None, **kwargs):
    return request_of_message(message(options, **kwargs), delay, now_ms=NOW)


@pytest.mark.parametrize(
    ("options", "delay", "deadline", "limit"),
    [
        ({}, None, 0, 0),
        ({"max_age": None, "time_limit": float("inf"), "store_results": True}, None, 0, 0),
        ({"time_limit": 5_000}, None, NOW + 5_000, 5_000),
        # A time limit counts from when it may start.
        ({"time_limit": 5_000}, 2_000, NOW + 7_000, 5_000),
        ({"time_limit": 0.5}, None, NOW + 1, 1),
    ],
)
def test_a_time_limit_is_a_deadline(options, delay, deadline, limit):
    asked = request(options, delay)
    assert (asked.deadline, asked.time_limit_ms) == (deadline, limit)
    assert (asked.expires_at, asked.expires_in_ms) == (0, 0)


@pytest.mark.parametrize("delay", [None, 2_000])
def test_a_message_s_age_is_that_of_a_job_that_has_not_begun_and_counts_from_when_it_was_made(delay):
    asked = request({"max_age": 5_000}, delay)
    assert (asked.expires_at, asked.expires_in_ms) == (NOW + 4_000, 5_000)
    assert (asked.deadline, asked.time_limit_ms) == (0, 0)
    both = request({"max_age": 5_000, "time_limit": 9_000}, delay)
    assert (both.expires_at, both.deadline) == (NOW + 4_000, NOW + (delay or 0) + 9_000)


@pytest.mark.parametrize("name", ["max_age", "time_limit"])
@pytest.mark.parametrize("value", [0, -1, "5", True, 10**15, float("nan")])
def test_what_is_no_time_is_refused(name, value):
    with pytest.raises(InvalidRequest, match=f"{name}=.*milliseconds"):
        request({name: value})


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"time_limit": 5}, {"time_limit": 5}),
        ({"time_limit": 5}, {"deadline": NOW + 9}),
        ({"max_age": 5}, {"expires_in": 5}),
        ({"max_age": 5}, {"expires_at": NOW + 9}),
    ],
)
def test_a_limit_is_given_once(options, argument):
    (name,), (option,) = argument, options
    with pytest.raises(InvalidRequest, match=f"infer has {name} as an argument.*{option}"):
        request(options, **argument)


@pytest.mark.parametrize("made_at", [10**30, 2**53, NOW * 1_000_000, float(NOW), -1, "now", None, True])
def test_an_age_that_counts_from_no_time_is_refused(made_at):
    sent = message({"max_age": 5_000}).copy(message_timestamp=made_at)
    with pytest.raises(InvalidRequest, match=r"max_age.*message_timestamp=.*milliseconds since the epoch"):
        request_of_message(sent, None, now_ms=NOW)


def test_an_age_goes_with_a_time_limit():
    asked = request({"max_age": 5_000}, time_limit=9)
    assert (asked.expires_at, asked.deadline) == (NOW + 4_000, NOW + 9_000)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"max_retries": 0}, "max_attempts, retry_base and retry_on"),
        ({"min_backoff": 5, "max_backoff": 9}, "min_backoff, max_backoff: give infer"),
        ({"throws": ["ValueError"]}, "max_attempts, retry_base and retry_on"),
        ({"on_retry_exhausted": "other"}, "dead letter"),
        ({"notify_shutdown": True}, "goes on with another"),
        ({"result_ttl": 5}, "jobs.retention"),
        ({"broker_priority": 5}, "argument priority"),
        ({"store_results": False}, "always stores"),
        ({"on_success": "other"}, "cannot be followed"),
        ({"group_completion_uuid": "a"}, "cannot be followed"),
    ],
)
def test_what_a_job_does_not_have_is_refused_with_what_it_has(options, remedy):
    with pytest.raises(InvalidRequest, match=remedy):
        request(options)


def test_options_of_other_middleware_are_left_alone():
    assert request({"of_mine": 5, "pipe_ignore": True}).prompt == "x"


def test_a_message_without_keys_has_its_own_id_as_key():
    assert keys_of_message(message()) == ("the-message", "the-message")
    assert keys_of_message(message(retry_token="1")) == ("the-message", "1")
    assert keys_of_message(message(correlation_id="mine", retry_token="1")) == ("mine", "1")
    assert keys_of_message(message(correlation_id="mine")) == ("mine", "")
