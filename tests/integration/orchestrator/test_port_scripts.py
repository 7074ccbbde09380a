"""The scripts of the worker port in Redis: written once, replaced by what is newer, also in a full Redis."""

import pytest
import redis

from tether.broker.keys import Keys
from tether.config.loading import load_settings
from tether.orchestrator.port_scripts import PublishPortScripts, port_fields, port_scripts

SETTINGS = load_settings(environ={})


@pytest.fixture
def client(shared_redis_server):
    with redis.Redis.from_url(shared_redis_server.url) as opened:
        yield opened


@pytest.fixture
def keys(namespace):
    return Keys(namespace)


def held(client, keys):
    return {name.decode(): text.decode() for name, text in client.hgetall(keys.worker_port).items()}


def test_the_scripts_are_written_once(client, keys):
    publish = PublishPortScripts(client, keys, SETTINGS)
    publish()
    assert held(client, keys) == port_fields(SETTINGS)
    client.hset(keys.worker_port, "draw", "another text")
    publish()
    # Its digest says that all is there: nobody reads 90 KB every few seconds.
    assert held(client, keys)["draw"] == "another text"


@pytest.mark.parametrize(
    "found", [None, {"v": "1", "digest": "of another Tether", "draw": "x"}, {"v": "0"}, "a text"]
)
def test_whatever_else_stands_there_is_replaced(client, keys, found):
    if isinstance(found, dict):
        client.hset(keys.worker_port, mapping=found)
    elif found:
        client.set(keys.worker_port, found)
    PublishPortScripts(client, keys, SETTINGS)()
    assert held(client, keys) == port_fields(SETTINGS)


def test_scripts_of_a_newer_contract_stay(client, keys):
    newer = {"v": "2", "digest": "of a newer Tether", "draw": "x"}
    client.hset(keys.worker_port, mapping=newer)
    PublishPortScripts(client, keys, SETTINGS)()
    assert held(client, keys) == newer


def test_every_script_is_whole(client):
    for text in port_scripts().values():
        client.script_load(text)


def test_settings_that_workers_keep_to_stand_beside_them_and_change_the_digest(client, keys):
    PublishPortScripts(client, keys, SETTINGS)()
    former = held(client, keys)
    assert (former["lease"], former["presence_expiry"]) == ("3000", "15000")
    changed = load_settings(environ={"TETHER_JOBS__LEASE": "7000"})
    PublishPortScripts(client, keys, changed)()
    now = held(client, keys)
    assert {name for name in now if now[name] != former[name]} == {"lease", "digest"}
    assert now["lease"] == "7000"


def test_they_are_written_into_a_full_redis(redis_server, keys):
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        PublishPortScripts(client, keys, SETTINGS)()
        assert held(client, keys) == port_fields(SETTINGS)
