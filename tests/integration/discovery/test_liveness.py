"""Workers that announce themselves and draw nothing, on a whole Tether with a swarm."""

import contextlib
import itertools
import json
import time

import openai
import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.stalling_proxy import StallingProxy
from support.swarm import LOOPBACK, PACKAGES, BootstrapNode
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.discovery.announcements.presence import ModelState, Presence, Supported
from tether.discovery.announcements.wire import sign
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.topics import network_id, presence_topic
from tether.discovery.trust.identity import Identity
from tether.jobs import JobState
from tether.local.fleet_check import check_fleet
from tether.models.registry import Registry, pool_name
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

SECRET = "ab" * 32
JOBS = 12
LIFE_MS = 600_000


class Installation:
    """An orchestrator and a gateway, a healthy worker in region b, and in region a whoever lies, or stands
    behind a way to Redis that can be cut."""

    def __init__(self):
        self._lies = itertools.count(1)
        self._stack = contextlib.ExitStack()
        node = self._stack.enter_context(BootstrapNode())
        network = (
            f'[network]\nsecret = "{SECRET}"\nbootstrap = ["{node.address}"]\nhost = "{LOOPBACK}"\n'
            f'package_dir = "{PACKAGES}"\n'
        )
        presence = f'interval = 500\nexpiry = {LIFE_MS}\nregions = ["a", "b"]'
        self.cluster = self._stack.enter_context(Cluster(config=network, presence=presence))
        self.liar_key = Identity.claim(self.cluster.settings.presence.identity_dir, "liar")
        self._stack.callback(self.liar_key.close)
        self.cluster.start_orchestrator()
        self.gateway = self.cluster.start_gateway()
        self.client = self._stack.enter_context(Tether(self.gateway.url, self.gateway.key))
        self.way = StallingProxy(self.cluster.server.port)
        self._stack.callback(self.way.close)
        self.healthy = self.start_worker("b")

    def start_worker(self, region, **environ):
        self.cluster.environ.update({"TETHER_WORKER__REGION": region, **environ})
        try:
            return self.cluster.start_worker(threads=2)
        finally:
            for name in ("TETHER_WORKER__REGION", *environ):
                del self.cluster.environ[name]

    def workers(self):
        """How many live and draw, and how many more are announced."""
        (model,) = self.client.models()
        return model.workers, model.silent_workers

    def is_told(self, workers, silent):
        eventually(
            lambda: self.workers() == (workers, silent),
            PATIENCE_SECONDS,
            f"{workers} workers draw and {silent} do not; last: {self.workers()}",
        )

    def submit(self):
        """Jobs, each of which must end; the regions in which they ran."""
        jobs = [self.client.submit("counter", f"prompt {number}") for number in range(JOBS)]
        for job in jobs:
            job.result(timeout=PATIENCE_SECONDS)
        return {job.status().pool.split(".")[2] for job in jobs}

    def verb(self, *words):
        environ = {"TETHER_CONFIG": str(self.cluster.file), "TETHER_URL": self.gateway.url}
        runner = CliRunner(env={**environ, "TETHER_API_KEY": self.gateway.key})
        result = runner.invoke(main, list(words), obj=CommandEnvironment(find_running=lambda: None))
        assert result.exit_code == 0, result.output
        return result

    def states(self):
        return {
            worker["region"]: worker["state"]
            for worker in json.loads(self.verb("fleet", "list", "--json").stdout)["data"]
        }

    def doctor(self):
        return check_fleet(self.cluster.settings, None, {})

    def lie(self):
        """Announce a worker that has all that one can wish for, and never draws."""
        (model,) = Registry.from_settings(self.cluster.settings).models
        supported = Supported(model.name, model.version, model.digest, ModelState.WARM)
        presence = Presence(
            network=network_id(bytes.fromhex(SECRET)),
            topic=presence_topic("a"),
            pub_key=self.liar_key.pub_key,
            gpu_class="cpu",
            region="a",
            slots=64,
            free=64,
            supported=(supported,),
            pools=(pool_name("cpu", "a", model),),
            tokens_per_second=1e6,
            boot_counter=self.liar_key.boot_counter,
            sequence=next(self._lies),
            nonce="0" * 32,
            issued_at=time.time_ns() // 1_000_000,
        )
        port = RedisPresence(self.cluster.redis, self.cluster.keys, expiry_ms=LIFE_MS)
        with contextlib.closing(port):
            assert port.announce(sign(presence, self.liar_key.key), presence)

    def let_time_pass(self):
        """What keeps a new worker believed is over."""
        key = f"{self.cluster.keys.prefix}:fleet:since"
        assert self.cluster.redis.hset(key, self.liar_key.worker_id, "0 0 0") == 0

    def close(self):
        self._stack.close()


@pytest.fixture(scope="module")
def installation():
    opened = Installation()
    yield opened
    opened.close()


def test_a_worker_that_lies_gets_no_jobs_once_it_had_time_to_draw(installation):
    installation.lie()
    installation.is_told(2, 0)
    installation.let_time_pass()
    installation.is_told(1, 1)
    assert installation.submit() == {"b"}
    assert installation.states() == {"a": "silent", "b": "serving"}
    assert "1 worker (1 announced, but draws no jobs)" in installation.verb("status").stdout
    assert installation.liar_key.worker_id in installation.doctor().found


@pytest.mark.parametrize("how", ["cut", pytest.param("stalled", marks=pytest.mark.long)])
def test_a_worker_that_is_cut_off_from_redis_gets_none_while_the_swarm_still_hears_it(installation, how):
    before = installation.workers()
    worker = installation.start_worker("a", TETHER_REDIS__URL=installation.way.url)
    installation.is_told(before[0] + 1, before[1])
    if how == "cut":
        installation.way.cut()
    else:
        installation.way.stall()
    installation.is_told(before[0], before[1] + 1)
    assert installation.submit() == {"b"}
    told = json.loads(installation.verb("fleet", "list", "--json").stdout)["data"]
    assert {one["state"] for one in told if one["region"] == "b"} == {"serving"}
    (cut_off,) = [one for one in told if one["state"] == "disconnected"]
    assert cut_off["region"] == "a"
    check = installation.doctor()
    assert (check.verdict, f"{cut_off['worker_id']} (worker-" in check.found) == ("warn", True)
    assert "cannot reach Redis" in check.found
    if how == "cut":
        installation.way.heal()
    else:
        installation.way.go_on(late=False)
    installation.is_told(before[0] + 1, before[1])
    assert installation.states()["b"] == "serving"
    assert worker.stop() == 0
    installation.is_told(*before)


def test_where_none_but_a_liar_is_left_an_answer_at_once_is_refused_and_a_job_waits(installation):
    installation.lie()
    installation.let_time_pass()
    installation.healthy.stop()
    installation.is_told(0, 1)
    url, key = f"{installation.gateway.url}/v1", installation.gateway.key
    with (
        openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="1 announced, but draws no jobs") as refused,
    ):
        client.chat.completions.create(model="counter", messages=[{"role": "user", "content": "x"}])
    assert (refused.value.status_code, refused.value.code) == (503, "no_live_worker")
    job = installation.client.submit("counter", "waits")
    assert job.status().state is JobState.PARKED
    installation.start_worker("b")
    job.result(timeout=PATIENCE_SECONDS)
