"""Jobs get other priorities wherever they are, with both databases and a real Redis, whoever dies between."""

import contextlib
import threading
from functools import partial

import pytest
from sqlalchemy import select, update

from support.boundless_pools import BoundlessPools, choice_of
from support.core_machine import Crash, Fuse, Fused
from support.core_steps import NOW, CoreSteps
from support.databases import POOL, due
from support.hand_worker import growth
from tether.broker.pools.dispatches import Dispatch
from tether.broker.pools.lane_moves import MoveResult
from tether.broker.pools.pools import Pools
from tether.jobs import JobError, JobState, Priority
from tether.orchestrator.fsck.fsck import fsck
from tether.orchestrator.waiting import PlaceWaiting
from tether.scheduling.reprioritisation import Reprioritisation
from tether.store.outbox import RANKS
from tether.store.priorities import PriorityChange
from tether.store.schema import dispatches, jobs
from tether.store.waiting_jobs import KeptModel

INTERACTIVE, STANDARD, BATCH = Priority


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


def job_id(number):
    return f"job-{number:06}"


def reprioritise(core, number, priority, *, store=None, pools=None):
    """As a client's call does: the row, then Redis."""
    priorities = Reprioritisation(store or core.store, pools or core.pools)
    (row,) = priorities.change([PriorityChange("default", job_id(number), priority, core.now)])
    return row, priorities.follow([job_id(number)]).get(job_id(number))


def in_database(core, number):
    """The job's priority, and the ranks of what it owes."""

    def look(connection):
        row = connection.execute(select(jobs.c.priority).where(jobs.c.job_id == job_id(number))).one()
        owed = connection.execute(select(dispatches.c.rank).where(dispatches.c.job_id == job_id(number)))
        return row.priority, [each.rank for each in owed]

    return core.store.read(look)


def in_redis(core, number):
    """The priority that Redis was told of, and the lanes in which the job stands."""
    asked, ticket = core.redis.hmget(core.keys.job(job_id(number)), "asked", "ticket")
    if asked is None:
        return None
    entry = f"{job_id(number)} {ticket.decode()}".encode()
    lanes = [
        priority
        for priority in Priority
        if entry in core.redis.lrange(core.keys.pool_jobs(POOL, priority, "default"), 0, -1)
    ]
    return asked.decode(), lanes


def put_everywhere(core):
    """A job in each place where an open job may be."""
    error = JobError("engine_failed", "it broke", retryable=True)
    core.submit(RETRYING)
    core.worker.fail(growth(*core.draw()), kind="failed", error=error)
    core.settle()
    core.submit(RUNNING)
    (core.running,) = core.draw()
    core.submit(UNSETTLED)
    core.worker.fail(growth(*core.draw()), kind="failed", error=error)
    core.submit(WAITING)
    core.submit(OWED, places=False)
    core.submit(PARKED, pool=None)
    states = ["waiting_retry", "placed", "placed", "placed", "accepted", "parked"]
    assert core.states(*ALL) == states


ALL = RETRYING, RUNNING, UNSETTLED, WAITING, OWED, PARKED = range(6)
ANSWERS = {
    RETRYING: MoveResult.FAILED,
    RUNNING: MoveResult.RUNNING,
    UNSETTLED: MoveResult.FAILED,
    WAITING: MoveResult.MOVED,
    OWED: MoveResult.UNKNOWN,
    PARKED: MoveResult.UNKNOWN,
}
"""What Redis answers of each."""


class Fleet(BoundlessPools):
    """The scheduler of waiting jobs: one pool serves all."""

    def served_models(self):
        return [KeptModel("demo", "1")]

    def served_needs(self, with_needs):
        return []

    def choose_pools(self, waiting):
        return [choice_of(POOL) for _ in waiting]


def mend(core):
    """What an orchestrator does by itself, until all that can be in Redis is there."""
    for _ in range(3):
        core.later(400_000)
        core.settle()
        core.reconcile()
        PlaceWaiting(core.store, Fleet(), core.reservations, now_ms=core.clock)()
        core.relay()


