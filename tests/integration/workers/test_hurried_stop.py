"""A second signal: what runs is handed over at once, where it stands, and nobody is blamed."""

import signal
import threading

import dramatiq
import pytest

from support.inference import InferenceBench
from support.waiting import PATIENCE_SECONDS, join
from tether.processes.stopping import StopDeadline
from tether_workers.process import WorkerOptions
from tether_workers.stopping import StoppableWorker

ALONE = WorkerOptions(
    broker="tether_workers.app:broker",
    modules=(),
    threads=4,
    queues=(),
    shutdown_timeout=600_000,
    paths=(),
    log_form="human",
    log_level="info",
)
LONG_MS = 10_000_000


@pytest.fixture
def bench(tmp_path):
    made = InferenceBench(tmp_path, tokens_per_second=50.0, lease_ms=LONG_MS, drain_ms=LONG_MS)
    yield made
    made.close()


@pytest.mark.parametrize("command", [(), ALONE.command()], ids=["supervised", "alone"])
def test_asked_twice_a_worker_releases_what_runs_where_it_stands_and_ends_in_order(bench, command):
    process = bench.start_process(*command)
    job_id = bench.place(max_tokens=100_000)
    bench.wait_for_tokens(job_id, 5)
    process.signal(signal.SIGTERM)
    process.wait_for_line("Stopping: drawing no new jobs", within=PATIENCE_SECONDS)
    assert bench.state(job_id) == "running"
    assert process.stop() == 0
    assert bench.state(job_id) == "placed"
    assert bench.offset(job_id) == len(bench.texts(job_id)) >= 5
    assert bench.client.hmget(bench.keys.job(job_id), "deaths", "evidence") in ([None, None], [b"0", None])
    assert [event.kind for event in bench.events(job_id) if event.kind != "delta"] == ["started", "rerouted"]


def test_hurried_it_gives_back_what_a_plain_actor_runs_and_does_not_wait_for_it(open_broker):
    broker = open_broker()
    started, let_go = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker)
    def hold():
        started.set()
        let_go.wait(PATIENCE_SECONDS)

    deadline = StopDeadline()
    worker = StoppableWorker(broker, queues=None, worker_threads=1, deadline=deadline)
    worker.start()
    hold.send()
    assert started.wait(PATIENCE_SECONDS)
    deadline.begin(10 * PATIENCE_SECONDS)
    deadline.hurry(PATIENCE_SECONDS)
    worker.stop()
    assert broker.client.llen(f"{broker.namespace}:default") == 1, "others have it now"
    let_go.set()
    for thread in worker.workers:
        join(thread)
    assert broker.client.llen(f"{broker.namespace}:default") == 1
    assert broker.client.hlen(f"{broker.namespace}:default.msgs") == 1
