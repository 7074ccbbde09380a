"""Everything that Dramatiq ships does on our broker what it does on Dramatiq's own."""

import importlib
import json
import os
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import dramatiq
import psutil
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from dramatiq.rate_limits import RateLimiter, RateLimiterBackend
from dramatiq.results import ResultBackend

from support.brokers import make_broker
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import TESTS, WorkerProcess
from tether.local.redis_server import RedisServer

GUIDE = ROOT / "docs" / "guide" / "dramatiq.md"
PROGRAM = "support.middleware_program"
NEED_A_SERVER_OF_THEIR_OWN = {"MemcachedBackend"}


def environ(kind, server, folder):
    return {
        **os.environ,
        "PROGRAM_BROKER": kind,
        "PROGRAM_REDIS": server.url,
        "PYTHONPATH": str(TESTS),
        "PYTHONUNBUFFERED": "1",
        "dramatiq_prom_db": str(folder / kind),
        "dramatiq_prom_host": "127.0.0.1",
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the same program saw on either broker."""
    servers, programs, seen = [], {}, {}
    folder = tmp_path_factory.mktemp("metrics")
    try:
        for kind in ("stock", "tether"):
            servers.append(RedisServer(append_only=False).start())
            programs[kind] = subprocess.Popen(
                [sys.executable, "-m", PROGRAM],
                env=environ(kind, servers[-1], folder),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        for kind, program in programs.items():
            out, errors = program.communicate(timeout=3 * PATIENCE_SECONDS)
            assert program.returncode == 0, errors
            seen[kind] = json.loads(out)
    finally:
        for program in programs.values():
            program.kill()
            program.communicate()
        for server in servers:
            server.close()
    return seen


def test_each_piece_does_the_same_on_either_broker(seen):
    assert seen["tether"].keys() == seen["stock"].keys()
    for piece, stock in seen["stock"].items():
        assert stock, piece
        assert seen["tether"][piece] == stock, piece


def test_metrics_of_the_middleware_and_of_the_program_are_shared_and_tether_s_are_not(seen):
    shared = seen["tether"]["Prometheus"]
    assert shared["dramatiq_messages_total"] == 5
    assert shared["things_total"] == 3
    assert not [name for name in shared if name.startswith("tether")]


def shipped():
    """Names of all middleware, rate limiters and backends of the installed Dramatiq."""
    kinds = (Middleware, RateLimiter, RateLimiterBackend, ResultBackend)
    for module in pkgutil.walk_packages(dramatiq.__path__, "dramatiq."):
        if not module.name.endswith(("__main__", "gevent", "memcached", "rabbitmq", "watcher")):
            importlib.import_module(module.name)
    return {
        found.__name__
        for kind in kinds
        for found in descendants(kind)
        if found.__module__.startswith("dramatiq.") and not found.__name__.startswith("_")
    }


def descendants(kind):
    children = kind.__subclasses__()
    return {*children, *(below for child in children for below in descendants(child))}


def test_nothing_that_dramatiq_ships_is_left_out(seen):
    text = (TESTS / "support" / "middleware_program.py").read_text()
    backends = {name for piece in seen["tether"] for name in re.findall(r"\w+Backend", piece)}
    left_out = {name for name in shipped() if not re.search(rf"\b{name}\b", text)} - backends
    assert len(shipped()) > 12
    assert left_out <= NEED_A_SERVER_OF_THEIR_OWN


def test_the_guide_s_table_is_what_was_looked_at(seen):
    _, _, section = GUIDE.read_text("utf-8").partition("## Middleware\n")
    rows = re.findall(r"^\| `?([^|`]+)`? \|", section.partition("\n## ")[0], re.M)
    assert sorted(row.strip() for row in rows[1:]) == sorted(seen["tether"])


@pytest.fixture
def start(tmp_path):
    """Starts a command with the program, on a Redis and a port of its own."""
    server = RedisServer(append_only=False).start()
    started = []

    def start(kind, *command):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        variables = environ(kind, server, tmp_path) | {"dramatiq_prom_port": str(port)}
        process = WorkerProcess([sys.executable, "-m", *command], variables)
        started.append(process)
        broker = make_broker(kind, server.url)
        broker.declare_queue("measured")
        return process, broker, port

    yield start
    for process in started:
        process.close()
    server.close()


def scrape(port):
    """How often each actor ran, by the port that the middleware's fork function opens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    return {
        actor: float(count)
        for actor, count in re.findall(r'^dramatiq_messages_total{actor_name="(\w+)".*} (\S+)$', text, re.M)
    }


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("stock", ("dramatiq", PROGRAM, "-p", "2", "-t", "1")),
        ("tether", ("dramatiq", PROGRAM, "-p", "2", "-t", "1")),
        ("tether", ("tether_cli", "worker", PROGRAM, "-p", "2", "-t", "1")),
    ],
    ids=["dramatiq on RedisBroker", "dramatiq on TetherBroker", "tether worker"],
)
def test_what_runs_beside_the_workers_answers_for_all_of_them(start, kind, command):
    process, broker, port = start(kind, *command)
    for number in range(5):
        broker.enqueue(dramatiq.Message("measured", "measured", (number,), {}, {}))
    eventually(lambda: scrape(port) == {"measured": 5}, PATIENCE_SECONDS, "the port tells of all messages")
    assert process.stop() == 0
    assert scrape(port) is None
    broker.close()
    assert isinstance(broker, RedisBroker)


def test_what_runs_beside_the_workers_is_kept_running_and_does_not_outlive_them(start):
    process, _, port = start("tether", "tether_cli", "worker", PROGRAM, "-t", "1")
    eventually(lambda: scrape(port) is not None, PATIENCE_SECONDS, "the port answers")
    fork = next(child for child in psutil.Process(process.pid).children() if "forks" in str(child.cmdline()))
    fork.kill()
    process.wait_for_line("A child is ready", within=PATIENCE_SECONDS, count=3)
    eventually(lambda: scrape(port) is not None, PATIENCE_SECONDS, "the port answers again")
    others = psutil.Process(process.pid).children()
    process.signal(signal.SIGKILL)
    assert not psutil.wait_procs(others, timeout=PATIENCE_SECONDS)[1]
