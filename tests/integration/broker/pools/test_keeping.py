"""Workers that keep themselves free for jobs that must run alone: what others lose, by a simulated clock."""

import itertools

import pytest

from support.hand_worker import growth
from support.machines import MachineServer
from support.pool_stage import Stage, draw
from support.script_clock import ScriptClock, with_set_clock
from tether.broker.scripts import BROKER_SCRIPTS
from tether.scheduling.keeping import FIRST_PATIENCE_MS, PATIENCE_MEMORY_MS

POOLS = [f"gpu.cpu.local.model-{number}" for number in range(4)]
SLOTS = 4
SECONDS = 120
PATIENCE_S = 10


@pytest.fixture
def clock(machine_redis_url, monkeypatch):
    sound = BROKER_SCRIPTS.source
    monkeypatch.setattr(BROKER_SCRIPTS, "source", lambda name: with_set_clock(sound(name)))
    opened = ScriptClock(MachineServer(machine_redis_url))
    yield opened
    opened.close()


@pytest.fixture
def stage(machine_redis_url, clock):
    opened = Stage(MachineServer(machine_redis_url), "keeping")
    yield opened
    opened.close()


def place_suspects(stage, clock, pools):
    """A job in each pool that ran at two deaths, and waits to run alone."""
    for number, pool in enumerate(pools):
        stage.place(f"suspect-{number}", pool=pool, tenant="suspect")
    for boot in range(2):
        dying = stage.worker(f"dying.{boot}")
        assert len(draw(dying, SLOTS, pools)) == len(pools)
        clock.pass_time(300)
        stage.die(dying)
    for pool in pools:
        stage.be_patient(pool)


class BusyWorker:
    """A worker with a stream that does not end, for whose other slots jobs of a second always wait."""

    def __init__(self, stage, clock, pools):
        self.stage, self.clock, self.pools, self.placed = stage, clock, pools, 0
        stage.place("stream", pool=pools[0])
        self.port = stage.worker("worker.1")
        assert len(draw(self.port, 1, pools)) == 1

    def draws_something(self):
        """It draws, and a second passes."""
        self.stage.place_all(
            [f"short-{number}" for number in range(self.placed, self.placed + SLOTS)], pool=self.pools[0]
        )
        self.placed += SLOTS
        jobs = draw(self.port, SLOTS - 1, self.pools, busy=True)
        self.clock.pass_time(1_000)
        for job in jobs:
            self.port.finish(growth(job, 1))
        return bool(jobs)


def test_a_worker_of_several_pools_keeps_itself_free_for_one_of_them_at_a_time(stage, clock):
    place_suspects(stage, clock, POOLS)
    worker = BusyWorker(stage, clock, POOLS)
    stood_idle = sum(not worker.draws_something() for _ in range(SECONDS))
    assert 0 < stood_idle <= SECONDS // 4 + PATIENCE_S


def test_after_long_others_wait_no_longer_than_at_first(stage, clock):
    place_suspects(stage, clock, POOLS[:1])
    worker = BusyWorker(stage, clock, POOLS[:1])
    for _ in range(SECONDS):
        worker.draws_something()
    clock.pass_time(2 * PATIENCE_MEMORY_MS)
    waited = list(itertools.takewhile(lambda drew: not drew, (worker.draws_something() for _ in range(60))))
    assert len(waited) == FIRST_PATIENCE_MS // 1_000
