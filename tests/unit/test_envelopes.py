"""What of a message's options travels with a job."""

import json

import pytest

from tether.envelopes import MAX_OPTIONS_BYTES, STAYING_OPTIONS, options_from_text, travelling_options
from tether.errors import InvalidMessage


def test_what_middleware_puts_into_a_message_travels():
    options = {"traceparent": "00-1-2-01", "team": {"name": "a", "tags": ["x", 1, None]}}
    assert options_from_text(travelling_options(options).encode()) == options


def test_what_lets_dramatiq_repeat_limit_or_follow_a_message_stays_behind():
    assert travelling_options(dict.fromkeys(STAYING_OPTIONS, 1)) == "{}"
    assert json.loads(travelling_options({"max_age": 1, "kept": 2})) == {"kept": 2}


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"bytes"])
def test_what_is_no_json_is_refused_by_name(value):
    with pytest.raises(InvalidMessage, match=r"odd cannot be sent as JSON"):
        travelling_options({"odd": value})


def test_what_contains_itself_is_refused():
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(InvalidMessage, match="JSON"):
        travelling_options({"ring": ring})


def test_options_have_a_limit():
    travelling_options({"a": "x" * (MAX_OPTIONS_BYTES - 20)})
    with pytest.raises(InvalidMessage, match=f"may have {MAX_OPTIONS_BYTES}"):
        travelling_options({"a": "x" * MAX_OPTIONS_BYTES})


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 100_000, b"7"])
def test_options_that_nobody_can_read_are_none(text):
    assert options_from_text(text) == {}
