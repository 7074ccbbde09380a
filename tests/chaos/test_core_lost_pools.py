"""Each way in which a pool loses its last worker: what waits there is done elsewhere, or as soon as it can
be."""

import contextlib
import itertools
import json
import time

import pytest
from click.testing import CliRunner

from support.boundless_pools import choice_of
from support.cluster import Cluster
from support.databases import fresh_postgres
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.pools.worker_port import PoolReadiness
from tether.discovery.announcements.presence import ModelState, Presence, Supported
from tether.discovery.announcements.wire import sign
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.topics import network_id, presence_topic
from tether.discovery.trust.identity import Identity
from tether.jobs import JobState
from tether.loops import Loop
from tether.models.registry import Registry, pool_name
from tether.scheduling.scheduler_middleware import SchedulerMiddleware
from tether.telemetry.logs import get_logger
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

CONFIG = """
[jobs]
lease = 1000
[worker]
drain_timeout = 200
[scheduling]
lost_pool_grace = 1000
lost_pool_parking = 2000
lost_pool_loading = 2000
lost_pool_cold = 3000
"""
PRESENCE = 'interval = 500\nexpiry = 2000\nregions = ["a", "b", "c"]'
LIFE_MS = 600_000
OTHER_CLASS = "big"


class Regions:
    """A worker in region b that stays, and one in region a that a test loses."""

    def __init__(self, stack, database):
        models = {"counter": (0, 8), "slow": (2, 2_000), "fresh": (0, 8)}
        self.cluster = stack.enter_context(
            Cluster(database=database, models=models, config=CONFIG, presence=PRESENCE)
        )
        self.models = {model.name: model for model in Registry.from_settings(self.cluster.settings).models}
        self.cluster.start_orchestrator()
        self.stays = self.start_worker("b", threads=4)
        self.client = self.cluster.client()
        self.liar = Identity.claim(self.cluster.settings.presence.identity_dir, "liar")
        stack.callback(self.liar.close)
        self.lies = itertools.count(1)
        self.revoked = []

    def start_worker(self, region, threads=1, gpu_class="cpu"):
        where = {"TETHER_WORKER__REGION": region, "TETHER_WORKER__GPU_CLASS": gpu_class}
        return self.cluster.start_worker(threads=threads, **where)

    def pool(self, model, region="a", gpu_class="cpu"):
        return pool_name(gpu_class, region, self.models[model])

    def others(self, model):
        """The pools that may serve it beside the one in region a."""
        return {self.pool(model, "b"), self.pool(model, "c"), self.pool(model, "a", OTHER_CLASS)}

    def submit(self, model):
        """A job that was placed in region a."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SchedulerMiddleware, "_first_choice", lambda *_, **__: choice_of(self.pool(model)))
            return self.client.submit(model, "hello")

    def verb(self, *words):
        environ = {"TETHER_CONFIG": str(self.cluster.file)}
        runner = CliRunner(env=environ)
        result = runner.invoke(main, list(words), obj=CommandEnvironment(find_running=lambda: None))
        assert result.exit_code == 0, result.output
        return result

    def worker_in(self, region):
        eventually(lambda: self._workers(region), PATIENCE_SECONDS, f"a worker in {region}")
        (worker,) = self._workers(region)
        return worker

    def _workers(self, region):
        found = json.loads(self.verb("fleet", "list", "--json").stdout)["data"]
        return [one["worker_id"] for one in found if one["region"] == region]

    def lie(self, name="counter"):
        """Announce a worker in region a that never draws, and has had time to."""
        model = self.models[name]
        presence = Presence(
            network=network_id(bytes.fromhex(self.cluster.settings.network.secret)),
            topic=presence_topic("a"),
            pub_key=self.liar.pub_key,
            gpu_class="cpu",
            region="a",
            slots=64,
            free=64,
            supported=(Supported(model.name, model.version, model.digest, ModelState.WARM),),
            pools=(self.pool(name),),
            tokens_per_second=1e6,
            boot_counter=self.liar.boot_counter,
            sequence=next(self.lies),
            nonce="0" * 32,
            issued_at=time.time_ns() // 1_000_000,
        )
        port = RedisPresence(self.cluster.redis, self.cluster.keys, expiry_ms=LIFE_MS)
        with contextlib.closing(port):
            assert port.announce(sign(presence, self.liar.key), presence)
        since = f"{self.cluster.keys.prefix}:fleet:since"
        assert self.cluster.redis.hset(since, self.liar.worker_id, "0 0 0") == 0

    @contextlib.contextmanager
    def says_for_ever_that_it_could_load(self, name):
        self.lie(name)
        port = RedisWorkerPort(self.cluster.redis, self.cluster.keys, self.liar.boot_id, 1_000)
        pool = self.pool(name)
        asking = Loop(
            "liar", lambda: port.demand([(pool, PoolReadiness.COLD)]) and 0.2, log=get_logger("tests")
        )
        with contextlib.closing(port):
            asking.start()
            try:
                yield
            finally:
                asking.stop()


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def regions(request):
    with contextlib.ExitStack() as stack:
        database = None
        if request.param == "postgres":
            database = stack.enter_context(fresh_postgres(request.getfixturevalue("postgres_url")))
        yield Regions(stack, database)


@pytest.fixture
def occupied(regions):
    """A worker in region a whose slot is taken."""
    worker = regions.start_worker("a")
    slow = regions.submit("slow")
    eventually(lambda: slow.status().state is JobState.RUNNING, PATIENCE_SECONDS, "its slot is taken")
    yield worker
    slow.cancel()
    worker.close()
    # The key is another worker's in the next test.
    for key in regions.revoked:
        regions.verb("fleet", "trust", key, "--again")
    regions.revoked.clear()
    eventually(lambda: slow.status().state.is_final, PATIENCE_SECONDS, "the job that ran has ended")


def goodbye(regions, worker):
    assert worker.stop() == 0


def killed(regions, worker):
    worker.close()


def drained(regions, worker):
    told = regions.verb("fleet", "drain", regions.worker_in("a")).stderr
    assert f"it is the last worker of pool {regions.pool('counter')}. 1 job waits there; other pools" in told


def cordoned(regions, worker):
    assert "1 job waits there" in regions.verb("fleet", "cordon", regions.worker_in("a")).stderr


def revoked(regions, worker):
    worker_id = regions.worker_in("a")
    assert "1 job waits there" in regions.verb("fleet", "revoke", worker_id).stderr
    # Trusted again before the job is done, it would serve the pool once more.
    regions.revoked.append(_key_of(regions, worker_id))


def _key_of(regions, worker_id):
    keys = json.loads(regions.verb("fleet", "keys", "--all", "--json").stdout)["data"]
    (key,) = [one["pub_key"] for one in keys if one["worker_id"] == worker_id]
    return key


def moved(regions, worker):
    before = regions.worker_in("a")
    worker.close()
    regions.start_worker("c")
    assert regions.worker_in("c") == before


def changed_its_class(regions, worker):
    before = regions.worker_in("a")
    worker.close()
    regions.start_worker("a", gpu_class=OTHER_CLASS)
    assert regions.worker_in("a") == before


@pytest.mark.parametrize("lose", [goodbye, killed, drained, cordoned, revoked, moved, changed_its_class])
def test_what_waits_in_a_pool_that_lost_its_last_worker_is_done_by_another_pool(regions, occupied, lose):
    job = regions.submit("counter")
    assert (job.status().state, job.status().pool) == (JobState.PLACED, regions.pool("counter"))
    lose(regions, occupied)
    job.result(timeout=PATIENCE_SECONDS)
    status = job.status()
    assert status.pool in regions.others("counter")
    assert status.dispatch == 2, (status, job.history())


def test_what_waits_for_a_worker_that_never_draws_is_done_by_another_pool(regions):
    regions.lie()
    job = regions.submit("counter")
    job.result(timeout=PATIENCE_SECONDS)
    assert job.status().pool in regions.others("counter")


def test_what_waits_for_a_worker_that_says_for_ever_that_it_could_load_is_done_by_another_pool(regions):
    warming = regions.client.submit("counter", "hello")
    warming.result(timeout=PATIENCE_SECONDS)
    with regions.says_for_ever_that_it_could_load("counter"):
        job = regions.submit("counter")
        job.result(timeout=PATIENCE_SECONDS)
    assert job.status().pool in regions.others("counter")


def test_what_waits_for_a_load_that_never_ends_is_done_by_a_pool_that_has_to_load_first(regions):
    with regions.says_for_ever_that_it_could_load("fresh"):
        job = regions.submit("fresh")
        job.result(timeout=PATIENCE_SECONDS)
    assert job.status().pool in regions.others("fresh")


def test_where_no_worker_is_left_jobs_are_parked_and_woken_by_the_next(regions):
    for worker in regions.cluster.processes[1:]:
        worker.close()
    job = regions.submit("counter")
    eventually(lambda: job.status().state is JobState.PARKED, PATIENCE_SECONDS, "it is parked")
    assert not regions.cluster.redis.keys(f"{regions.cluster.keys.prefix}:pool:{regions.pool('counter')}:s*")
    regions.start_worker("b")
    job.result(timeout=PATIENCE_SECONDS)
