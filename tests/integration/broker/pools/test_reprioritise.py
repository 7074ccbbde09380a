"""A job is moved to the lane of another priority: where it stands then, and what stays as it was."""

import pytest

from support.hand_worker import growth
from support.pool_stage import POOL, Stage, draw, ids
from tether.broker.pools import lane_moves
from tether.broker.pools.lane_moves import LaneMove, MoveResult
from tether.broker.pools.room import max_waiting
from tether.jobs import JobState, Priority

INTERACTIVE, STANDARD, BATCH = Priority


@pytest.fixture
def stage(shared_redis_server, namespace):
    made = Stage(shared_redis_server, namespace)
    yield made
    made.close()


def move(stage, job_id, priority, dispatch=1):
    (answer,) = stage.pools.reprioritise_many([LaneMove(job_id, dispatch, priority)])
    return answer


def lane(stage, waiting_class, tenant="default"):
    found = stage.redis.lrange(stage.keys.pool_jobs(POOL, waiting_class, tenant), 0, -1)
    return [entry.decode().split()[0] for entry in found]


def age(stage, job_id, milliseconds):
    """Let a job have been placed so much earlier."""
    placed_at = int(stage.field(job_id, "placed_at")) - milliseconds
    stage.redis.hset(stage.keys.job(job_id), "placed_at", placed_at)
    return placed_at


def test_a_waiting_job_is_drawn_as_its_new_priority_says(stage):
    stage.place_all(["a", "b", "c"], priority=BATCH)
    stage.place("d")
    assert move(stage, "c", INTERACTIVE) is MoveResult.MOVED
    assert move(stage, "b", STANDARD) is MoveResult.MOVED
    assert move(stage, "d", BATCH) is MoveResult.MOVED
    worker = stage.worker("one.1")
    assert ids(draw(worker, 4)) == ["c", "b", "a", "d"]
    assert lane(stage, BATCH) == lane(stage, STANDARD) == lane(stage, INTERACTIVE) == []


def test_it_stands_in_its_new_lane_where_its_age_puts_it(stage):
    order = [f"job-{number}" for number in range(9)]
    stage.place_all(order[::2])
    stage.place_all(order[1::2], priority=BATCH)
    for number, job_id in enumerate(order):
        age(stage, job_id, 1_000 * (len(order) - number))
    # As lists of jobs do: the newest first.
    for job_id in order[1::2][::-1]:
        assert move(stage, job_id, STANDARD) is MoveResult.MOVED
    assert lane(stage, STANDARD) == order


def test_jobs_of_one_millisecond_stay_in_the_order_of_their_ids(stage):
    order = [f"job-{number}" for number in range(6)]
    stage.place_all(order)
    for job_id in order:
        stage.redis.hset(stage.keys.job(job_id), "placed_at", 1)
    for job_id in order[::-1]:
        move(stage, job_id, INTERACTIVE)
    assert lane(stage, INTERACTIVE) == order


def test_what_has_been_cancelled_does_not_put_it_out_of_place(stage):
    order = [f"job-{number:02}" for number in range(20)]
    stage.place_all(order)
    stage.place("late", priority=BATCH)
    stage.place("early", priority=BATCH)
    age(stage, "early", 100_000)
    for job_id in order[2:18]:
        stage.cancel(job_id)
    assert {move(stage, job_id, STANDARD) for job_id in ("late", "early")} == {MoveResult.MOVED}
    assert ids(draw(stage.worker("one.1"), 9)) == ["early", *order[:2], *order[18:], "late"]


def test_it_keeps_its_age(stage):
    stage.place("old")
    stage.place("young", priority=BATCH)
    placed_at = age(stage, "old", 500_000)
    assert move(stage, "old", BATCH) is MoveResult.MOVED
    assert int(stage.field("old", "placed_at")) == placed_at
    assert lane(stage, BATCH) == ["old", "young"]
    stage.tick(age_ms=400_000)
    assert (lane(stage, STANDARD), lane(stage, BATCH)) == (["old"], ["young"])


def test_a_batch_job_that_has_aged_stays_where_it_is_when_it_is_made_batch_again(stage):
    stage.place("a", priority=BATCH)
    stage.tick(age_ms=0)
    assert lane(stage, STANDARD) == ["a"]
    assert move(stage, "a", BATCH) is MoveResult.KNOWN
    assert move(stage, "a", STANDARD) is MoveResult.MOVED
    assert lane(stage, STANDARD) == ["a"]
    assert move(stage, "a", BATCH) is MoveResult.MOVED
    assert lane(stage, BATCH) == ["a"]


