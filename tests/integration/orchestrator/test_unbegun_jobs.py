"""Jobs that expire unless a worker has begun them, wherever they are, step by step."""

import pytest

from support.core_steps import NOW, CoreSteps
from support.databases import all_held, outbox
from support.hand_worker import growth
from tether.jobs import JobError
from tether.orchestrator import deadlines
from tether.store.beginnings import unbegun

JOB = "job-000000"
ERROR = JobError("engine_failed", "x", retryable=True)


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    # Restarts of Redis are counted from here on.
    made.pools.tick(60_000, 60_000)
    yield made
    made.close()


def pass_by(core):
    """It is past ``expires_at`` in the database, and in Redis where that has one."""
    core.later()
    if core.redis.hget(core.keys.job(JOB), "expires_at") not in (None, b"0"):
        core.redis.hset(core.keys.job(JOB), "expires_at", 1)


def owed(core):
    return core.store.read(unbegun, core.now, 10)


def is_drawn(core):
    core.relay()
    return [job.job_id for job in core.draw()] == [JOB]


@pytest.mark.parametrize("where", ["parked", "accepted", "placed"])
def test_what_nobody_has_begun_expires_wherever_it_is(core, where):
    changes = {"parked": {"pool": None}, "accepted": {"places": False}, "placed": {}}[where]
    core.submit(0, expires_at=NOW + 1, **changes)
    assert core.states(0) == [where]
    core.deadlines()
    assert core.states(0) == [where]
    pass_by(core)
    core.deadlines()
    assert core.states(0) == ["expired"]
    assert (all_held(core.store), outbox(core.store)) == ({}, [])
    assert not is_drawn(core)


def test_what_draw_has_ended_is_settled(core):
    core.submit(0, expires_at=NOW + 1)
    pass_by(core)
    assert core.draw() == ()
    core.deadlines()
    core.settle()
    assert core.states(0) == ["expired"]
    assert all_held(core.store) == {}


def test_what_draw_has_ended_stays_ended_though_redis_loses_that(core):
    core.submit(0, expires_at=NOW + 1)
    pass_by(core)
    assert core.draw() == ()
    core.deadlines()
    lose_all(core, None)
    core.later()
    assert not is_drawn(core)
    assert core.states(0) == ["expired"]


def fail(core, job):
    core.worker.fail(growth(job, 0), kind="failed", error=ERROR)
    core.settle()
    return "waiting_retry"


def release(core, job):
    core.worker.release(growth(job, 0))
    return "placed"


def withdraw(core, job):
    core.pools.withdraw_many([(JOB, 1)], running=True)
    core.settle()
    return "parked"


def lose_all(core, job):
    for key in core.redis.scan_iter(core.keys.prefix + ":*"):
        core.redis.delete(key)
    core.reconcile()
    core.worker.hello()
    return "accepted"


def lose_its_hash(core, job):
    core.redis.delete(core.keys.job(JOB))
    return "placed"


@pytest.mark.parametrize("what", [fail, release, withdraw, lose_all, lambda core, job: "placed"])
def test_what_has_begun_goes_on(core, what):
    core.submit(0, expires_at=NOW + 1)
    (job,) = core.draw()
    state = what(core, job)
    assert core.states(0) == [state]
    pass_by(core)
    core.deadlines()
    assert core.states(0) == [state]
    assert owed(core) == []


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("what", [fail, withdraw])
def test_the_database_remembers_that_it_has_begun(core, what, forgets):
    core.submit(0, expires_at=NOW + 1)
    (job,) = core.draw()
    what(core, job)
    if forgets:
        core.redis.delete(core.keys.job(JOB))
    pass_by(core)
    core.deadlines()
    assert core.states(0)[0] != "expired"


def test_what_redis_lost_is_left_until_it_is_placed_again_and_goes_on_then(core):
    core.submit(0, expires_at=NOW + 1)
    core.draw()
    core.redis.delete(core.keys.job(JOB))
    pass_by(core)
    core.deadlines()
    assert (core.states(0), owed(core)) == (["placed"], [JOB])
    core.reconcile()
    core.deadlines()
    assert (core.states(0), owed(core)) == (["placed"], [])
    assert is_drawn(core)


def test_a_rebuilt_redis_gives_out_what_may_have_begun(core):
    core.submit(0, expires_at=NOW + 1)
    lose_all(core, None)
    pass_by(core)
    core.deadlines()
    assert is_drawn(core)


def test_whoever_dies_while_a_job_expires_leaves_that_to_the_next(core):
    core.submit(0, expires_at=NOW + 1)
    pass_by(core)
    core.pools.expire_unbegun_many([(JOB, True)])
    assert core.states(0) == ["placed"]
    core.deadlines()
    assert core.states(0) == ["expired"]


def test_jobs_of_which_nothing_can_be_said_hold_up_nobody(core, monkeypatch):
    monkeypatch.setattr(deadlines, "BATCH", 2)
    core.submit(*range(5), expires_at=NOW + 1)
    core.submit(5, expires_at=NOW + 2, pool=None)
    for number in range(5):
        core.redis.delete(core.keys.job(f"job-{number:06}"))
    core.break_job(0)
    core.later()
    for _ in range(4):
        core.deadlines()
    assert core.states(5) == ["expired"]
    assert core.states(*range(5)) == ["placed"] * 5
