import io
import json
import logging
import time

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tether.telemetry.logs import configure_logs
from tether.telemetry.redaction import MASK, names_a_secret, plain_fields, plain_text, plain_value, scrub


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "redis_password",
        "passwd",
        "passphrase",
        "secret",
        "network_secret",
        "clientSecret",
        "token",
        "access_token",
        "accessToken",
        "api_key",
        "apiKey",
        "apikey",
        "X-Api-Key",
        "Authorization",
        "Proxy-Authorization",
        "Set-Cookie",
        "credentials",
        "private_key",
        "signing_key",
        "TETHER_API_KEY",
    ],
)
def test_a_name_of_a_secret_is_known_in_any_spelling(name):
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "retry_token",
        "retryToken",
        "tokens",
        "max_tokens",
        "token_count",
        "token_ids",
        "eos_token",
        "key",
        "redis_key",
        "idempotency_key",
        "author",
        "tokenizer",
        "passed",
        "",
    ],
)
def test_counts_of_tokens_and_idempotency_keys_are_no_secrets(name):
    assert not names_a_secret(name)


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("redis://u:hunter2@h:1/0", "redis://u:***@h:1/0"),
        ("redis://:hunter2@h", "redis://:***@h"),
        ("(at 'rediss://u:hun@ter2@h/0', again)", "(at 'rediss://u:***@h/0', again)"),
        ("redis://:hun/ter2@h", "redis://:***@h"),
        ("redis://:hun'ter2@h", "redis://:***@h"),
        (
            "postgres+psycopg://u:hunter2@h/d and amqp://u:hunter2@h",
            "postgres+psycopg://u:***@h/d and amqp://u:***@h",
        ),
        ("http://h:80/x,redis://:hunter2@h", "http://h:80/x,redis://:***@h"),
        ("https://hunter2@github.com/x.git", "https://***@github.com/x.git"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
        ("https://h/x?api_key=hunter2&n=1", "https://h/x?api_key=***&n=1"),
        ("act(1, password='hun\\'ter2', n=3)", "act(1, password=***, n=3)"),
        ('{"client_secret": "hunter2", "n": 1}', '{"client_secret": ***, "n": 1}'),
        ("{'token': 'hunter2'}", "{'token': ***}"),
    ],
)
def test_credentials_in_text_are_masked(text, scrubbed):
    assert scrub(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "redis://127.0.0.1:6379/0",
        "redis://user@h/0",
        "https://h:8470/@user/page",
        "https://h/@user",
        "mail someone@example.com about http://h",
        "retry_token=abc",
        "wrong password: try again",
        "max_tokens=5",
        "://@",
        "a basic idea",
    ],
)
def test_text_without_credentials_stays_as_it_is(text):
    assert scrub(text) == text


def test_a_secret_is_masked_wherever_it_stands_in_a_line():
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logs(form="json", stream=stream)
        logging.getLogger("x").warning(
            "to %s", "redis://u:hunter2@h", extra={"password": "hunter2", "deep": [{"api_key": b"hunter2"}]}
        )
        structlog.get_logger("x").warning(
            "redis://u:hunter2@h",
            at={"redis://u:hunter2@h": "redis://u:hunter2@h"},
            token=None,
            retry_token="r",
        )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert "hunter2" not in stream.getvalue()
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["password"], first["deep"]) == (
        "to redis://u:***@h",
        MASK,
        [{"api_key": MASK}],
    )
    assert (second["token"], second["retry_token"]) == (None, "r")


words = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#@:"), min_size=1)


@given(
    user=words, password=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), host=words
)
def test_no_password_of_a_url_survives(user, password, host):
    secret = f"hunter2{password}"
    assert "hunter2" not in scrub(f"at redis://{user}:{secret}@{host}, they say")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary() | st.integers(), inner),
    max_leaves=10,
)


@given(fields=st.dictionaries(st.text() | st.binary(), anything))
def test_any_fields_become_ones_that_strict_json_can_hold(fields):
    json.dumps(plain_fields(fields), allow_nan=False)


@given(value=anything)
def test_making_a_value_plain_twice_changes_nothing_more(value):
    once = plain_value(value)
    assert plain_value(once) == once


def test_a_value_that_holds_itself_is_cut_at_the_deepest_level():
    circle: list = []
    circle.append(circle)
    assert json.dumps(plain_value(circle)) == json.dumps([[[[[[[["…"]]]]]]]])


def test_long_hostile_text_is_scrubbed_in_time_that_grows_with_its_length_alone():
    pieces = [
        "://",
        "://:",
        "a://b:1/",
        "://a:",
        "secret",
        "secret ",
        "token='\\",
        "bearer ",
        "a" * 7,
        "@",
        "-a-",
    ]
    for piece in pieces:
        durations = []
        for size in (20_000, 160_000):
            text = piece * (size // len(piece))
            started = time.process_time()
            scrub(text)
            scrub("://" + text + "@")
            durations.append(time.process_time() - started)
        # Eight times the text: quadratic work would take 64 times as long.
        assert durations[1] < 30 * max(durations[0], 0.005), piece


def test_text_beyond_the_longest_is_cut_after_it_was_scrubbed():
    text = plain_text("x" * 16_360 + " redis://:hunter2" + "h" * 100 + "@host")
    assert "hunter2" not in text
    assert text.startswith("xxx")
