"""What a chaos run counts of Redis is what others do there."""

import importlib
import threading
from types import SimpleNamespace

import pytest
import redis

from support.paths import ROOT


@pytest.fixture
def watching(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "ops" / "bench"))
    return importlib.import_module("chaos_watch")


def test_the_drivers_own_connections_are_none(watching, redis_server):
    name = watching.WATCHER
    with (
        redis.Redis.from_url(redis_server.url, client_name=name) as own,
        redis.Redis.from_url(redis_server.url) as other,
    ):
        watch = watching.JobWatch(SimpleNamespace(redis=own), threading.Event())
        assert watch.connections() == 0
        other.ping()
        assert watch.connections() == 1