def test_the_same_again_changes_nothing(stage):
    stage.place("a")
    assert move(stage, "a", INTERACTIVE) is MoveResult.MOVED
    before = stage.redis.hgetall(stage.keys.job("a"))
    assert move(stage, "a", INTERACTIVE) is MoveResult.KNOWN
    assert stage.redis.hgetall(stage.keys.job("a")) == before
    assert lane(stage, INTERACTIVE) == ["a"]


def test_an_entry_that_stayed_in_the_old_lane_is_void(stage, monkeypatch):
    stage.place("a")
    old = stage.redis.lindex(stage.keys.pool_jobs(POOL, STANDARD, "default"), 0)
    move(stage, "a", INTERACTIVE)
    stage.redis.lpush(stage.keys.pool_jobs(POOL, STANDARD, "default"), old)
    stage.redis.zadd(stage.keys.pool_tenants(POOL, STANDARD), {"default": 0})
    assert ids(draw(stage.worker("one.1"), 2)) == ["a"]
    assert lane(stage, STANDARD) == []


def test_a_tenant_that_moves_its_jobs_gets_no_turn_for_it(stage):
    """Turns in a class count from when the tenant came there."""
    stage.place_all([f"theirs-{number}" for number in range(3)], tenant="theirs", priority=INTERACTIVE)
    worker = stage.worker("one.1")
    assert ids(draw(worker)) == ["theirs-0"]
    stage.place_all(["mine-0", "mine-1"], tenant="mine", priority=BATCH)
    for job_id in ("mine-0", "mine-1"):
        move(stage, job_id, INTERACTIVE)
    drawn = ids(draw(worker, 4))
    assert [job_id.split("-")[0] for job_id in drawn] in (
        ["mine", "theirs", "mine", "theirs"],
        ["theirs", "mine", "theirs", "mine"],
    )
    assert stage.redis.exists(stage.keys.pool_tenants(POOL, BATCH)) == 0


def test_a_running_job_goes_on_and_its_next_attempt_has_the_new_priority(stage):
    stage.place("a")
    worker = stage.worker("one.1")
    (drawn,) = draw(worker)
    served = f"{stage.keys.prefix}:served:{POOL}:"
    assert move(stage, "a", INTERACTIVE) is MoveResult.RUNNING
    assert move(stage, "a", INTERACTIVE) is MoveResult.KNOWN
    assert worker.append_many([growth(drawn, 3)])[0].answer == "ok"
    assert float(stage.redis.hget(served + "standard", "t:default")) == 1 + 2 * 3
    assert not stage.redis.exists(served + "interactive")
    stage.lose("a")
    assert (lane(stage, STANDARD), lane(stage, INTERACTIVE)) == ([], ["a"])
    assert move(stage, "a", INTERACTIVE) is MoveResult.KNOWN


def test_a_running_job_that_is_given_its_old_priority_again_keeps_it(stage):
    stage.place("a")
    draw(stage.worker("one.1"))
    move(stage, "a", INTERACTIVE)
    assert move(stage, "a", STANDARD) is MoveResult.RUNNING
    stage.lose("a")
    assert lane(stage, STANDARD) == ["a"]


def test_what_must_run_alone_does_so_at_its_new_priority(stage):
    stage.place_all(["a", "b"])
    for name in ("one.1", "two.1"):
        worker = stage.worker(name)
        draw(worker, 2)
        stage.die(worker)
    assert sorted(lane(stage, "alone.standard")) == ["a", "b"]
    group = stage.field("a", "group")
    assert move(stage, "a", INTERACTIVE) is MoveResult.MOVED
    assert (lane(stage, "alone.standard"), lane(stage, "alone.interactive")) == (["b"], ["a"])
    assert lane(stage, INTERACTIVE) == []
    assert stage.field("a", "group") == group != ""
    stage.be_patient()
    drawn = draw(stage.worker("three.1"))
    assert [(job.job_id, job.alone) for job in drawn] == [("a", True)]


def test_another_dispatch_and_what_has_ended_stay_as_they_are(stage):
    stage.place("a", dispatch=2)
    before = stage.redis.hgetall(stage.keys.job("a"))
    assert [move(stage, "a", BATCH, dispatch) for dispatch in (1, 3)] == [MoveResult.UNKNOWN] * 2
    assert stage.redis.hgetall(stage.keys.job("a")) == before
    assert move(stage, "nobody", BATCH) is MoveResult.UNKNOWN
    assert not stage.redis.exists(stage.keys.job("nobody"))
    stage.cancel("a")
    assert move(stage, "a", BATCH, 2) is MoveResult.CANCELLED
    stage.place("b")
    worker = stage.worker("one.1")
    worker.finish(growth(*draw(worker), 1))
    assert move(stage, "b", BATCH) is MoveResult.SUCCEEDED
    stage.place("c")
    stage.pools.withdraw_many([("c", 1)], running=False)
    assert move(stage, "c", BATCH) is MoveResult.WITHDRAWN


