"""Connections that are severed: a process's end, so each test looks at a process of its own."""

import json
import subprocess
import sys

import pytest

from support.waiting import PATIENCE_SECONDS
from tether.local.redis_server import RedisServer

PROGRAM = """
import json, sys, threading, time
import redis
from tether.broker import TetherBroker
from tether.broker.redis.connections import connect, without_retries
from tether.broker.redis.raw_connections import RawConnections, encode_command
from tether.broker.redis.severing import sever_connections

url, kind = sys.argv[1:]
client = TetherBroker(url=url).client if kind == "broker" else connect(url)
said, waiting = [], threading.Event()

def wait_for_a_reply():
    try:
        if kind == "raw":
            line = RawConnections.like(without_retries(client, socket_timeout=None), "key").borrow()
            line.send(encode_command("BLPOP", "nothing", 0))
            line.read()
        else:
            without_retries(client, socket_timeout=None).blpop("nothing", 0)
    except redis.ConnectionError:
        said.append("severed")

client.ping()
thread = threading.Thread(target=wait_for_a_reply)
thread.start()
watching = redis.Redis.from_url(url)
while not any(each["cmd"] == "blpop" for each in watching.client_list()):
    pass
sever_connections()
thread.join()
try:
    client.ping()
except redis.ConnectionError:
    said.append("refused")
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def server():
    with RedisServer(append_only=False) as running:
        yield running


@pytest.mark.parametrize("kind", ["client", "raw", "broker"])
def test_who_waits_gets_an_error_at_once_and_no_connection_is_made_any_more(server, kind):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.url, kind],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert json.loads(ran.stdout) == ["severed", "refused"]
