"""Workers that keep themselves free for jobs that must run alone: what others lose, by a simulated clock."""

import pytest

from support.hand_worker import growth
from support.machines import MachineServer
from support.pool_stage import Stage, draw
from support.script_clock import ScriptClock, with_set_clock
from tether.broker.scripts import BROKER_SCRIPTS

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


def test_a_worker_of_several_pools_keeps_itself_free_for_one_of_them_at_a_time(stage, clock):
    for number, pool in enumerate(POOLS):
        stage.place(f"suspect-{number}", pool=pool, tenant="suspect")
    for boot in range(2):
        dying = stage.worker(f"dying.{boot}")
        assert len(draw(dying, SLOTS, POOLS)) == len(POOLS)
        clock.pass_time(300)
        stage.die(dying)
    for pool in POOLS:
        stage.be_patient(pool)
    stage.place("stream", pool=POOLS[0])
    worker = stage.worker("worker.1")
    assert len(draw(worker, 1, POOLS)) == 1
    stage.place_all([f"short-{number}" for number in range(SLOTS * SECONDS)], pool=POOLS[0])
    stood_idle = 0
    for _ in range(SECONDS):
        jobs = draw(worker, SLOTS - 1, POOLS, busy=True)
        stood_idle += not jobs
        clock.pass_time(1_000)
        for job in jobs:
            worker.finish(growth(job, 1))
    assert 0 < stood_idle <= SECONDS // 4 + PATIENCE_S
