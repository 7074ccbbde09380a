"""Gateways, connections and clients lost in mid-stream: every reader has the stored text, exactly."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from support.cluster import Cluster
from support.event_streams import EventStream, texts
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.jobs import JobState

TOKENS = 200


@pytest.fixture
def cluster():
    with Cluster(models={"slow": (100, TOKENS)}) as opened:
        opened.start_orchestrator()
        opened.start_worker(threads=16)
        yield opened


@pytest.fixture
def gateway(cluster):
    return cluster.start_gateway()


@pytest.fixture
def tether(gateway):
    with Tether(gateway.url, gateway.key) as client:
        yield client


class Reading:
    """A job's text, read by a thread of its own."""

    def __init__(self, job, threads):
        self.seen = []
        self.has_begun = threading.Event()
        self._future = threads.submit(self._read, job)

    def _read(self, job):
        for text in job.stream(timeout=PATIENCE_SECONDS):
            self.seen.append(text)
            if len(self.seen) > 5:
                self.has_begun.set()
        return "".join(self.seen)

    def text(self):
        return self._future.result(PATIENCE_SECONDS)


@pytest.fixture
def read():
    """Starts reading jobs; answers once each has shown some tokens."""
    with ThreadPoolExecutor(32) as threads:

        def start(jobs):
            readings = [Reading(job, threads) for job in jobs]
            for reading in readings:
                assert reading.has_begun.wait(PATIENCE_SECONDS)
            return readings

        yield start


def stored(cluster, jobs):
    """The texts of jobs as the database has them."""
    with Tether.direct(cluster.settings) as direct:
        return [direct.job(job.job_id).result(PATIENCE_SECONDS).text for job in jobs]


def check(cluster, jobs, readings):
    read = [reading.text() for reading in readings]
    assert read == stored(cluster, jobs)
    assert all(len(text.split()) == TOKENS for text in read)


def gateway_process(gateway):
    (process,) = psutil.Process(gateway.pid).children()
    return process


def test_a_gateway_killed_in_mid_stream(cluster, gateway, tether, read):
    jobs = [tether.submit("slow", f"prompt {number}") for number in range(8)]
    readings = read(jobs)
    gateway_process(gateway).kill()
    check(cluster, jobs, readings)
    assert tether.submit("slow", "afterwards").result(PATIENCE_SECONDS).text


def test_a_gateway_restarted_in_order_in_mid_stream(cluster, gateway, tether, read):
    jobs = [tether.submit("slow", f"prompt {number}") for number in range(8)]
    readings = read(jobs)
    gateway.signal(signal.SIGHUP)
    check(cluster, jobs, readings)


def test_submissions_while_gateways_are_killed_are_each_one_job(cluster, gateway, tether):
    jobs, stop = [], threading.Event()

    def submit(number):
        count = 0
        while not stop.is_set():
            jobs.append(tether.submit("slow", f"{number} {count}", max_tokens=1))
            count += 1

    with ThreadPoolExecutor(4) as threads:
        submitting = [threads.submit(submit, number) for number in range(4)]
        for _ in range(3):
            before = len(jobs)
            eventually(lambda before=before: len(jobs) >= before + 20, PATIENCE_SECONDS, "jobs are submitted")
            gateway_process(gateway).kill()
        stop.set()
        for future in submitting:
            future.result(PATIENCE_SECONDS)
    assert len({job.job_id for job in jobs}) == len(jobs)
    with Tether.direct(cluster.settings) as direct:
        assert sum(1 for _ in direct.jobs()) == len(jobs)
        assert all(direct.job(job.job_id).result(PATIENCE_SECONDS) for job in jobs)


def test_every_connection_of_redis_cut_in_mid_stream(cluster, tether, read):
    """The workers' among them."""
    jobs = [tether.submit("slow", f"prompt {number}") for number in range(8)]
    readings = read(jobs)
    for _ in range(3):
        cluster.redis.client_kill_filter(_type="normal", skipme=True)
        offset = tether.job(jobs[0].job_id).status().offset
        eventually(
            lambda offset=offset: (
                tether.job(jobs[0].job_id).status().offset > offset
                or tether.job(jobs[0].job_id).status().state is JobState.SUCCEEDED
            ),
            PATIENCE_SECONDS,
            "tokens come again",
        )
    check(cluster, jobs, readings)


def test_two_clients_on_one_stream_one_of_which_begins_in_its_middle(cluster, gateway, tether, read):
    job = tether.submit("slow", "one")
    (reading,) = read([job])
    with Tether(gateway.url, gateway.key) as other:
        offset = other.job(job.job_id).status().offset
        rest = "".join(event.text for event in other.job(job.job_id).events(offset=offset))
    whole = reading.text()
    assert [whole] == stored(cluster, [job])
    assert 0 < len(rest) < len(whole)
    assert whole.endswith(rest)


def test_a_reader_that_takes_nothing_hurts_nobody(cluster, gateway, tether, read):
    job = tether.submit("slow", "one")
    stalled = [EventStream(gateway, job.job_id, key=gateway.key) for _ in range(20)]
    readings = read([job] * 4)
    check(cluster, [job] * 4, readings)
    for reader in stalled:
        assert len(texts(reader.events())) == TOKENS