def test_a_job_gets_its_new_priority_wherever_it_is(core):
    put_everywhere(core)
    for number in ALL:
        row, answer = reprioritise(core, number, INTERACTIVE)
        assert (row.job_id, row.tenant_id, answer) == (job_id(number), "default", ANSWERS[number])
        assert in_database(core, number) == ("interactive", [0] if number == OWED else [])
        # Once more: nothing changes, and nothing fails.
        before = core.redis.hgetall(core.keys.job(job_id(number)))
        reprioritise(core, number, INTERACTIVE)
        assert core.redis.hgetall(core.keys.job(job_id(number))) == before
    assert in_redis(core, RUNNING) == ("interactive", [])
    core.worker.release(growth(core.running, 1))
    mend(core)
    for number in ALL:
        assert in_redis(core, number) == ("interactive", [INTERACTIVE])
        assert in_database(core, number) == ("interactive", [])
    assert fsck(core.store, core.redis, core.keys, wait=lambda: None).is_sound


@pytest.mark.parametrize("steps", range(4))
def test_whoever_dies_between_two_steps_leaves_what_the_orchestrator_mends(core, steps):
    """The row wins: killed before it is written, nothing has changed; after that, all follows it."""
    put_everywhere(core)
    wanted = STANDARD if steps == 0 else BATCH
    for number in ALL:
        fuse = Fuse()
        fuse.left = steps
        with contextlib.suppress(Crash):
            reprioritise(core, number, BATCH, store=Fused(core.store, fuse), pools=Fused(core.pools, fuse))
        assert in_database(core, number)[0] == wanted
    mend(core)
    core.worker.release(growth(core.running, 1))
    for number in ALL:
        assert in_redis(core, number) == (wanted, [wanted])


def test_the_next_call_mends_as_well(core):
    core.submit(1)
    priorities = Reprioritisation(core.store, core.pools)
    priorities.change([PriorityChange("default", job_id(1), BATCH, core.now)])
    assert in_redis(core, 1) == ("standard", [STANDARD])
    reprioritise(core, 1, BATCH)
    assert in_redis(core, 1) == ("batch", [BATCH])


def between(target, method, act):
    """Let something happen right before a method is carried out, once."""
    sound, acts = getattr(target, method), [act]

    def call(*args, **kwargs):
        while acts:
            acts.pop()()
        return sound(*args, **kwargs)

    return call


def test_what_is_placed_with_the_priority_of_before_ends_in_the_new_lane(core, monkeypatch):
    """The relay has read the row, and its priority changes before the script runs."""
    core.submit(1, places=False)
    core.later()
    changed = []

    def change():
        changed.append(reprioritise(core, 1, BATCH))

    monkeypatch.setattr(core.relay._pools, "place", between(core.pools, "place", change))
    core.relay()
    assert changed[0][1] is MoveResult.UNKNOWN
    assert in_redis(core, 1) == ("batch", [BATCH])
    # It is owed until that is recorded.
    assert (core.states(1), in_database(core, 1)) == (["accepted"], ("batch", [RANKS[BATCH]]))
    core.later()
    core.relay()
    assert (core.states(1), in_database(core, 1)) == (["placed"], ("batch", []))
    assert in_redis(core, 1) == ("batch", [BATCH])


def test_the_relay_dies_after_it_placed_with_the_priority_of_before(core, monkeypatch):
    core.submit(1, places=False)
    core.later()
    (row,) = due(core.store, core.now)
    reprioritise(core, 1, INTERACTIVE)
    core.pools.place([Dispatch.of(row.job, row.dispatch, row.pool)])
    assert in_redis(core, 1) == ("standard", [STANDARD])
    core.relay()
    assert in_redis(core, 1) == ("interactive", [INTERACTIVE])
    assert core.states(1) == ["placed"]


def test_what_its_submitter_places_late_ends_in_the_new_lane(core, monkeypatch):
    monkeypatch.setattr(
        core.reservations._pools, "place", between(core.pools, "place", lambda: reprioritise(core, 1, BATCH))
    )
    core.submit(1)
    assert in_redis(core, 1) == ("standard", [STANDARD])
    core.later()
    core.relay()
    assert in_redis(core, 1) == ("batch", [BATCH])
    assert (core.states(1), in_database(core, 1)) == (["placed"], ("batch", []))


def test_what_reconcile_puts_back_with_the_priority_of_before_ends_in_the_new_lane(core, monkeypatch):
    core.submit(1)
    core.redis.delete(core.keys.job(job_id(1)), core.keys.pool_jobs(POOL, STANDARD, "default"))
    change = partial(reprioritise, core, 1, BATCH)
    monkeypatch.setattr(core.reconcile._pools, "place", between(core.pools, "place", change))
    core.reconcile()
    assert in_redis(core, 1) == ("batch", [BATCH])


