"""What waits in a pool is moved or cancelled a part at a time, in Redis and in the outbox, and what runs goes
on."""

import pytest
from sqlalchemy import select, text

from support.boundless_pools import BoundlessPools, choice_of
from support.core_steps import CoreSteps
from support.databases import DEMO, OTHER_POOL, POOL, all_held, outbox, state_of
from support.hand_worker import growth
from tether.core import pool_changes
from tether.core.pool_changes import PoolChanges
from tether.orchestrator.waiting import PlaceWaiting
from tether.store.holds import QUOTA
from tether.store.schema import jobs
from tether.store.tenants import Tenant, create_tenant

THIRD_POOL = "gpu.cpu.local.third-00000000"


class Placing(BoundlessPools):
    """The loop of waiting jobs, and a scheduler that goes by what operators want."""

    def __init__(self, core):
        self.core = core
        self.pools = [POOL, OTHER_POOL]
        self.step = PlaceWaiting(core.store, self, core.reservations, now_ms=core.clock)

    def served_models(self):
        return [DEMO] if self.pools else []

    def served_needs(self, with_needs):
        return []

    def choose_pools(self, waiting):
        return [choice_of(self.choose(job)) for job in waiting]

    def choose(self, job):
        if job.moved_to in self.pools:
            return job.moved_to
        others = [pool for pool in self.pools if pool != job.avoided_pool]
        return next(iter(others or self.pools), None)

    def place(self):
        """Settle what was withdrawn, and place what waits."""
        self.core.settle()
        for _ in range(100):
            if self.step():
                return
        raise AssertionError("the step never comes to rest")


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


@pytest.fixture
def changes(core):
    return PoolChanges(core.store, core.pools, core.ending, core.clock)


@pytest.fixture
def placing(core):
    return Placing(core)


def job_id(number):
    return f"job-{number:06}"


def pools_of(core, *numbers):
    """Where jobs were handed over last."""
    query = select(jobs.c.job_id, jobs.c.pool).where(jobs.c.job_id.in_([job_id(each) for each in numbers]))
    found = {
        row.job_id: row.pool for row in core.store.read(lambda connection: connection.execute(query).all())
    }
    return [found[job_id(each)] for each in numbers]


def in_pool(core, pool):
    """Jobs that a worker would get there."""
    return sorted(job.job_id for job in core.worker.draw(100, [pool], busy=False).jobs)


def test_what_waits_in_redis_and_in_the_outbox_goes_to_another_pool(core, changes, placing):
    core.submit(1, 2)
    core.submit(3, 4, places=False)
    change = changes.move(POOL, None, 100)
    assert (change.done, change.errors, change.has_more) == (4, {}, False)
    placing.place()
    assert pools_of(core, 1, 2, 3, 4) == [OTHER_POOL] * 4
    assert all_held(core.store)["capacity", OTHER_POOL] == 4
    assert in_pool(core, POOL) == []
    assert in_pool(core, OTHER_POOL) == [job_id(number) for number in (1, 2, 3, 4)]


def test_they_go_to_the_pool_that_is_named_if_that_can_serve_them(core, changes, placing):
    placing.pools = [OTHER_POOL, THIRD_POOL, POOL]
    core.submit(1)
    core.submit(2, places=False)
    assert changes.move(POOL, THIRD_POOL, 100).done == 2
    placing.place()
    assert pools_of(core, 1, 2) == [THIRD_POOL] * 2
    placing.pools = [OTHER_POOL, POOL]
    assert changes.move(THIRD_POOL, POOL, 1).done == 1
    placing.pools.remove(POOL)
    placing.place()
    assert sorted(pools_of(core, 1, 2)) == [OTHER_POOL, THIRD_POOL]


def test_where_nobody_else_serves_them_they_are_parked_and_hold_nothing_there(core, changes, placing):
    core.submit(1)
    core.submit(2, places=False)
    assert changes.move(POOL, None, 100).done == 2
    placing.pools = []
    placing.place()
    assert core.states(1, 2) == ["parked", "parked"]
    assert set(all_held(core.store)) == {(QUOTA, "default")}
    placing.pools = [POOL]
    placing.place()
    assert pools_of(core, 1, 2) == [POOL] * 2


def test_what_runs_is_neither_moved_nor_cancelled(core, changes, placing):
    core.submit(1, 2, 3)
    (running,) = core.draw()
    assert changes.move(POOL, None, 1).done == 1
    assert changes.purge(POOL, 100).done == 1
    placing.place()
    core.worker.finish(growth(running, 1))
    core.settle()
    assert core.states(1, 2, 3) == ["succeeded", "placed", "cancelled"]
    assert pools_of(core, 2) == [OTHER_POOL]


