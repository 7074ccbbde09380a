"""Workers that fail what others do: who is held back, from whose jobs, and how it comes back."""

import itertools
import json

import pytest

from support.hand_worker import growth
from support.pool_stage import OTHER, POOL, Stage, draw, ids
from tether.jobs import JobError

BROKEN = JobError("engine_failed", "the device is gone", retryable=True)
BAD_REQUEST = JobError("invalid_request", "no such template", retryable=False)
FAILURES = 5


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


def fail(worker, job, error=BROKEN):
    worker.fail(growth(job), kind="failed", error=error)


def fail_jobs(stage, worker, names, *, error=BROKEN, **changes):
    """Let a worker draw and fail jobs, one after the other; return those that it drew."""
    drawn = []
    for name in names:
        stage.place(name, **changes)
        for job in draw(worker, pools=(changes.get("pool", POOL),)):
            drawn.append(job.job_id)
            fail(worker, job, error)
    return drawn


def succeed(stage, worker, name, **changes):
    stage.place(name, **changes)
    (job,) = draw(worker)
    worker.finish(growth(job))


def record(stage, worker_id, pool=POOL):
    text = stage.redis.hget(stage.keys.worker_health(worker_id), pool)
    return text and json.loads(text)


def end_pause(stage, worker_id, pool=POOL):
    """Let the pause of a held worker be over."""
    held = record(stage, worker_id, pool)
    stage.redis.hset(stage.keys.worker_health(worker_id), pool, json.dumps({**held, "until_ms": 1}))


def names(prefix, count=FAILURES):
    return [f"{prefix}{number}" for number in range(count)]