@pytest.mark.parametrize("field", ["ticket", "placed_at", "pool", "tenant", "priority"])
def test_what_cannot_be_read_is_told_and_costs_no_other(stage, field):
    stage.place_all(["a", "b"])
    stage.redis.hset(stage.keys.job("a"), mapping={field: "", "asked": "standard"})
    stage.redis.set(stage.keys.job("c"), "no hash")
    moves = [LaneMove(job_id, 1, INTERACTIVE) for job_id in "acb"]
    assert stage.pools.reprioritise_many(moves) == ["unreadable", "unknown", "moved"]
    assert lane(stage, INTERACTIVE) == ["b"]


def test_a_key_of_another_type_is_thrown_away(stage):
    stage.place("a")
    stage.redis.set(stage.keys.pool_jobs(POOL, INTERACTIVE, "default"), "no list")
    stage.redis.set(stage.keys.pool_tenants(POOL, INTERACTIVE), "no set")
    assert move(stage, "a", INTERACTIVE) is MoveResult.MOVED
    assert ids(draw(stage.worker("one.1"))) == ["a"]


def test_a_full_lane_takes_no_more(stage, monkeypatch):
    """Else a tenant would fill Redis by moving on what was placed."""
    stage.pools.room.lane_bytes = 1
    most = lane_moves.MOVED_LANE_SHARE * max_waiting(1)
    stage.place_all([f"job-{number}" for number in range(most)], priority=INTERACTIVE)
    stage.place("a")
    assert move(stage, "a", INTERACTIVE) is MoveResult.FULL
    assert lane(stage, STANDARD) == ["a"]
    draw(stage.worker("one.1"))
    assert move(stage, "a", INTERACTIVE) is MoveResult.MOVED


def test_a_job_that_an_older_version_placed_is_moved_too(stage):
    stage.place("a")
    stage.redis.hdel(stage.keys.job("a"), "asked", "next")
    assert move(stage, "a", STANDARD) is MoveResult.KNOWN
    assert move(stage, "a", INTERACTIVE) is MoveResult.MOVED
    assert stage.pools.known(["a"])[0].asked == INTERACTIVE
    draw(stage.worker("one.1"))
    assert stage.field("a", "state") == JobState.RUNNING


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", 1, "urgent", 0),
        ("a", -1, "batch", 0),
        ("a", 1, "batch"),
        ("", 1, "batch", 0),
        ("a", 1, "batch", "x"),
    ],
)
def test_what_no_program_of_ours_asks_is_refused(stage, arguments):
    stage.place("a")
    answer = stage.pools._lines.run_many("pool/reprioritise", [arguments])[0]
    assert str(answer).startswith("INVALID")


def test_what_has_aged_into_a_lane_says_nothing_of_a_place_in_it(stage):
    stage.place_all([f"s-{n}" for n in range(5)])
    for n in range(5):
        age(stage, f"s-{n}", 10_000 - n)
    stage.place_all([f"b-{n}" for n in range(8)], priority=BATCH)
    for n in range(8):
        age(stage, f"b-{n}", 900_000 - n)
    stage.redis.zadd(f"{stage.keys.prefix}:core:aging", {f"{POOL} batch default": 1})
    for _ in range(10):
        stage.tick(age_ms=600_000)
    # They came to the end of the lane, though they are the oldest.
    assert lane(stage, STANDARD).index("b-0") > lane(stage, STANDARD).index("s-4")
    stage.place("mine", priority=BATCH)
    age(stage, "mine", 300_000)
    assert move(stage, "mine", STANDARD) is MoveResult.MOVED
    assert lane(stage, STANDARD).index("mine") < lane(stage, STANDARD).index("s-0")


AGED = 100
"""More than entries of which nothing is known are passed over for one of which something is."""


def put_aged_before(stage, *later):
    """A lane in which many jobs have aged, before jobs that were placed later still."""
    old = [f"b-{number:03}" for number in range(AGED)]
    stage.place_all(old, priority=BATCH)
    for job_id in old:
        age(stage, job_id, 900_000)
    aging = f"{stage.keys.prefix}:core:aging"
    while stage.redis.exists(stage.keys.pool_jobs(POOL, BATCH, "default")):
        stage.redis.zadd(aging, {f"{POOL} batch default": 1})
        stage.tick(age_ms=600_000)
    for job_id in later:
        stage.place(job_id)
    return old