def test_what_waits_in_redis_and_in_the_outbox_is_cancelled(core, changes):
    core.submit(1, 2)
    core.submit(3, 4, places=False)
    core.submit(5, pool=OTHER_POOL)
    change = changes.purge(POOL, 100)
    assert (change.done, change.errors, change.has_more) == (4, {}, False)
    core.settle()
    assert core.states(1, 2, 3, 4, 5) == [*["cancelled"] * 4, "placed"]
    assert outbox(core.store) == []
    assert all_held(core.store) == {(QUOTA, "default"): 1, ("capacity", OTHER_POOL): 1}


@pytest.mark.parametrize("verb", ["move", "purge"])
def test_one_call_does_no_more_than_it_is_asked_to(core, changes, verb, monkeypatch):
    monkeypatch.setattr(pool_changes, "_PAGE", 2)
    core.submit(*range(1, 6))
    core.submit(*range(6, 11), places=False)

    def call(limit):
        if verb == "move":
            return changes.move(POOL, None, limit)
        return changes.purge(POOL, limit)

    done = []
    for _ in range(4):
        change = call(3)
        done.append((change.done, change.has_more))
        core.settle()
    assert done == [(3, True), (3, True), (3, True), (1, False)]
    assert call(3).done == 0


@pytest.mark.parametrize("verb", ["move", "purge"])
def test_many_tenants_and_classes_have_their_turn(core, changes, verb, monkeypatch):
    monkeypatch.setattr(pool_changes, "_PAGE", 2)
    for tenant in ("one", "two", "three"):
        core.store.write_alone(create_tenant, Tenant(tenant, tenant, 1.0, None, core.now)).result()
    numbers = iter(range(1, 100))
    for tenant in ("one", "two", "three"):
        for priority in ("interactive", "standard", "batch"):
            for places in (True, False):
                core.submit(next(numbers), tenant_id=tenant, priority=priority, places=places)
    change = changes.move(POOL, None, 100) if verb == "move" else changes.purge(POOL, 100)
    assert (change.done, change.has_more) == (18, False)


@pytest.mark.parametrize("verb", ["move", "purge"])
def test_a_job_that_cannot_be_changed_costs_itself(core, changes, placing, verb):
    core.submit(1, 2, 3)
    core.submit(4, 5, places=False)
    core.break_job(2)
    change = changes.move(POOL, None, 100) if verb == "move" else changes.purge(POOL, 100)
    assert (change.done, change.has_more) == (4, False)
    core.settle()
    assert core.states(1, 3, 4, 5) == [*["parked" if verb == "move" else "cancelled"] * 4]


def test_a_row_that_cannot_be_read_costs_itself(core, changes):
    core.submit(1, 2, 3)
    core.submit(4, 5, places=False)
    if core.store.place.startswith("postgresql"):
        pytest.skip("a column of numbers holds nothing else in Postgres")
    core.sql(text(f"UPDATE jobs SET attempts = 'x' WHERE job_id = '{job_id(5)}'"))
    change = changes.move(POOL, None, 100)
    assert (change.done, set(change.errors)) == (4, {job_id(5)})
    core.sql(text("UPDATE jobs SET attempts = 0"))


def test_a_row_that_cannot_be_read_leaves_its_place_to_the_next(core, changes):
    if core.store.place.startswith("postgresql"):
        pytest.skip("a column of numbers holds nothing else in Postgres")
    core.submit(1, 2, 3, places=False)
    core.sql(text(f"UPDATE jobs SET attempts = 'x' WHERE job_id = '{job_id(1)}'"))
    change = changes.move(POOL, None, 1)
    assert (change.done, set(change.errors), change.has_more) == (1, {job_id(1)}, True)
    core.sql(text("UPDATE jobs SET attempts = 0"))


def test_nothing_more_is_withdrawn_while_much_is_not_settled(core, changes, placing, monkeypatch):
    monkeypatch.setattr(pool_changes, "MAX_UNSETTLED_OUTCOMES", 64)
    core.submit(*range(1, 130))
    first = changes.move(POOL, None, 1_000)
    assert (first.done, first.has_more) == (64, True)
    again = changes.move(POOL, None, 1_000)
    assert (again.done, again.has_more) == (0, True)
    core.settle()
    assert changes.move(POOL, None, 1_000).done == 64


def test_who_dies_half_way_leaves_each_job_where_it_was_or_waiting(core, changes, placing, monkeypatch):
    core.submit(1)
    core.submit(2, places=False)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(core.pools, "withdraw_many", die)
        with pytest.raises(KeyboardInterrupt):
            changes.move(POOL, OTHER_POOL, 100)
    assert state_of(core.store, 1)[0] == "placed"
    placing.place()
    assert pools_of(core, 1, 2) == [POOL, OTHER_POOL]
    assert in_pool(core, POOL) == [job_id(1)]
