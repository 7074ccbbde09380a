"""What a verb knows of its gateway while that does not answer."""

import pytest

from tether_cli.environment import CommandEnvironment
from tether_cli.options.connection import Connection

REDIS = "the gateway waits for its Redis, which does not respond"


@pytest.mark.parametrize(
    ("health", "why"),
    [
        (None, ""),
        ({"status": "ready", "database": "ok", "redis": "ok"}, ""),
        ({"status": "degraded", "database": "ok", "redis": "unavailable"}, REDIS),
        (
            {"status": "unavailable", "database": "unavailable", "redis": "ok"},
            "the gateway's database is unavailable",
        ),
    ],
)
def test_a_gateway_says_itself_why_it_is_slow(health, why, monkeypatch):
    monkeypatch.setenv("TETHER_API_KEY", "tk_x")
    asked = []
    environment = CommandEnvironment(readiness=lambda url, within: asked.append((url, within)) or health)
    assert Connection("http://127.0.0.1:1/v1", None, environment).why_slow() == why
    assert asked == [("http://127.0.0.1:1", 3.0)]


def test_a_gateway_is_asked_how_it_is_for_as_long_as_there_is_time(monkeypatch):
    monkeypatch.setenv("TETHER_API_KEY", "tk_x")
    asked = []
    environment = CommandEnvironment(readiness=lambda url, within: asked.append(within))
    assert Connection("http://127.0.0.1:1", None, environment).health(0.5) is None
    assert asked == [0.5]


def test_where_no_gateway_can_be_found_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("TETHER_DIR", str(tmp_path))
    monkeypatch.delenv("TETHER_URL", raising=False)
    assert Connection(None, None, CommandEnvironment()).why_slow() == ""