def test_many_that_aged_into_a_lane_do_not_put_what_is_older_than_all_there_behind_them(stage):
    stage.place("before")
    age(stage, "before", 500_000)
    old = put_aged_before(stage, "after")
    age(stage, "after", -1_000_000)
    stage.place_all(["mine", "yours"], priority=BATCH)
    age(stage, "mine", 300_000)
    age(stage, "yours", -500_000)
    for job_id in ("mine", "yours"):
        assert move(stage, job_id, STANDARD) is MoveResult.MOVED
    assert lane(stage, STANDARD) == ["before", "mine", *old, "yours", "after"]


def test_many_that_were_cancelled_do_not_put_a_job_out_of_place(stage):
    order = [f"job-{number:03}" for number in range(3 * AGED)]
    stage.place_all(order)
    for number, job_id in enumerate(order):
        age(stage, job_id, 1_000 * (len(order) - number))
    for job_id in order[AGED:-AGED]:
        stage.cancel(job_id)
    stage.place("mine", priority=BATCH)
    stage.redis.hset(stage.keys.job("mine"), "placed_at", int(stage.field(order[0], "placed_at")) + 1)
    assert move(stage, "mine", STANDARD) is MoveResult.MOVED
    assert ids(draw(stage.worker("one.1"), 2)) == [order[0], "mine"]


def test_what_redis_has_lost_of_many_is_placed_by_their_ids(stage):
    order = [f"job-{number:03}" for number in range(3 * AGED)]
    stage.place_all(order)
    stage.redis.delete(*(stage.keys.job(job_id) for job_id in order[AGED:-AGED]))
    stage.place("job-0", priority=BATCH)
    age(stage, "job-0", 100_000)
    assert move(stage, "job-0", STANDARD) is MoveResult.MOVED
    assert lane(stage, STANDARD)[0] == "job-0"


def as_an_older_version_hands_back(stage, job_id):
    """Its scripts know nothing of what is to follow: a worker that speaks them releases its job."""
    following = stage.field(job_id, "next")
    stage.redis.hset(stage.keys.job(job_id), "next", "")
    stage.lose(job_id)
    stage.redis.hset(stage.keys.job(job_id), "next", following)


def test_a_job_that_an_older_version_hands_back_is_given_its_priority_again(stage):
    stage.place("a")
    draw(stage.worker("one.1"))
    move(stage, "a", INTERACTIVE)
    assert stage.pools.known(["a"])[0].asked == INTERACTIVE
    as_an_older_version_hands_back(stage, "a")
    assert (lane(stage, STANDARD), lane(stage, INTERACTIVE)) == (["a"], [])
    # Whoever compares it with its row sees that it does not have it.
    assert stage.pools.known(["a"])[0].asked == STANDARD
    assert move(stage, "a", INTERACTIVE) is MoveResult.MOVED
    assert (lane(stage, STANDARD), lane(stage, INTERACTIVE)) == ([], ["a"])
    assert stage.pools.known(["a"])[0].asked == INTERACTIVE


def test_a_job_that_an_older_version_hands_back_is_where_its_old_priority_wants_it(stage):
    stage.place("a")
    draw(stage.worker("one.1"))
    move(stage, "a", INTERACTIVE)
    as_an_older_version_hands_back(stage, "a")
    assert move(stage, "a", STANDARD) is MoveResult.KNOWN
    assert ids(draw(stage.worker("two.1"))) == ["a"]
    stage.lose("a")
    assert (lane(stage, STANDARD), lane(stage, INTERACTIVE)) == (["a"], [])


def test_what_is_left_in_a_lane_of_a_job_that_redis_lost_is_no_place_in_it(stage):
    stage.place("a", priority=INTERACTIVE)
    stage.place("b")
    stage.redis.delete(stage.keys.job("a"))
    assert move(stage, "a", BATCH) is MoveResult.UNKNOWN
    assert not stage.redis.exists(stage.keys.job("a"))
    assert (lane(stage, INTERACTIVE), lane(stage, BATCH)) == (["a"], [])
    stage.place("a", priority=BATCH, lossy=True)
    assert ids(draw(stage.worker("one.1"), 9)) == ["b", "a"]
    assert lane(stage, INTERACTIVE) == lane(stage, BATCH) == []
