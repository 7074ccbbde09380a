"""Jobs that expire unless a worker has begun them, as the scripts judge it on a real Redis."""

import pytest

from support.hand_worker import growth
from support.pool_stage import Stage, draw, ids
from tether.broker.pools.dispatches import PlaceResult
from tether.jobs import JobError, JobState

LONG_PAST = 1
FAR_OFF = 2**52
ERROR = JobError("engine_failed", "x", retryable=True)


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


def expire(stage, job_id, is_placed=False):
    (answer,) = stage.pools.expire_unbegun_many([(job_id, is_placed)])
    return answer


def pass_by(stage, job_id):
    """Let the time come at which the job expires unbegun, where there is still one."""
    if stage.field(job_id, "expires_at") != "0":
        stage.redis.hset(stage.keys.job(job_id), "expires_at", LONG_PAST)


def restart(stage):
    stage.redis.incr(f"{stage.keys.prefix}:core:restarts")


def begin(stage, job_id="a", worker="w"):
    stage.place(job_id, expires_at=FAR_OFF)
    (job,) = draw(stage.worker(worker))
    pass_by(stage, job_id)
    return job


def test_draw_ends_what_nobody_has_begun_in_time(stage):
    stage.place("late", expires_at=LONG_PAST)
    stage.place("in time", expires_at=FAR_OFF)
    stage.place("patient")
    assert ids(draw(stage.worker("w"), 3)) == ["in time", "patient"]
    assert stage.outcomes() == [("late", "expired")]
    assert stage.events("late") == ["failed"]
    assert draw(stage.worker("v")) == []


