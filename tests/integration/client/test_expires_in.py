"""`expires_in` from the client to the database: a job that no worker begins, and one that has begun."""

import contextlib

import pytest
from dramatiq import Worker
from sqlalchemy import update

from support.cluster import Cluster
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS, eventually
from tether import JobState, Tether
from tether.errors import JobExpired
from tether.store import Store, queries
from tether.store.schema import jobs
from tether_workers.pool_worker import make_worker

MINUTE_MS = 60_000


@pytest.fixture
def cluster():
    with Cluster(models={"slow": (50, 3_000)}) as cluster:
        cluster.orchestrator()
        yield cluster


@pytest.fixture
def client(cluster):
    with RunningGateway(cluster.settings) as gateway, Tether(gateway.url, api_key=gateway.key()) as opened:
        yield opened


def pass_by(connection, job_id):
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(expires_at=1))


@contextlib.contextmanager
def worker_of(cluster):
    broker = make_worker(cluster.settings)
    worker = Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        yield
    finally:
        worker.stop(timeout=20_000)
        broker.close()


def test_what_nobody_begins_expires_and_what_has_begun_goes_on(cluster, client):
    job = client.submit("slow", "x", expires_in=0.2)
    with pytest.raises(JobExpired, match="was not begun in time"):
        job.result(timeout=PATIENCE_SECONDS)
    assert job.status().state is JobState.EXPIRED
    assert job.history().attempts == ()
    patient = client.submit("slow", "x", expires_in=60)
    with worker_of(cluster), Store(cluster.settings.database.url) as store:
        eventually(lambda: patient.status().offset > 0, PATIENCE_SECONDS, "it has begun")
        row = store.read(queries.job, patient.job_id)
        assert row.expires_in_ms == MINUTE_MS
        assert 0 < row.expires_at - row.created_at <= MINUTE_MS
        assert cluster.redis.hget(cluster.keys.job(patient.job_id), "expires_at") == b"0"
        # The minute is over.
        store.write_alone(pass_by, patient.job_id).result()
        eventually(
            lambda: store.read(queries.job, patient.job_id).expires_at == 0,
            PATIENCE_SECONDS,
            "the orchestrator has learnt that it has begun",
        )
        assert patient.status().state in (JobState.PLACED, JobState.RUNNING)
        patient.cancel()