def test_two_that_change_a_job_at_once_leave_it_where_its_row_says(core, monkeypatch):
    """One has written its row, and the other one writes and tells Redis before it does."""
    core.submit(1)
    other = Pools(core.redis, core.keys)
    change = partial(reprioritise, core, 1, BATCH, pools=other)
    late = between(core.pools, "reprioritise_many", change)
    monkeypatch.setattr(core.pools, "reprioritise_many", late)
    reprioritise(core, 1, INTERACTIVE)
    other.close()
    assert in_database(core, 1)[0] == "batch"
    assert in_redis(core, 1) == ("batch", [BATCH])


def test_many_at_once_end_where_their_rows_say(core):
    core.submit(*range(8))
    drawn = core.draw(2)
    errors = []

    def change(priority):
        try:
            for number in range(8):
                reprioritise(core, number, priority)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=change, args=(priority,)) for priority in [*Priority] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    running = {job.job_id for job in drawn}
    for number in range(8):
        priority = in_database(core, number)[0]
        assert in_redis(core, number) == (priority, [] if job_id(number) in running else [Priority(priority)])


def test_a_rebuild_keeps_the_new_priority(core):
    core.submit(1, 2)
    core.draw()
    reprioritise(core, 1, BATCH)
    reprioritise(core, 2, INTERACTIVE)
    core.redis.flushdb()
    core.later()
    core.reconcile()
    assert (in_database(core, 1), in_database(core, 2)) == (("batch", [2]), ("interactive", [0]))
    core.relay()
    assert in_redis(core, 1) == ("batch", [BATCH])
    assert in_redis(core, 2) == ("interactive", [INTERACTIVE])


def test_the_relay_takes_what_is_urgent_now_first(core, monkeypatch):
    core.submit(*range(4), places=False, priority="batch")
    reprioritise(core, 3, INTERACTIVE)
    core.later()
    placed = []
    sound = core.pools.place

    def place(dispatches, **more):
        placed.extend(dispatch.job_id for dispatch in dispatches)
        return sound(dispatches, **more)

    monkeypatch.setattr(core.relay._pools, "place", place)
    core.relay()
    assert placed == [job_id(number) for number in (3, 0, 1, 2)]


def test_what_has_ended_another_tenants_and_what_is_not_known_stay_as_they_are(core):
    core.submit(1)
    core.finish(1)
    core.settle()
    core.submit(2)
    priorities = Reprioritisation(core.store, core.pools)
    rows = priorities.change(
        [
            PriorityChange("default", job_id(1), BATCH, NOW),
            PriorityChange("neighbour", job_id(2), BATCH, NOW),
            PriorityChange(None, "nobody", BATCH, NOW),
        ]
    )
    assert (rows[0].state, rows[1:]) == (JobState.SUCCEEDED, [None, None])
    assert priorities.follow([job_id(1), "nobody"]) == {}
    assert in_database(core, 1)[0] == in_database(core, 2)[0] == "standard"


def test_what_cannot_be_read_costs_no_other(core):
    core.submit(1, 2, 3)
    core.sql(update(jobs).where(jobs.c.job_id == job_id(1)).values(labels="{"))
    core.break_job(2)
    priorities = Reprioritisation(core.store, core.pools)
    rows = priorities.change([PriorityChange(None, job_id(n), BATCH, NOW) for n in (1, 2, 3)])
    assert isinstance(rows[0], Exception)
    answers = priorities.follow([job_id(2), job_id(3)])
    assert (answers[job_id(2)], answers[job_id(3)]) == (MoveResult.UNKNOWN, MoveResult.MOVED)
    assert in_redis(core, 3) == ("batch", [BATCH])
    core.sql(update(jobs).where(jobs.c.job_id == job_id(1)).values(labels="{}"))
    core.redis.delete(core.keys.job(job_id(2)))
    core.reconcile()
    asked, lanes = in_redis(core, 2)
    assert asked == BATCH in lanes


def test_a_priority_of_another_version_in_a_row_is_told_to_nobody(core):
    core.submit(1, 2)
    core.sql(update(jobs).where(jobs.c.job_id == job_id(1)).values(priority="urgent"))
    priorities = Reprioritisation(core.store, core.pools)
    assert priorities.follow([job_id(1), job_id(2)]) == {job_id(2): MoveResult.KNOWN}
    core.sql(update(jobs).where(jobs.c.job_id == job_id(1)).values(priority="standard"))
