"""The loop that moves long waits, over a Redis and a database: what it looks at, and what stays."""

import pytest

from support.core_steps import CoreSteps
from support.databases import POOL
from tether.orchestrator import long_waits
from tether.orchestrator.long_waits import MoveLongWaits
from tether.scheduling.relief import PATIENCE_MS, REST_MS, MoveRule

RULE = MoveRule(3.0, 10.0, 2)


class Crowds:
    """A scheduler whose pool is crowded; some of its jobs may have another."""

    def __init__(self, core):
        self.core = core
        self.free = set()
        self.count = 50
        self.at = 0
        self.looked_at = []
        self.step = MoveLongWaits(
            core.store, core.pools, self, rule=RULE, now_ms=core.clock, monotonic=lambda: self.at
        )

    def crowded_pools(self, rule):
        return {POOL: self.count}

    def done_sooner_elsewhere(self, pool, jobs, rule):
        self.looked_at += [job.job_id for job in jobs]
        return {job.job_id for job in jobs if int(job.job_id[4:]) in self.free}

    def look(self):
        self.at += REST_MS
        self.step()

    def watch(self):
        """Until the pool has been seen to be crowded for long enough, and once more."""
        for _ in range(1 + -(-PATIENCE_MS // REST_MS)):
            self.look()


@pytest.fixture
def crowds(core):
    return Crowds(core)


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


def test_those_that_must_stay_hide_no_others(core, crowds, monkeypatch):
    monkeypatch.setattr(long_waits, "MAX_MOVED", 4)
    monkeypatch.setattr(long_waits, "MAX_PAGES", 2)
    core.submit(*range(20))
    crowds.free = {0, 1}
    crowds.count = 3
    crowds.watch()
    for _ in range(10):
        crowds.look()
    core.settle()
    assert core.states(0, 1) == ["parked", "parked"]
    assert core.states(*range(2, 20)) == ["placed"] * 18


def test_the_last_of_the_line_go_first(core, crowds):
    core.submit(*range(80))
    crowds.free = set(range(80))
    crowds.watch()
    core.settle()
    moved = [number for number in range(80) if core.states(number) == ["parked"]]
    assert moved == list(range(30, 80))
