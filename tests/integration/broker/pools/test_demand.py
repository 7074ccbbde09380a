"""Who loads a pool's model: nobody while somebody who has loaded it is free, and one worker at a time."""

import pytest
import redis

from support.pool_stage import OTHER, POOL, Stage, draw
from tether.broker.pools.worker_port import LoadAdvice, PoolReadiness, Pulse
from tether.discovery.over_redis.queue_evidence import QueueEvidence

WARM, LOADING, COLD, ASKED = (
    PoolReadiness.WARM,
    PoolReadiness.LOADING,
    PoolReadiness.COLD,
    PoolReadiness.ASKED,
)
FAILING, PAUSED, AWAY = PoolReadiness.FAILING, PoolReadiness.PAUSED, PoolReadiness.AWAY
SLOW = PoolReadiness.SLOW


@pytest.fixture
def stage(shared_redis_server):
    made = Stage(shared_redis_server, "demand")
    yield made
    made.close()


@pytest.fixture
def one(stage):
    return stage.worker("one.1")


@pytest.fixture
def two(stage):
    return stage.worker("two.1")


def advice(port, readiness, pool=POOL):
    return port.demand([(pool, readiness)])[0]


def forget_draws(stage):
    """Let what workers drew from be of long ago."""
    for worker, notes in stage.redis.hgetall(stage.keys.asked).items():
        groups = [group.partition(b" ")[2] for group in notes.split(b"\t")]
        aged = [b"%d %b" % (len(groups) - number, group) for number, group in enumerate(groups)]
        stage.redis.hset(stage.keys.asked, worker, b"\t".join(aged))


def test_nothing_is_loaded_for_a_pool_in_which_nothing_waits(one):
    assert advice(one, COLD) is LoadAdvice.NONE


def test_what_waits_and_nobody_has_loaded_is_loaded_at_once_and_by_one_worker(stage, one, two):
    stage.place("job-1")
    assert advice(one, COLD) is LoadAdvice.LOAD
    assert advice(two, COLD) is LoadAdvice.NONE
    assert advice(one, LOADING) is LoadAdvice.NONE
    assert advice(two, COLD) is LoadAdvice.NONE


def test_each_pool_has_its_own_advice(stage, one):
    stage.place("job-1", pool=OTHER)
    assert one.demand([(POOL, COLD), (OTHER, COLD)]) == [LoadAdvice.NONE, LoadAdvice.LOAD]


def test_while_somebody_who_has_loaded_it_waits_for_jobs_nobody_else_loads_it(stage, one, two):
    assert advice(one, WARM) is LoadAdvice.NONE
    one.draw(1, [POOL], busy=False)
    # It was woken for the first job and has not come yet: the second look finds it waiting again, or not.
    stage.place("job-1")
    assert advice(two, COLD) is LoadAdvice.AGAIN
    one.draw(1, [POOL], busy=False)
    assert advice(two, ASKED) is LoadAdvice.NONE


def test_where_all_who_have_loaded_it_are_busy_another_loads_it_at_the_second_look(stage, one, two):
    advice(one, WARM)
    stage.place("job-1")
    assert advice(two, COLD) is LoadAdvice.AGAIN
    assert advice(two, ASKED) is LoadAdvice.LOAD


def test_who_has_failed_leaves_it_to_others(stage, one, two):
    stage.place("job-1")
    assert advice(one, COLD) is LoadAdvice.LOAD
    assert advice(one, PAUSED) is LoadAdvice.NONE
    assert advice(two, COLD) is LoadAdvice.LOAD
    assert advice(one, FAILING) is LoadAdvice.NONE
    advice(two, WARM)
    assert advice(one, FAILING) is LoadAdvice.NONE


def test_where_nobody_else_takes_the_jobs_who_fails_to_load_it_says_so_of_them(stage, one):
    assert advice(one, FAILING) is LoadAdvice.NONE
    stage.place("job-1")
    assert advice(one, FAILING) is LoadAdvice.TELL
    assert stage.redis.llen(stage.keys.wake("one.1")) == 1


def test_while_a_worker_that_says_nothing_of_its_models_draws_no_jobs_fail(stage, one):
    stage.place("job-1")
    stage.redis.hset(stage.keys.job("job-1"), "group", "suspects")
    other_make = stage.worker("other.1")
    assert draw(other_make, busy=True) == [], "it stands idle: what must run alone is not for a busy one"
    forget_draws(stage)
    assert advice(one, FAILING) is LoadAdvice.NONE
    draw(other_make, count=0)
    assert advice(one, FAILING) is LoadAdvice.TELL


