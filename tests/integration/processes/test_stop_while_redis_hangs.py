"""A process that is told to stop ends in time, though Redis hangs: connected, and silent."""

import contextlib
import os
import signal
import sys
import time

import psutil
import pytest

from support.inference import PATIENCE_SECONDS, InferenceBench
from support.local_tether import LocalTether, free_port
from support.workers import Program

BEFORE_THE_KILL_SECONDS = 28.0
"""Supervisors of containers kill after 30 s."""

WITH_A_JOB_SECONDS = 24.0
"""Drain time, hand-over and winding up come to 10 s."""

WITH_NOTHING_SECONDS = 18.0
"""Winding up takes 3 s."""


@contextlib.contextmanager
def hanging(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def seconds_to_stop(process):
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    process.wait_for_end(3 * PATIENCE_SECONDS)
    seconds = time.monotonic() - began
    print(f"ended after {seconds:.1f} s")
    return seconds


@pytest.fixture
def bench(tmp_path):
    made = InferenceBench(tmp_path, tokens_per_second=50.0, drain_ms=2_000)
    yield made
    made.close()


def test_a_worker_that_runs_a_job_ends_in_time(bench):
    process = bench.start_process()
    bench.wait_for_tokens(bench.place(max_tokens=10_000), 1)
    with hanging(bench.server.pid):
        assert seconds_to_stop(process) < WITH_A_JOB_SECONDS
    # Nothing is lost: the lease runs out, and the job goes on elsewhere.
    bench.wait_for_state("job-1", "placed", ticking=True)


def test_a_worker_that_is_asked_twice_ends_sooner_than_its_jobs_could(bench):
    bench.values["worker"] = {"drain_timeout": 600_000, "threads": 4}
    process = bench.start_process()
    bench.wait_for_tokens(bench.place(max_tokens=10_000), 1)
    with hanging(bench.server.pid):
        process.signal(signal.SIGTERM)
        process.wait_for_line("Stopping the children", within=PATIENCE_SECONDS)
        assert seconds_to_stop(process) < WITH_NOTHING_SECONDS
    bench.wait_for_state("job-1", "placed", ticking=True)


def test_a_worker_that_runs_nothing_ends_in_time(bench):
    process = bench.start_process()
    with hanging(bench.server.pid):
        assert seconds_to_stop(process) < WITH_NOTHING_SECONDS


def test_a_worker_of_plain_actors_ends_in_time_once_they_have_ended():
    program = Program("tether")
    with contextlib.closing(program):
        process = program.start_supervised()
        with hanging(program.server.pid):
            assert seconds_to_stop(process) < WITH_NOTHING_SECONDS


@pytest.mark.parametrize("verb", ["gateway", "orchestrator"])
def test_a_server_ends_in_time(bench, verb, tmp_path):
    bench.values["database"] = {"url": f"sqlite:///{tmp_path}/tether.sqlite"}
    bench.values["gateway"] = {"port": free_port()}
    process = bench.begin_process(sys.executable, "-m", "tether_cli", verb)
    process.wait_for_line("A child is ready", within=PATIENCE_SECONDS)
    with hanging(bench.server.pid):
        assert seconds_to_stop(process) < WITH_NOTHING_SECONDS
    assert not any("Traceback" in line for line in process.lines), process.lines


def test_all_of_a_local_tether_ends_in_time(tmp_path):
    tether = LocalTether(tmp_path)
    with contextlib.closing(tether):
        process = tether.up()
        with tether.client() as client:
            assert next(iter(client.submit("slow", "hello", max_tokens=400).stream()))
        parts = tether.all_processes(process)
        (server,) = [part for part in parts if part.name() == "redis-server"]
        server.suspend()
        assert seconds_to_stop(process) < BEFORE_THE_KILL_SECONDS
        psutil.wait_procs(parts, timeout=PATIENCE_SECONDS)
        assert not any(part.is_running() for part in parts)
