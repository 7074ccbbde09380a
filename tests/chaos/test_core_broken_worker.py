"""A worker whose engine fails each attempt at once: it is always idle, and would draw every retry."""

from contextlib import contextmanager

import pytest
from sqlalchemy import text

from support.cluster import Cluster
from support.databases import fresh_postgres
from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.over_redis.worker_health import read_held_pools
from tether.jobs import JobRequest, JobState
from tether.store.store import Store

JOBS = 200
MAX_FAILED = 20
SHORT_PAUSES = "[retries]\nworker_pause = 500\n"


def counted(cluster, query):
    store = Store(cluster.settings.database.url).open(migrate=False)
    try:
        return dict(store.read(lambda connection: connection.execute(text(query)).all()))
    finally:
        store.close()


def failed_attempts(cluster):
    return counted(cluster, "SELECT kind, count(*) FROM attempts GROUP BY kind").get("failed", 0)


def states(cluster):
    return counted(cluster, "SELECT state, count(*) FROM jobs GROUP BY state")


def start_broken_worker(cluster, **environ):
    return cluster.start_worker("support.broken_worker:broker", threads=4, **environ)


def held(cluster):
    workers = [
        key.decode().rpartition(":")[2] for key in cluster.redis.scan_iter(f"{cluster.keys.prefix}:health:*")
    ]
    return read_held_pools(cluster.redis, cluster.keys, workers)


def running(cluster):
    return [name for name in cluster.redis.zrange(cluster.keys.leases, 0, -1) if name.startswith(b"j ")]


@contextmanager
def opened_cluster(**options):
    with Cluster(models={"counter": (100, 8)}, config=SHORT_PAUSES, **options) as opened:
        opened.orchestrator()
        yield opened


@pytest.fixture
def cluster():
    with opened_cluster() as opened:
        yield opened


@pytest.fixture
def postgres_cluster(postgres_url):
    with fresh_postgres(postgres_url) as url, opened_cluster(database=url) as opened:
        yield opened


def submit(cluster, count):
    return cluster.client().submit_many([JobRequest(model="counter", prompt="hello") for _ in range(count)])


def test_a_broken_worker_beside_a_good_one_costs_few_attempts_and_no_job(postgres_cluster):
    cluster = postgres_cluster
    cluster.start_worker(threads=4)
    start_broken_worker(cluster)
    for handle in submit(cluster, JOBS):
        handle.result(timeout=PATIENCE_SECONDS)
    assert states(cluster) == {"succeeded": JOBS}
    assert 0 < failed_attempts(cluster) <= MAX_FAILED


def test_with_a_broken_worker_alone_jobs_wait_for_a_good_one(cluster):
    start_broken_worker(cluster)
    handles = submit(cluster, 40)
    eventually(lambda: held(cluster), PATIENCE_SECONDS, "the broken worker is held")
    ((_, (pool,)),) = held(cluster).items()
    assert (pool.code, pool.is_for_all) == ("engine_failed", False)
    waiting = {JobState.PLACED, JobState.WAITING_RETRY, JobState.RUNNING, JobState.PARKED, JobState.ACCEPTED}
    assert {handle.status().state for handle in handles} <= waiting
    cluster.start_worker(threads=4)
    for handle in handles:
        handle.result(timeout=PATIENCE_SECONDS)
    assert states(cluster) == {"succeeded": 40}


def test_a_held_worker_that_is_mended_comes_back_by_itself(cluster, tmp_path):
    mended = tmp_path / "mended"
    start_broken_worker(cluster, BROKEN_UNTIL=str(mended))
    handles = submit(cluster, 40)
    eventually(
        lambda: held(cluster) and not running(cluster),
        PATIENCE_SECONDS,
        "the broken worker is held, and what it had drawn before has failed",
    )
    mended.touch()
    for handle in handles:
        handle.result(timeout=PATIENCE_SECONDS)
    # Counted at the end: outcomes are settled some time after the attempts ended.
    assert (failed_attempts(cluster) > 0, states(cluster)) == (True, {"succeeded": 40})
    eventually(lambda: not held(cluster), PATIENCE_SECONDS, "it is held no longer")


def test_jobs_of_a_pool_whose_workers_are_all_held_are_done_by_another_pool():
    presence = 'interval = 500\nexpiry = 2000\nregions = ["a", "b"]'
    config = "[retries]\nworker_pause = 20000\n[scheduling]\nlost_pool_grace = 1000\n"
    with Cluster(models={"counter": (10, 8)}, config=config, presence=presence) as cluster:
        cluster.start_orchestrator()
        start_broken_worker(cluster, TETHER_WORKER__REGION="a")
        handles = submit(cluster, 40)
        eventually(lambda: held(cluster), PATIENCE_SECONDS, "the broken worker is held")
        cluster.start_worker(threads=2, TETHER_WORKER__REGION="b")
        for handle in handles:
            handle.result(timeout=PATIENCE_SECONDS)
        # New ones do not even go there, though nothing waits there.
        more = submit(cluster, 10)
        for handle in more:
            handle.result(timeout=PATIENCE_SECONDS)
        assert {handle.status().pool.split(".")[2] for handle in handles + more} == {"b"}
        assert [handle.status().dispatch for handle in more].count(1) >= len(more) - 1