@pytest.mark.parametrize(("ms_left", "state"), [(-1, "expired"), (0, "expired"), (60_000, "running")])
def test_the_time_is_redis_s(stage, ms_left, state):
    seconds, microseconds = stage.redis.time()
    stage.place("a", expires_at=seconds * 1000 + microseconds // 1000 + ms_left)
    draw(stage.worker("w"))
    assert stage.field("a", "state") == state


def test_what_has_begun_goes_on_with_another_worker(stage):
    job = begin(stage)
    stage.lose("a")
    assert stage.field("a", "state") == "placed"
    assert expire(stage, "a") == "begun"
    (again,) = draw(stage.worker("v"))
    assert (again.job_id, again.fence.attempt) == ("a", job.fence.attempt + 1)


def test_what_was_handed_over_goes_on(stage):
    job = begin(stage)
    stage.ports[-1].release(growth(job, 0))
    assert ids(draw(stage.worker("v"))) == ["a"]


def test_a_later_dispatch_of_what_nobody_has_begun_expires(stage):
    stage.place("a", expires_at=FAR_OFF)
    assert stage.pools.withdraw_many([("a", 1)], running=False) == ["withdrawn"]
    stage.place("a", dispatch=2, expires_at=LONG_PAST)
    assert draw(stage.worker("w")) == []
    assert stage.outcomes()[-1] == ("a", "expired")


def test_what_redis_lost_may_have_begun(stage):
    stage.place("lost", expires_at=LONG_PAST, lossy=True)
    stage.place("rebuilt", dispatch=2, expires_at=LONG_PAST)
    stage.place("set back", expires_at=LONG_PAST)
    for job_id in ("lost", "rebuilt"):
        assert expire(stage, job_id, is_placed=True) == "begun"
    restart(stage)
    assert expire(stage, "set back", is_placed=True) == "begun"
    assert sorted(ids(draw(stage.worker("w"), 3))) == ["lost", "rebuilt", "set back"]


def test_a_restart_that_nobody_has_counted_yet_may_have_cost_it_its_beginning(stage):
    stage.place_all(["a", "b"], expires_at=LONG_PAST)
    run_id = stage.redis.hget(stage.keys.lease_tick, "run_id")
    stage.redis.hset(stage.keys.lease_tick, "run_id", "of the process before")
    assert expire(stage, "a", is_placed=True) == "begun"
    stage.redis.hset(stage.keys.lease_tick, "run_id", run_id)
    assert expire(stage, "a", is_placed=True) == "closed"
    stage.redis.hset(stage.keys.lease_tick, "run_id", "of the process before")
    assert ids(draw(stage.worker("w"), 2)) == ["b"]


def test_a_job_whose_hash_is_damaged_may_have_begun(stage):
    stage.place("a", expires_at=FAR_OFF)
    stage.redis.hdel(stage.keys.job("a"), "ticket")
    stage.place("a", dispatch=1, expires_at=LONG_PAST)
    assert expire(stage, "a", is_placed=True) == "begun"


def test_a_time_that_cannot_be_read_hands_the_job_back(stage):
    stage.place("a", expires_at=FAR_OFF)
    stage.place("b")
    stage.redis.hset(stage.keys.job("a"), "expires_at", "soon")
    assert ids(draw(stage.worker("w"), 2)) == ["b"]
    assert stage.outcomes() == [("a", "withdrawn")]


def test_jobs_that_older_programs_placed_are_drawn(stage):
    stage.place("a")
    stage.redis.hdel(stage.keys.job("a"), "expires_at")
    assert expire(stage, "a") == "begun"
    assert ids(draw(stage.worker("w"))) == ["a"]


def begin_of_old(stage):
    """A worker of a version that knows of no ``expires_at`` draws a job that has one."""
    job = begin(stage)
    stage.redis.hset(stage.keys.job("a"), "expires_at", LONG_PAST)
    return job


def test_what_an_older_worker_runs_has_begun(stage):
    begin_of_old(stage)
    assert expire(stage, "a", is_placed=True) == "begun"
    assert not stage.field("a", "cancel")


def test_what_an_older_worker_gave_back_has_begun(stage):
    job = begin_of_old(stage)
    stage.ports[-1].release(growth(job, 0))
    assert expire(stage, "a", is_placed=True) == "begun"
    assert ids(draw(stage.worker("v"))) == ["a"]


@pytest.mark.parametrize("began", [begin, begin_of_old], ids=["this", "an older version"])
@pytest.mark.parametrize("end", ["failed", "withdrawn"])
def test_a_later_dispatch_of_what_has_begun_goes_on(stage, began, end):
    job = began(stage)
    if end == "failed":
        stage.ports[-1].fail(growth(job, 0), kind="failed", error=ERROR)
    else:
        assert stage.pools.withdraw_many([("a", 1)], running=True) == ["withdrawn"]
    assert expire(stage, "a") == "begun"
    # Whoever places it may not know yet that it has begun.
    stage.place("a", dispatch=2, expires_at=LONG_PAST)
    assert expire(stage, "a") == "begun"
    assert ids(draw(stage.worker("v"))) == ["a"]


def test_only_what_nobody_has_begun_is_ended(stage):
    stage.place("waits", expires_at=LONG_PAST)
    assert expire(stage, "waits", is_placed=True) == "closed"
    assert stage.field("waits", "state") == "expired"
    assert stage.events("waits") == ["failed"]
    begin(stage, "runs")
    assert expire(stage, "runs") == "begun"
    assert stage.field("runs", "state") == "running"
    assert not stage.field("runs", "cancel")
    assert stage.outcomes() == []
    assert draw(stage.worker("v"), 2) == []


def test_of_what_redis_does_not_know_the_database_says_whether_it_should(stage):
    assert expire(stage, "a", is_placed=True) == "unknown"
    stage.place("a", expires_at=LONG_PAST)
    assert expire(stage, "never placed") == "closed"
    stage.place("never placed", expect=PlaceResult.CLOSED)


def test_what_has_ended_is_left_as_it_is(stage):
    begin(stage)
    assert stage.pools.seal_many([("a", JobState.SUCCEEDED, None)], 60_000) == ["sealed"]
    assert expire(stage, "a") == "succeeded"
    stage.redis.delete(stage.keys.job("a"))
    stage.redis.set(stage.keys.job("a"), "x")
    assert expire(stage, "a", is_placed=True) == "unknown"
    assert expire(stage, "a") == "closed"


def test_many_that_are_late_hold_up_no_other_lane(stage):
    stage.place_all([f"late-{number}" for number in range(600)], tenant="many", expires_at=LONG_PAST)
    stage.place("in time", tenant="other")
    worker = stage.worker("w")
    assert ids(draw(worker)) == ["in time"]
    for _ in range(4):
        draw(worker)
    assert len(stage.outcomes()) == 600
