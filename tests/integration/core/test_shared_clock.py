"""Processes whose machine's clock is off, or is set back while they run: Redis's clock decides."""

import os
import re

import pytest

from support.cluster import Cluster
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether

TEN_MINUTES_MS = 600_000


class HostClock:
    """The wall clock of a machine, which some processes of a test share."""

    def __init__(self, file):
        self._file = file
        self.set(0)

    def set(self, offset_ms):
        # Replaced, so that nobody reads half of it.
        new = self._file.with_suffix(".new")
        new.write_text(str(offset_ms))
        new.replace(self._file)

    @property
    def environ(self):
        paths = [str(ROOT / "tests" / "support" / "host_clock"), os.environ.get("PYTHONPATH", "")]
        return {"HOST_CLOCK_OFFSET": str(self._file), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(scope="module")
def hosts():
    """A gateway on a machine that is ten minutes ahead, and the orchestrator on another one."""
    with Cluster(append_only=False) as cluster:
        ahead, other = (HostClock(cluster.folder / name) for name in ("gateway.clock", "orchestrator.clock"))
        ahead.set(TEN_MINUTES_MS)
        gateway = cluster.start_gateway(**ahead.environ)
        cluster.start_orchestrator(**other.environ)
        behind = HostClock(cluster.folder / "worker.clock")
        behind.set(-5_000)
        worker = cluster.start_worker(**behind.environ)
        with Tether(gateway.url, api_key=gateway.key) as client:
            yield gateway, other, client, worker, behind


def test_delays_and_limits_of_a_gateway_whose_clock_is_ahead_are_those_that_were_asked_for(hosts):
    gateway, _, client, _, _ = hosts
    job = client.submit("counter", "go", delay=0.5, time_limit=TEN_MINUTES_MS / 2000)
    assert job.result(timeout=PATIENCE_SECONDS).text
    eventually(
        lambda: any("This machine's clock differs" in line for line in gateway.lines),
        PATIENCE_SECONDS,
        "the gateway tells that its machine's clock is off",
    )


def test_a_clock_that_is_set_back_strands_no_delayed_job(hosts):
    _, orchestrator_clock, client, _, _ = hosts
    job = client.submit("counter", "go", delay=1.0)
    orchestrator_clock.set(-TEN_MINUTES_MS)
    assert job.result(timeout=PATIENCE_SECONDS).text
    assert client.submit("counter", "go", delay=0.5).result(timeout=PATIENCE_SECONDS).text


def test_a_worker_tells_that_its_machine_s_clock_is_off_and_again_when_that_changes(hosts):
    *_, worker, clock = hosts

    def told():
        return [line for line in worker.lines if "This machine's clock" in line]

    eventually(lambda: len(told()) == 1, PATIENCE_SECONDS, "the worker tells that its machine's clock is off")
    clock.set(-10_000)
    eventually(lambda: len(told()) == 2, PATIENCE_SECONDS, "it tells that this has changed")
    clock.set(0)
    eventually(lambda: len(told()) == 3, PATIENCE_SECONDS, "it tells that the clocks agree")
    off, more, agrees = told()
    assert " warning " in off
    assert re.search(r"ahead_ms=-(4[5-9]|5[0-4])\d\d\b", off)
    assert re.search(r"ahead_ms=-(9[5-9]|10[0-4])\d\d\b", more)
    assert "agrees with Redis's again" in agrees
