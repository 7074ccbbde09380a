"""Every thread of the product starts under its name, and ends when its owner is stopped."""

import ast
import asyncio
import contextlib
import math
import os
import socket
import threading
from pathlib import Path

import pytest
import redis

import tether
import tether_cli
import tether_workers
from support.cluster import Cluster
from support.drawn_jobs import drawn_job
from support.fake_port import FakePort
from support.scripted_gateway import ScriptedGateway, hang, stream
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker import TetherBroker
from tether.broker.keys import Keys
from tether.broker.pools.slots import Slots
from tether.broker.redis.clock import RedisClockFollower
from tether.client.endpoint import Endpoint
from tether.client.http.backend import HttpBackend
from tether.client.http.connecting import Deadline
from tether.client.http.look_ups import look_up
from tether.clocks import SharedClock, wall_clock_ms
from tether.config.loading import load_settings
from tether.config.models import ModelSettings
from tether.core.control_plane import ControlPlane
from tether.core.stream_hub.archive import ArchiveThread
from tether.core.stream_hub.hub import StreamHub
from tether.dead_letters import DeadLetter
from tether.discovery.commands.inbox import CommandFollower
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.over_redis.mirror import FleetMirror
from tether.discovery.over_redis.queue_evidence import QueueEvidence
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.process_ends import ProcessEnds
from tether.discovery.swarm.options import SwarmOptions
from tether.discovery.swarm.transport import SwarmTransport
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.identity import Identity
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.gateway.fleet_watch import FleetWatch
from tether.gateway.services import GatewayServices
from tether.jobs import new_job_id
from tether.local.log_files import LogRotation
from tether.local.redis_server import RedisServer
from tether.loops import Loop
from tether.orchestrator.hook_calls import HookCalls
from tether.orchestrator.loop_registry import LOOPS
from tether.orchestrator.orchestrator import LEASE_KEEPER, Orchestrator
from tether.processes.child import LIFELINE_VARIABLE, follow_parent
from tether.processes.hook_process import HookProcess
from tether.processes.stopping import StopDeadline, StopWatch
from tether.store.writer import Writer
from tether.telemetry.logs import get_logger
from tether_cli.terminal.output import open_output
from tether_cli.terminal.waits import telling_of_waits
from tether_workers.attempts.hand_over import HandOver
from tether_workers.attempts.lease_renewal import LeaseRenewal
from tether_workers.attempts.running import Attempts
from tether_workers.attempts.token_writer import TokenWriter
from tether_workers.loading import EngineLoader
from tether_workers.model_demand import ModelDemand
from tether_workers.presence.health import HealthReporter, WorkerStatus
from tether_workers.presence.manifest import ManifestWriter

KEYS = Keys("tether")


class Stage:
    """What the owners of the threads need."""

    def __init__(self, server, folder, monkeypatch):
        self.url = server.url
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.port = FakePort()
        self.attempts = Attempts(clock=lambda: 0.0, on_unwritten=lambda attempt: None)
        self.stack = contextlib.ExitStack()
        self.client = redis.Redis.from_url(server.url)
        self.stack.callback(self.client.close)

    def presence(self):
        presence = RedisPresence(self.client, KEYS, expiry_ms=15_000)
        self.stack.callback(presence.close)
        return presence

    def identity(self):
        identity = Identity.claim(self.folder)
        self.stack.callback(identity.close)
        return identity


def beat(stage):
    owner = LeaseRenewal(
        stage.port, stage.attempts, lease=3.0, loading_limit=10.0, shared_clock=SharedClock()
    )
    owner.start()
    return owner.stop


def flush(stage):
    owner = TokenWriter(stage.port)
    owner.start()
    return owner.stop


def health(stage):
    status = WorkerStatus(gpu_class="cpu", region="local", slots=1, free=1)
    owner = HealthReporter(stage.identity(), stage.presence(), lambda: status)
    owner.start()
    return owner.stop


def manifest(stage):
    owner = ManifestWriter(stage.client, KEYS, stage.identity(), "", lambda: (), wall_clock_ms)
    owner.start()
    return owner.stop


def cli_wait(stage):
    waiting = telling_of_waits(open_output(is_silent=True)[1], after=PATIENCE_SECONDS)
    waiting.__enter__()
    return lambda: waiting.__exit__(None, None, None)


def drain(stage):
    stage.attempts.began(stage.port.hold(drawn_job(1)))
    stage.attempts.find("boot:1").begin()
    owner = HandOver(stage.port, stage.attempts, drain_time=PATIENCE_SECONDS)
    owner.start()

    def stop():
        owner.call_off()
        owner.join()

    return stop


def demand(stage):
    loader = EngineLoader([], {}, before_load=print, on_change=print)
    owner = ModelDemand(stage.port, loader, (), slots=Slots(1))
    owner.start()
    return owner.stop


