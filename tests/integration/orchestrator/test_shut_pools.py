"""The loop that gives back what waits where a breaker is open, over a Redis and both databases."""

import pytest

from support.core_steps import CoreSteps
from tether.models.registry import ModelVersion, Registry
from tether.orchestrator.shut_pools import GiveBackShut
from tether.scheduling.breaker import Breaker, BreakerName, BreakerProbe, BreakerRules, TripCause
from tether.scheduling.known_breakers import KnownBreakers
from tether.scheduling.shared_breakers import SharedBreakers

NAME = BreakerName("demo", "1", "local")
MODEL = ModelVersion(name="demo", version="1", digest="0" * 64, context=64)


class Shut:
    """A pool whose breaker can be opened; some of its jobs may have another."""

    def __init__(self, core):
        self.core = core
        self.free = set()
        self.shared = SharedBreakers(core.pools, Registry([MODEL]), BreakerRules())
        self.known = KnownBreakers(self.shared, core.clock)
        self.step = GiveBackShut(
            core.store, core.pools, self.shared, self.known, moves=self, now_ms=core.clock
        )

    def may_go_elsewhere(self, pool, jobs):
        return {job.job_id for job in jobs if int(job.job_id[4:]) in self.free}

    def open(self, cause=TripCause.FAILURES, probe=None):
        far = 2 * self.core.now

        def decide(breaker, samples, now):
            return Breaker(cause=cause, opened_at=now, until=far, trips=1, probe=probe)

        self.shared.change(NAME, decide)
        self.known()

    def give_back(self):
        for _ in range(10):
            self.step()
        self.core.settle()


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


@pytest.fixture
def shut(core):
    return Shut(core)


def test_while_it_is_closed_nothing_is_touched(core, shut):
    core.submit(1, 2)
    shut.give_back()
    assert core.states(1, 2) == ["placed", "placed"]


def test_where_a_model_fails_all_that_waits_is_withdrawn_and_what_runs_goes_on(core, shut):
    core.submit(*range(100))
    (running,) = core.draw(1)
    shut.open()
    shut.give_back()
    states = {number: core.states(number)[0] for number in range(100)}
    ran = int(running.job_id[4:])
    assert states.pop(ran) == "placed"
    assert set(states.values()) == {"parked"}
    assert list(core.draw(1)) == []


def test_the_job_that_tries_stays(core, shut):
    core.submit(1, 2, 3)
    shut.open(probe=BreakerProbe(job_id="job-000002", tenant="default", claimed_at=core.now))
    shut.give_back()
    assert core.states(1, 2, 3) == ["parked", "placed", "parked"]


def test_where_it_is_only_slow_what_nobody_else_can_serve_stays(core, shut):
    core.submit(*range(10))
    shut.free = {3, 4}
    shut.open(TripCause.SLOWNESS)
    shut.give_back()
    assert core.states(3, 4) == ["parked", "parked"]
    assert core.states(*(number for number in range(10) if number not in shut.free)) == ["placed"] * 8


def test_other_pools_are_left_alone(core, shut):
    core.submit(1)
    core.submit(2, pool="gpu.cpu.local.other-ffffffff")
    core.redis.hset(core.keys.open_breakers, "other@1:local", b"x")
    shut.open()
    shut.give_back()
    assert core.states(1, 2) == ["parked", "placed"]


def test_what_the_outbox_owes_is_parked(core, shut):
    core.submit(1, 2, places=False)
    shut.open()
    shut.give_back()
    assert core.states(1, 2) == ["parked", "parked"]