def test_while_a_busy_worker_that_says_nothing_of_its_models_works_no_jobs_fail(stage, one):
    other_make = stage.worker("other.1")
    stage.place("job-1")
    (job,) = draw(other_make)
    stage.place("job-2")
    assert advice(one, FAILING) is LoadAdvice.NONE
    # What it asked for long ago says nothing, unless it still renews a lease.
    forget_draws(stage)
    assert advice(one, FAILING) is LoadAdvice.TELL
    other_make.beat([Pulse(job.job_id, job.fence, renew=True)])
    assert advice(one, FAILING) is LoadAdvice.NONE
    draw(other_make)
    stage.place("job-3")
    draw(other_make, pools=(OTHER,))
    assert advice(one, FAILING) is LoadAdvice.NONE, "it drew from the pool a moment ago"
    forget_draws(stage)
    other_make.beat([Pulse(job.job_id, job.fence, renew=True)])
    assert advice(one, FAILING) is LoadAdvice.TELL, "it draws from another one now"
    draw(other_make)
    stage.place("job-4")
    other_make.demand([(OTHER, WARM)])
    assert advice(one, FAILING) is LoadAdvice.TELL, "it says what it draws from, and this pool is not in it"


@pytest.mark.parametrize(("pools_now", "count"), [((OTHER,), 1), ((POOL,), 0)])
def test_who_is_woken_and_does_not_take_what_it_was_woken_for_has_another_one_woken(
    stage, one, two, pools_now, count
):
    assert draw(one) == []
    stage.place("job-1")
    assert draw(two, pools=(OTHER,)) == []
    for pool in (OTHER, POOL):
        stage.redis.sadd(f"{stage.keys.prefix}:pool:{pool}:idle", "two.1")
    assert draw(one, pools=pools_now, count=count) == []
    assert stage.redis.llen(stage.keys.wake("two.1")) == 1


def test_beside_a_long_load_others_may_load_and_whose_load_fails_then_fails_no_jobs(stage, one, two):
    stage.place("job-1")
    assert advice(one, COLD) is LoadAdvice.LOAD
    assert advice(one, SLOW) is LoadAdvice.NONE
    assert advice(two, COLD) is LoadAdvice.LOAD
    assert advice(two, FAILING) is LoadAdvice.NONE
    stage.redis.delete(f"{stage.keys.prefix}:pool:{POOL}:slow")
    assert advice(two, FAILING) is LoadAdvice.TELL


def test_a_worker_that_goes_is_counted_on_no_longer(stage, one, two):
    advice(one, WARM)
    stage.place("job-1")
    advice(one, AWAY)
    assert advice(two, COLD) is LoadAdvice.LOAD
    advice(two, AWAY)
    assert advice(one, COLD) is LoadAdvice.LOAD


def test_who_has_loaded_what_waits_is_woken_once(stage, one):
    stage.place("job-1")
    advice(one, WARM)
    advice(one, WARM)
    assert stage.redis.llen(stage.keys.wake("one.1")) == 1


def test_who_has_loaded_another_model_draws_at_once_from_its_pool(stage, one):
    one.demand([(POOL, WARM), (OTHER, LOADING)])
    stage.redis.delete(stage.keys.wake("one.1"))
    one.demand([(POOL, WARM), (OTHER, WARM)])
    assert stage.redis.llen(stage.keys.wake("one.1")) == 1, "else nobody would ring for it there"


def test_what_it_could_load_is_noted_as_what_it_draws_from_and_in_bounds(stage, one):
    one.draw(1, [POOL], busy=False)
    for number in range(3):
        one.demand([(f"pool-{number}-{each}", COLD) for each in range(64)])
    one.demand([(OTHER, COLD)])
    evidence = QueueEvidence(stage.redis, stage.keys)
    try:
        asked = evidence.read().asked
    finally:
        evidence.close()
    assert {draws.worker for draws in asked} == {"one"}
    assert ("one", OTHER) in asked
    assert len(asked) == 64
    assert stage.redis.zrange(stage.keys.seen, 0, -1) == [b"d one"], "it was not seen to work"


def test_who_died_before_redis_s_clock_was_set_back_loads_no_longer(stage, one):
    stage.place("job-1")
    pool = f"{stage.keys.prefix}:pool:{POOL}"
    stage.redis.set(f"{pool}:loader", "dead.1", px=600_000)
    seconds, _ = stage.redis.time()
    stage.redis.zadd(f"{pool}:warm", {"dead.1": seconds * 1000 + 600_000})
    assert advice(one, COLD) is LoadAdvice.LOAD
    assert stage.redis.zcard(f"{pool}:warm") == 0


def test_what_is_noted_ends_by_itself(stage, one, two):
    stage.place("job-1")
    advice(one, WARM)
    advice(two, LOADING)
    advice(stage.worker("three.1"), SLOW)
    for kind in ("warm", "loader", "slow"):
        assert stage.redis.pttl(f"{stage.keys.prefix}:pool:{POOL}:{kind}") > 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("one.1",),
        ("one.1", 0),
        ("one 1", 1000),
        ("one.1", -1),
        ("one.1", 1000, POOL),
        ("one.1", 1000, "no pool", "cold"),
        ("one.1", 1000, POOL, "hot"),
        ("one.1", 1000, POOL, "warm", POOL, "hot"),
    ],
)
def test_what_is_no_report_is_refused_before_anything_is_noted(stage, one, arguments):
    with pytest.raises(redis.ResponseError, match="demand"):
        one._lines.run("pool/demand", *arguments)
    assert not stage.redis.exists(f"{stage.keys.prefix}:pool:{POOL}:warm")