def load(stage):
    may_load = threading.Event()
    owner = EngineLoader(
        [ModelSettings(name="count", engine="null", pinned=True)],
        {},
        before_load=lambda model: may_load.wait(PATIENCE_SECONDS),
        on_change=lambda: None,
    )
    owner.preload()

    def stop():
        may_load.set()
        owner.close()

    return stop


def engine(stage):
    module = pytest.importorskip("tether_workers.engines.transformers.engine")
    return module.TransformersEngine(None, None, end_tokens=frozenset(), repeatable=True).close


def commands(stage):
    owner = CommandFollower(stage.client, KEYS, lambda envelope: None, worker="w")
    owner.start()
    return owner.stop


def mirror(stage):
    owner = FleetMirror(stage.presence())
    owner.start()
    return owner.stop


def trust(stage):
    return TrustedKeys((), enrolled=RedisEnrolment(stage.client, KEYS)).start().close


def fleet(stage):
    owner = FleetView(stage.presence(), lambda key: True)
    owner.start()
    return owner.stop


def fleet_evidence(stage):
    evidence = QueueEvidence(stage.client, KEYS)
    stage.stack.callback(evidence.close)
    owner = FleetView(stage.presence(), lambda key: True, evidence=evidence.read)
    owner.start()
    return owner.stop


def clock(stage):
    follower = RedisClockFollower(stage.client, SharedClock(), get_logger("test"))
    follower.start()
    return follower.stop


def known_breakers(stage):
    return started_loop("known-breakers")


def swarm(stage):
    # Where there is no Node the thread rests until it is stopped, and no process is started.
    stage.monkeypatch.setattr("tether.discovery.swarm.packages._candidates", lambda environ: iter(()))
    options = SwarmOptions(secret=b"s" * 32, bootstrap=(), role="worker", package_dir=stage.folder)
    owner = SwarmTransport(options, stage.identity().key, TrustedKeys(()))
    owner.start()
    return owner.stop


def log_rotation(stage):
    owner = LogRotation(stage.folder)
    owner.start()
    return owner.stop


def heart(stage):
    broker = TetherBroker(url=stage.url, namespace="threads")
    broker.declare_queue("default")
    consumer = broker.consume("default", timeout=10)
    assert next(consumer) is None

    def stop():
        consumer.close()
        broker.close()

    return stop


class NoArchive:
    def ended(self, job_ids):
        return {}


def stream_archive(stage):
    owner = ArchiveThread(NoArchive(), on_answer=lambda: None)
    owner.ask(["job"])
    return owner.close


def streams(stage):
    owner = StreamHub(stage.client, KEYS, NoArchive())
    owner.follow("job", 0, print)
    return owner.close


def store_writer(stage):
    class Transactions:
        def close(self):
            pass

    owner = Writer(Transactions(), shares_transaction=True)
    owner.start()
    return owner.close


def http_streams(stage):
    gateway = stage.stack.enter_context(ScriptedGateway(stream(then="hold")))
    owner = HttpBackend(Endpoint(gateway.url, "tk_key"))
    owner.stream_port.follow(new_job_id(1, bytes(10)), 0, print)
    return owner.close


def http_again(stage):
    gateway = stage.stack.enter_context(ScriptedGateway(stream(then="cut"), hang))
    owner = HttpBackend(Endpoint(gateway.url, "tk_key"))
    owner.stream_port.follow(new_job_id(1, bytes(10)), 0, print)
    eventually(lambda: len(gateway.requests) == 2, PATIENCE_SECONDS, "it comes back")
    return owner.close


def http_lookup(stage):
    asked, answered = threading.Event(), threading.Event()

    def look(*arguments, **options):
        asked.set()
        assert answered.wait(PATIENCE_SECONDS)
        return []

    stage.monkeypatch.setattr(socket, "getaddrinfo", look)
    done = threading.Event()
    waiting = threading.Thread(target=lambda: look_up("a.test", 80, Deadline(60, math.inf), done))
    waiting.start()
    assert asked.wait(PATIENCE_SECONDS)

    def stop():
        answered.set()
        waiting.join(PATIENCE_SECONDS)

    return stop


def lifeline(stage):
    read, write = os.pipe()
    died = threading.Event()
    stage.monkeypatch.setenv(LIFELINE_VARIABLE, str(read))
    follow_parent(on_death=died.set)

    def stop():
        os.close(write)
        assert died.wait(PATIENCE_SECONDS)
        os.close(read)

    return stop


def redis_log(stage):
    return RedisServer(append_only=False).start().close


def gateway_opening(stage):
    file = stage.folder / "tether.toml"
    file.write_text('[database]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n')
    loop = asyncio.new_event_loop()

    async def start():
        opened = GatewayServices(load_settings(environ={}, file=file), on_failure=print)
        await opened.start()
        return opened

    owner = loop.run_until_complete(start())

    def stop():
        loop.run_until_complete(owner.stop())
        loop.close()

    return stop


def gateway_fleet_watch(stage):
    owner = FleetWatch(None, lambda: 0, opened=lambda settings: contextlib.nullcontext(None))
    owner.follow(lambda event: None)
    return owner.close