def test_a_retry_goes_to_another_worker_than_those_that_failed_it_while_one_lives(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    assert draw(broken) == draw(good) == []
    stage.place("j", failed_on="b x")
    assert draw(broken) == []
    assert ids(draw(good)) == ["j"]


def test_a_retry_is_drawn_by_the_worker_that_failed_it_where_no_other_serves_the_pool(stage):
    broken, elsewhere, failed_too = (stage.worker(name) for name in ("b.1", "e.1", "f.1"))
    assert draw(elsewhere, pools=(OTHER,)) == draw(failed_too) == []
    stage.place("j", failed_on="b f")
    assert ids(draw(broken)) == ["j"]


def test_a_retry_waits_for_another_worker_no_longer_than_a_minute(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(broken), draw(good)
    stage.place("j", failed_on="b")
    stage.redis.hset(stage.keys.job("j"), "placed_at", int(stage.field("j", "placed_at")) - 60_001)
    assert ids(draw(broken)) == ["j"]


def test_jobs_that_a_worker_failed_keep_it_from_no_other_tenant_s_and_are_looked_at_within_bounds(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(broken), draw(good)
    stage.place_all(names("failed", 300), failed_on="b")
    stage.place("own", tenant="another")
    assert ids(draw(broken, 8)) == ["own"]
    assert draw(broken, 8) == []
    assert len(draw(good, 300)) == 300


def test_a_retry_wakes_the_one_worker_that_has_not_failed_it(stage):
    others = [f"w{number}" for number in range(7)]
    workers = [stage.worker(f"{name}.1") for name in ("b", *others)]
    for number in range(5):
        for worker in workers:
            draw(worker, 4)
        stage.place(f"j-{number}", failed_on=" ".join(others))
        assert stage.redis.llen(stage.keys.wake("b.1")) == number + 1


def test_who_is_woken_first_is_a_matter_of_chance(stage):
    workers = [stage.worker(f"w{number}.1") for number in range(4)]
    for number in range(100):
        for worker in workers:
            draw(worker, 4)
        stage.place(f"j-{number}")
    rung = [stage.redis.llen(stage.keys.wake(worker.boot_id)) for worker in workers]
    assert sum(rung) == 100
    assert min(rung) > 0


def test_a_worker_that_fails_so_many_jobs_while_another_succeeds_gets_one_at_a_time(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    first, *others = names("j")
    assert fail_jobs(stage, broken, [first]) == [first]
    succeed(stage, good, "ok")
    assert fail_jobs(stage, broken, others) == others
    assert fail_jobs(stage, broken, ["next"]) == []
    end_pause(stage, "b")
    stage.place("more")
    assert ids(draw(broken, 2)) == ["next"]
    # While that runs, no other comes, however long it takes.
    end_pause(stage, "b")
    assert draw(broken) == []


def test_pauses_grow_until_a_job_succeeds(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(good)
    fail_jobs(stage, broken, names("j", 1))
    succeed(stage, good, "ok")
    fail_jobs(stage, broken, names("k", FAILURES - 1))
    pauses = [record(stage, "b")["pause"]]
    for number in range(7):
        end_pause(stage, "b")
        assert fail_jobs(stage, broken, [f"probe{number}"]) == [f"probe{number}"]
        pauses.append(record(stage, "b")["pause"])
    assert pauses == [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
    end_pause(stage, "b")
    succeed(stage, broken, "well")
    assert record(stage, "b") is None
    stage.place_all(names("l", 3))
    assert len(draw(broken, 3)) == 3


def test_where_nobody_succeeds_it_takes_twice_as_many_jobs(stage):
    alone = stage.worker("b.1")
    assert len(fail_jobs(stage, alone, names("j", 2 * FAILURES + 1))) == 2 * FAILURES
    assert len(draw(stage.worker("g.1"), 10)) == 1


def test_the_same_job_again_and_again_says_nothing_of_the_worker(stage):
    alone = stage.worker("b.1")
    for number in range(1, 40):
        stage.place("same", dispatch=number)
        (job,) = draw(alone)
        fail(alone, job)
    assert record(stage, "b")["pause"] == 0


def fail_in_turn(stage, worker, names, attempts):
    """Let a worker fail the same jobs again and again; return how many attempts it was given."""
    numbers = {name: itertools.count(1) for name in names}
    for name in itertools.islice(itertools.cycle(names), attempts):
        stage.place(name, dispatch=next(numbers[name]))
        for job in draw(worker):
            fail(worker, job)
    return stage.redis.xlen(stage.keys.outcomes)


@pytest.mark.parametrize(("jobs", "needed"), [(2, 10), (3, 10), (6, 18), (9, 27)])
def test_where_nobody_succeeds_few_jobs_that_fail_again_and_again_hold_their_worker_too(stage, jobs, needed):
    # However slow this machine is: no pause is over.
    stage.redis.hset(stage.keys.worker_health_settings, "pause", 3_600_000)
    assert fail_in_turn(stage, stage.worker("b.1"), names("j", jobs), needed + 3) == needed


def test_an_outcome_says_that_a_held_worker_failed_its_probe(stage):
    alone = stage.worker("b.1")
    fail_jobs(stage, alone, names("j", 2 * FAILURES))
    end_pause(stage, "b")
    assert fail_jobs(stage, alone, ["probe"]) == ["probe"]
    end_pause(stage, "b")
    assert fail_jobs(stage, alone, ["bad"], error=BAD_REQUEST) == ["bad"]
    end_pause(stage, "b")
    outcomes = stage.redis.xrange(stage.keys.outcomes)
    said = {fields[b"job"].decode(): fields[b"probe"] for _, fields in outcomes}
    assert {job for job, probe in said.items() if probe == b"1"} == {"probe"}
    assert len(said) == 2 * FAILURES + 2


def test_what_the_request_is_to_blame_for_counts_for_no_worker(stage):
    worker = stage.worker("b.1")
    assert len(fail_jobs(stage, worker, names("j", 40), error=BAD_REQUEST)) == 40
    assert record(stage, "b") is None


def test_a_tenant_whose_jobs_fail_everywhere_costs_no_other_tenant_anything(stage):
    workers = [stage.worker("a.1"), stage.worker("b.1")]
    for worker in workers:
        draw(worker)
    for worker in workers:
        fail_jobs(stage, worker, names(worker.boot_id, 40), tenant="poison")
        assert record(stage, worker.boot_id[0])["pause"] > 0
    for worker in workers:
        # However slow this machine is: no pause is over yet.
        held = record(stage, worker.boot_id[0])
        pause = {"pause": 10**7, "until_ms": held["at"] + 10**7}
        stage.redis.hset(stage.keys.worker_health(worker.boot_id[0]), POOL, json.dumps({**held, **pause}))
    stage.place_all(names("good", 50), tenant="another")
    for worker in workers:
        jobs = draw(worker, 25)
        assert [job.tenant for job in jobs] == ["another"] * 25
        for job in jobs:
            worker.finish(growth(job))


def test_who_fails_jobs_of_several_tenants_while_others_succeed_is_held_from_all(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(good)
    fail_jobs(stage, broken, names("j", 2), tenant="one")
    succeed(stage, good, "ok")
    fail_jobs(stage, broken, names("k", 3), tenant="two")
    stage.place("third", tenant="three")
    assert draw(broken) == []
    assert ids(draw(good)) == ["third"]


def test_a_held_worker_is_not_woken_for_what_it_may_not_have(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(good)
    fail_jobs(stage, broken, names("j", 2))
    succeed(stage, good, "ok")
    fail_jobs(stage, broken, names("k", 3))
    assert draw(broken) == draw(good) == []
    for key in ("b.1", "g.1"):
        stage.redis.delete(stage.keys.wake(key))
    stage.place_all(names("l", 2))
    assert stage.redis.llen(stage.keys.wake("b.1")) == 0
    assert stage.redis.llen(stage.keys.wake("g.1")) == 1


def test_a_held_worker_is_told_when_to_draw_again(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(good)
    fail_jobs(stage, broken, names("j", 2))
    succeed(stage, good, "ok")
    fail_jobs(stage, broken, names("k", 3))
    assert 0 < broken.draw(1, (POOL,), busy=False).again_in_ms <= 1000


def test_a_worker_is_held_from_one_pool_and_serves_its_others(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(good)
    fail_jobs(stage, broken, names("j", 2))
    succeed(stage, good, "ok")
    fail_jobs(stage, broken, names("k", 3))
    stage.place("here")
    stage.place("there", pool=OTHER)
    assert ids(draw(broken, 2, pools=(POOL, OTHER))) == ["there"]


def test_the_next_life_of_a_worker_is_held_too(stage):
    broken, good = stage.worker("b.1"), stage.worker("g.1")
    draw(good)
    fail_jobs(stage, broken, names("j", 2))
    succeed(stage, good, "ok")
    fail_jobs(stage, broken, names("k", 3))
    stage.place("next")
    assert draw(stage.worker("b.2")) == []


def test_settings_of_the_orchestrator_count(stage):
    stage.redis.hset(
        stage.keys.worker_health_settings, mapping={"failures": 2, "pause": 300, "max_pause": 500}
    )
    alone = stage.worker("b.1")
    assert len(fail_jobs(stage, alone, names("j", 20))) == 4
    assert record(stage, "b")["pause"] == 300
    end_pause(stage, "b")
    fail_jobs(stage, alone, ["probe"])
    assert record(stage, "b")["pause"] == 500


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"no JSON", b'{"jobs":{},"tenants":3}', b"\xff"])
def test_what_cannot_be_read_holds_nobody(stage, text):
    worker = stage.worker("b.1")
    stage.redis.hset(stage.keys.worker_health("b"), POOL, text)
    assert fail_jobs(stage, worker, names("j")) == names("j")
    assert record(stage, "b")["count"] == FAILURES