def on_dead(stage):
    hook = HookProcess("builtins:print", call_seconds=PATIENCE_SECONDS)
    owner = HookCalls(hook, on_end=print, clock=lambda: 0.0, batch_seconds=1.0)
    owner.begin([DeadLetter(job_id="job", tenant_id="default")])
    return owner.stop


def process_ends(stage):
    return stage.stack.enter_context(ProcessEnds(load_settings(environ={}))).stop


def stop_watch(stage):
    owner = StopWatch(StopDeadline(), sever=print)
    owner.start()
    return owner.stop


def enrol_local(stage):
    return started_loop("enrol-local")


def local_models(stage):
    return started_loop("local-models")


def started_loop(name):
    owner = Loop(name, lambda: 1.0)
    owner.start()
    return owner.stop


THREADS = {
    "beat": beat,
    "cli-wait": cli_wait,
    "commands": commands,
    "demand": demand,
    "drain": drain,
    "engine": engine,
    "enrol-local": enrol_local,
    "fleet": fleet,
    "fleet-evidence": fleet_evidence,
    "clock": clock,
    "flush": flush,
    "gateway-fleet-watch": gateway_fleet_watch,
    "gateway-opening": gateway_opening,
    "health": health,
    "heart": heart,
    "http-again": http_again,
    "http-lookup": http_lookup,
    "http-streams": http_streams,
    "known-breakers": known_breakers,
    "lifeline": lifeline,
    "load": load,
    "local-models": local_models,
    "log-rotation": log_rotation,
    "manifest": manifest,
    "mirror": mirror,
    "on-dead": on_dead,
    "process-ends": process_ends,
    "redis-log": redis_log,
    "stop-watch": stop_watch,
    "store-writer": store_writer,
    "stream-archive": stream_archive,
    "streams": streams,
    "swarm": swarm,
    "trust": trust,
}
"""How each thread is started, by its name after ``tether-``: answers what stops it."""


def threads_named(name):
    return {thread for thread in threading.enumerate() if thread.name == f"tether-{name}"}


@pytest.mark.parametrize("name", THREADS)
def test_a_thread_starts_under_its_name_and_ends_when_its_owner_is_stopped(
    name, shared_redis_server, tmp_path, monkeypatch
):
    before = threads_named(name)
    stage = Stage(shared_redis_server, tmp_path, monkeypatch)
    with stage.stack:
        stop = THREADS[name](stage)
        try:
            started = threads_named(name) - before
        finally:
            stop()
        assert len(started) == 1
        (thread,) = started
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert thread.daemon


@pytest.fixture(scope="module")
def orchestrators():
    with Cluster() as cluster, ControlPlane(cluster.settings) as plane:
        yield lambda registry: Orchestrator(plane, registry)


@pytest.mark.parametrize("entry", LOOPS, ids=lambda entry: entry.name)
def test_a_loop_of_the_orchestrator_steps_and_ends(entry, orchestrators):
    orchestrator = orchestrators([entry])
    assert set(orchestrator.loops) == {LEASE_KEEPER, entry.name}
    signals = {name: loop.observe() for name, loop in orchestrator.loops.items()}
    with orchestrator:
        assert threads_named(entry.name)
        for observed in signals.values():
            observed.stepped.wait(PATIENCE_SECONDS)
    assert not threads_named(entry.name) | threads_named(LEASE_KEEPER)
    assert not any(loop.is_alive for loop in orchestrator.loops.values())


def test_the_loops_of_the_orchestrator_have_names_of_their_own():
    names = [LEASE_KEEPER, *(entry.name for entry in LOOPS)]
    assert len(set(names)) == len(names)
    assert not set(names) & set(THREADS)


def calls_in_the_product():
    for package in (tether, tether_cli, tether_workers):
        for file in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    yield file, ast.unparse(node.func), node.args


def test_no_thread_of_the_product_is_without_an_owner_or_left_out_here():
    made, others = set(), []
    for file, function, arguments in calls_in_the_product():
        if function in ("Loop", "OwnedThread") and isinstance(arguments[0], ast.Constant):
            made.add(arguments[0].value)
        elif function.endswith(("Thread", "Timer")) and function.startswith("threading."):
            others.append(file.name)
    # The name of the fleet's thread has that of its source in it where there are several.
    assert made | {"fleet"} == set(THREADS)
    assert others == ["threads.py"]


def test_threads_of_a_worker_start_and_stop_again_and_again(shared_redis_server, tmp_path, monkeypatch):
    names = ("beat", "flush", "commands", "mirror", "trust")
    before = set(threading.enumerate())
    stage = Stage(shared_redis_server, tmp_path, monkeypatch)
    with stage.stack:
        for _ in range(30):
            stops = [THREADS[name](stage) for name in names]
            for stop in stops:
                stop()
                stop()
    assert not [thread for name in names for thread in threads_named(name) - before]
