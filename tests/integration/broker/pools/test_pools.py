"""The scripts of pool jobs, each promise by itself. The state machine drives them together."""

import re
import threading

import pytest

from support.hand_worker import growth
from support.paths import ROOT
from support.pieces import read_pieces
from support.planted_bugs import plant
from support.pool_stage import AGE_MS, LEASE_MS, OTHER, POOL, Stage, draw, ids
from support.waiting import join
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.room import MIN_LIFE_MS
from tether.broker.pools.waiting_lanes import LaneKey, LaneLoad
from tether.broker.pools.worker_port import Growth, Pulse, WriteStatus
from tether.broker.redis.connections import RefusedForNow
from tether.broker.redis.raw_connections import RawConnections
from tether.broker.scripts import BROKER_SCRIPTS
from tether.errors import EpochChanged
from tether.jobs import JobError, JobState, Priority


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


def test_a_job_goes_from_placed_to_its_outcome(stage):
    stage.place("a")
    worker = stage.worker("w")
    (job,) = draw(worker)
    assert (job.job_id, job.fence.dispatch, job.fence.attempt, job.fence.draw_id) == ("a", 1, 1, "w:1")
    worker.append(growth(job, 2))
    written = worker.finish(growth(job, 1, offset=2), input_tokens=7, reason="length")
    assert (written.answer, written.offset) == (WriteStatus.OK, 3)
    assert stage.events("a") == ["started", "delta", "delta", "finished"]
    assert len(read_pieces(stage.redis.xrange(stage.keys.stream("a")), 0)) == 3
    assert stage.outcomes() == [("a", "succeeded")]
    assert stage.redis.zcard(stage.keys.leases) == 0


def test_a_dispatch_is_placed_once_and_a_newer_one_takes_its_place(stage):
    stage.place("a")
    stage.place("a", expect=PlaceResult.KNOWN)
    worker = stage.worker("w")
    (former,) = draw(worker)
    stage.place("a", dispatch=2)
    worker.append(growth(former, 1), expect=WriteStatus.FENCED)
    (job,) = draw(worker)
    assert job.fence.dispatch == 2
    stage.place("a", dispatch=1, expect=PlaceResult.KNOWN)


def test_scripts_carry_fields_that_they_do_not_know(stage):
    lines = RawConnections.like(stage.redis, stage.keys.leases)
    kept = ("weight", 1.0, "deadline", 0, "cost", 1, "body", "{}", "flavour", "sour")
    assert lines.run("pool/place", "a", 1, POOL, "default", "standard", 0, 0, *kept) == b"placed"
    for again in (0, 1):
        asked = (1, "w", 1, 1, LEASE_MS, again, 0, "process", 0, 3, "flavour", "body", "absent")
        _, _, (job_id, *attempt, fields, made) = lines.run("pool/draw", *asked, POOL)
        assert (job_id, fields, made) == (b"a", [b"sour", b"{}", None], [])
        assert attempt == [b"1", b"1", b"w:1", b"0", b"0", b"0", b"0", b"0"]
    lines.close()


def test_a_script_that_redis_does_not_know_runs_all_the_same(stage):
    stage.redis.script_flush()
    stage.place("a")
    stage.redis.script_flush()
    arguments = (LEASE_MS, AGE_MS, 1, AGE_MS, 100)
    assert BROKER_SCRIPTS.run(stage.redis, "pool/expire", stage.keys.leases, *arguments) == [0, 0]
    assert stage.redis.script_exists(BROKER_SCRIPTS.sha1("pool/expire")) == [True]


def test_a_busy_worker_draws_nothing_while_redis_has_no_memory_left(stage):
    stage.place("a")
    worker = stage.worker("w")
    stage.redis.config_set("maxmemory", 1)
    try:
        full = worker.draw(1, [POOL], busy=True)
        assert (full.jobs, full.again_in_ms) == ((), 500)
        assert ids(draw(worker, 1)) == ["a"], "something must run, or nothing ends"
    finally:
        stage.redis.config_set("maxmemory", 0)
    stage.place("b")
    assert ids(draw(worker, 1, busy=True)) == ["b"]


def test_no_more_jobs_than_may_wait_in_its_lane_before_it(stage):
    def place(job_id, most=5, **changes):
        given = {"pool": POOL, "tenant": "default", "priority": Priority.STANDARD, "weight": 1.0}
        given |= {"deadline": 0, "cost": 1, "body": b"{}", "dispatch": 1} | changes
        [answer] = stage.pools.place([Dispatch(job_id=job_id, **given)], max_waiting=lambda _: most)
        return answer

    assert [place(f"a-{i}") for i in range(7)] == [PlaceResult.PLACED] * 5 + [PlaceResult.FULL] * 2
    assert stage.redis.exists(stage.keys.job("a-5")) == 0, "what is refused leaves nothing behind"
    assert place("a-0") == PlaceResult.KNOWN
    assert place("more", most=6) == PlaceResult.PLACED
    # Other lanes are others'.
    assert place("b", tenant="other") == PlaceResult.PLACED
    assert place("c", priority=Priority.BATCH) == PlaceResult.PLACED
    assert place("d", pool=OTHER) == PlaceResult.PLACED
    draw(stage.worker("w"), 3)
    assert place("a-5") == PlaceResult.PLACED


def contents(stage):
    """All that is stored. Redis dumps the same hash in another order while it gives that more room."""
    keys = sorted(stage.redis.scan_iter(f"{stage.keys.prefix}:*"))
    return {
        key: stage.redis.hgetall(key) if stage.redis.type(key) == b"hash" else stage.redis.dump(key)
        for key in keys
    }


def test_how_much_waits_in_lanes_is_told_by_jobs_and_bytes(stage):
    for i in range(100):
        stage.place(f"a-{i}", body=b"x" * (1_000 if i % 2 else 3_000))
    stage.place("b", tenant="other", body=b"x" * 10)
    stage.redis.set(stage.keys.pool_jobs(POOL, Priority.STANDARD, "odd"), "no list")
    stage.redis.rpush(stage.keys.pool_jobs(POOL, Priority.STANDARD, "lost"), "gone 1", "odd", "b 1")
    lanes = [LaneKey(POOL, Priority.STANDARD, tenant) for tenant in ("default", "other", "odd", "lost", "no")]
    before = contents(stage)
    many, *others = stage.pools.waiting(lanes)
    assert (many.jobs, 100_000 <= many.body_bytes <= 300_000) == (100, True)
    assert others == [LaneLoad(1, 10), LaneLoad(0, 0), LaneLoad(3, 15), LaneLoad(0, 0)]
    assert stage.pools.waiting([]) == []
    assert contents(stage) == before


def test_priorities_come_before_pools(stage):
    stage.place("batch", priority=Priority.BATCH)
    stage.place("standard", pool=OTHER)
    stage.place("interactive", pool=OTHER, priority=Priority.INTERACTIVE)
    assert ids(draw(stage.worker("w"), 3, (POOL, OTHER))) == ["interactive", "standard", "batch"]


def test_a_pool_that_is_never_empty_does_not_starve_another(stage):
    for i in range(8):
        stage.place(f"a-{i}")
        stage.place(f"b-{i}", pool=OTHER)
    worker = stage.worker("w")
    drawn = [job.pool for _ in range(8) for job in draw(worker, 1, (POOL, OTHER))]
    assert drawn.count(POOL) == drawn.count(OTHER) == 4


def test_a_pool_does_not_starve_another_whose_number_divides_what_is_drawn(stage):
    for i in range(8):
        stage.place(f"a-{i}")
        stage.place(f"b-{i}", pool=OTHER)
    worker = stage.worker("w")
    drawn = [job.pool for _ in range(4) for job in draw(worker, 2, (POOL, OTHER))]
    assert drawn.count(POOL) == drawn.count(OTHER) == 4


def test_a_dead_worker_in_the_idle_set_is_passed_over(stage):
    dead, living = stage.worker("dead"), stage.worker("living")
    assert draw(dead) == []
    assert draw(living) == []
    stage.redis.delete(f"{stage.keys.prefix}:idle:dead")
    stage.place("a")
    assert stage.redis.llen(stage.keys.wake("living")) == 1


def test_idle_workers_are_woken_in_no_fixed_order(stage):
    workers = [stage.worker(f"w{i}") for i in range(2)]
    woken = set()
    for i in range(40):
        for worker in workers:
            draw(worker, 5)
        stage.redis.delete(*(stage.keys.wake(worker.boot_id) for worker in workers))
        stage.place(f"job-{i}")
        woken |= {w.boot_id for w in workers if stage.redis.llen(stage.keys.wake(w.boot_id))}
    assert woken == {"w0", "w1"}


def test_an_outcome_can_be_handed_back_once_more(stage):
    worker = stage.worker("w")
    stage.place("a")
    assert stage.pools.hand_back_many([("a", 1)]) == ["placed"]
    (job,) = draw(worker)
    worker.finish(growth(job, 1), input_tokens=1, reason="stop")
    stage.redis.delete(stage.keys.outcomes)
    assert stage.pools.hand_back_many([("a", 2)]) == ["succeeded"]
    assert stage.outcomes() == []
    assert stage.pools.hand_back_many([("a", 1)]) == ["succeeded"]
    assert stage.outcomes() == [("a", "succeeded")]


def test_attempts_go_on_and_end_when_redis_has_no_memory_left(redis_server):
    stage = Stage(redis_server, "full")
    try:
        worker = stage.worker("w")
        for name in ("finished", "failed", "released", "cancelled", "waiting"):
            stage.place(name)
        jobs = {job.job_id: job for job in draw(worker, 4)}
        stage.redis.config_set("maxmemory", 1)
        worker.append(growth(jobs["finished"], 1))
        worker.beat([Pulse("finished", jobs["finished"].fence, True)])
        assert stage.cancel("cancelled") == "running"
        assert stage.cancel("waiting") == "closed"
        worker.finish(growth(jobs["finished"], 1, offset=1))
        worker.fail(growth(jobs["failed"], 1), kind="failed", error=JobError("engine_failed", "no"))
        worker.fail(growth(jobs["cancelled"]), kind="cancelled", error=JobError("cancelled", ""))
        worker.release(growth(jobs["released"], 1))
        stage.pools.tick(LEASE_MS, AGE_MS)
        # What would only add to it is refused.
        with pytest.raises(RefusedForNow):
            stage.place("new")
        # What ended makes room sooner then.
        ends = [("finished", JobState.SUCCEEDED, None), ("failed", JobState.DEAD, None)]
        stage.pools.seal_many(ends, 60_000)
        for name in ("finished", "failed"):
            assert 0 < stage.redis.pttl(stage.keys.job(name)) <= MIN_LIFE_MS
        stage.redis.config_set("maxmemory", 0)
        assert sorted(stage.outcomes()) == [
            ("cancelled", "cancelled"),
            ("failed", "failed"),
            ("finished", "succeeded"),
        ]
        assert ids(draw(stage.worker("w2"))) == ["released"]
    finally:
        stage.redis.config_set("maxmemory", 0)
        stage.close()


SCRIPTS = {file.stem: file for file in (ROOT / "tether/broker/lua/pool").glob("*.lua")}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_only_what_adds_a_job_or_begins_one_is_refused_at_the_memory_limit(name):
    lines = SCRIPTS[name].read_text().splitlines()
    passes = next(line for line in lines if not line.startswith("--")) == "pass_memory_limit()"
    assert passes is (name not in ("place", "draw", "submit", "waiting"))


def test_old_batch_jobs_count_as_standard_ones(stage):
    stage.place("old", priority=Priority.BATCH)
    stage.tick(age_ms=0)
    stage.place("new")
    assert ids(draw(stage.worker("w"), 2)) == ["old", "new"]


def test_old_batch_jobs_of_every_tenant_count_as_standard_ones(stage):
    for i in range(400):
        stage.place(f"old-{i}", tenant=f"tenant-{i}", priority=Priority.BATCH)
    for i in range(5):
        stage.place(f"more-{i}", tenant="tenant-0", priority=Priority.BATCH)
    for _ in range(4):
        stage.tick(age_ms=0)
    assert stage.redis.zcard(stage.keys.pool_tenants(POOL, Priority.STANDARD)) == 400
    for _ in range(5):
        stage.tick(age_ms=0)
    assert not stage.redis.exists(stage.keys.pool_tenants(POOL, Priority.BATCH))
    assert not stage.redis.exists(f"{stage.keys.prefix}:core:aging")


def test_batch_jobs_that_an_older_version_left_grow_old_once_the_sweep_came_by(stage):
    stage.place("a", tenant="with space", priority=Priority.BATCH)
    stage.redis.delete(f"{stage.keys.prefix}:core:aging")
    stage.tick(age_ms=0)
    assert stage.field("a", "priority") == "batch"
    assert stage.pools.tidy("tenants", POOL, "batch", "with space") == (0, 1)
    stage.tick(age_ms=0)
    assert stage.field("a", "priority") == "standard"


def test_tenants_share_a_pool_by_the_tokens_that_they_were_served(stage):
    for i in range(6):
        stage.place(f"greedy-{i}", tenant="greedy", cost=10)
    for i in range(3):
        stage.place(f"modest-{i}", tenant="modest", cost=10)
    worker = stage.worker("w")
    tenants = [job.tenant for job in draw(worker, 6)]
    assert tenants.count("greedy") == tenants.count("modest") == 3


def test_a_heavier_tenant_gets_more(stage):
    for i in range(9):
        stage.place(f"heavy-{i}", tenant="heavy", cost=10, weight=2.0)
        stage.place(f"light-{i}", tenant="light", cost=10, weight=1.0)
    tenants = [job.tenant for job in draw(stage.worker("w"), 9)]
    assert tenants.count("heavy") == 6


def test_generated_tokens_count(stage):
    worker = stage.worker("w")
    stage.place("a-1", tenant="a", cost=1)
    (job,) = draw(worker)
    stage.place("a-2", tenant="a", cost=1)
    stage.place("b-1", tenant="b", cost=1)
    worker.append(growth(job, 50))
    assert ids(draw(worker, 2)) == ["b-1", "a-2"]


def test_a_tenant_gets_no_credit_for_having_been_away(stage):
    worker = stage.worker("w")
    for i in range(5):
        stage.place(f"busy-{i}", tenant="busy", cost=100)
    assert len(draw(worker, 3)) == 3
    for i in range(5):
        stage.place(f"back-{i}", tenant="back", cost=100)
    tenants = [job.tenant for job in draw(worker, 4)]
    assert tenants.count("back") == 2


def give_back_more_than_is_left(stage):
    """A tenant was drawn at a high estimate, the other was served meanwhile. Return whose jobs come next."""
    worker = stage.worker("w")
    stage.place("guessed", tenant="a", cost=1_000)
    (job,) = draw(worker)
    for i in range(12):
        stage.place(f"b-{i}", tenant="b", cost=100)
    assert {one.tenant for one in draw(worker, 6)} == {"b"}
    for i in range(12):
        stage.place(f"a-{i}", tenant="a", cost=100)
    worker.finish(growth(job, 1), input_tokens=1)
    return [one.tenant for one in draw(worker, 6)]


def test_an_estimate_that_was_too_high_leaves_no_credit(stage):
    assert give_back_more_than_is_left(stage) == ["a", "a", "b", "a", "b", "a"]


@pytest.mark.mutants
def test_credit_for_an_estimate_is_found(stage, monkeypatch):
    bound = "field, math.max(own - tokens, floor)", "'XX', math.max(own - tokens, floor)"
    plant(
        monkeypatch,
        *(("finish", each, each.replace("math.max(own - tokens, floor)", "own - tokens")) for each in bound),
    )
    assert give_back_more_than_is_left(stage) == ["a"] * 6


def test_one_placement_wakes_one_idle_worker(stage):
    workers = [stage.worker(f"w{i}") for i in range(3)]
    for worker in workers:
        assert draw(worker) == []
    stage.place("a")
    woken = [w for w in workers if stage.redis.llen(stage.keys.wake(w.boot_id))]
    assert len(woken) == 1
    stage.place("b")
    assert sum(stage.redis.llen(stage.keys.wake(w.boot_id)) for w in workers) == 2


def test_a_worker_that_waits_for_several_pools_is_woken_for_one(stage):
    waiting, other = stage.worker("waiting"), stage.worker("other")
    assert draw(waiting, pools=(POOL, OTHER)) == []
    stage.place("a")
    assert draw(other, pools=(OTHER,)) == []
    stage.place("b", pool=OTHER)
    assert stage.redis.llen(stage.keys.wake("waiting")) == 1
    assert stage.redis.llen(stage.keys.wake("other")) == 1


def test_a_waiting_worker_draws_what_is_placed(stage):
    worker = stage.worker("w")
    assert draw(worker) == []
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(worker.draw(1, [POOL], busy=False, wait_seconds=2.0).jobs)
    )
    thread.start()
    stage.place("a")
    join(thread)
    assert ids(found) == ["a"]


def test_when_a_woken_worker_does_not_come_another_is_woken(stage):
    dead, living = stage.worker("dead"), stage.worker("living")
    assert draw(dead) == []
    stage.place("a")
    assert draw(living, pools=(OTHER, POOL), count=0) == []
    assert draw(living, pools=(OTHER,)) == []
    stage.redis.delete(stage.keys.wake("living"))
    # It waits for the pool too, from now on; the first one was woken for it before.
    stage.redis.sadd(f"{stage.keys.prefix}:pool:{POOL}:idle", "living")
    stage.redis.zadd(stage.keys.leases, {"w dead": 1})
    stage.tick()
    assert stage.redis.llen(stage.keys.wake("living")) == 1
    assert ids(draw(living)) == ["a"]


def test_a_lost_job_goes_on_where_it_stood_and_the_loser_is_fenced(stage):
    loser, other = stage.worker("loser"), stage.worker("other")
    stage.place("a")
    (job,) = draw(loser)
    loser.append(growth(job, 2))
    tick = stage.lose("a")
    assert tick.lost == (("loser", "placed"),)
    (again,) = draw(other)
    assert (again.fence.attempt, again.offset, len(again.made)) == (2, 2, 1)
    loser.append(growth(job, 1, offset=2), expect=WriteStatus.FENCED)
    loser.finish(growth(job, 1, offset=2), input_tokens=1, reason="stop", expect=WriteStatus.FENCED)
    assert stage.events("a") == ["started", "delta", "rerouted", "started"]


def test_the_worker_that_lost_a_job_is_not_given_it_again_at_once(stage):
    worker = stage.worker("w")
    stage.place("a")
    assert ids(draw(worker)) == ["a"]
    stage.lose("a")
    found = worker.draw(1, [POOL], busy=False)
    assert found.jobs == ()
    assert 0 < found.again_in_ms <= 2_000
    assert ids(draw(stage.worker("other"))) == ["a"]


def die_twice(stage, job_id):
    """A job becomes a suspect, beside another that ends."""
    stage.place("beside")
    for i in range(2):
        worker = stage.worker(f"victim-{i}.1")
        assert ids(draw(worker, 2)) == [job_id, "beside"]
        stage.die(worker)
    stage.cancel("beside")


def must_run_alone(stage, job_id, **changes):
    """A suspect that still stands among those that are none."""
    stage.place(job_id, **changes)
    stage.redis.hset(stage.keys.job(job_id), "group", job_id)


def test_what_must_run_alone_stands_in_front_of_nobody(stage):
    for i in range(600):
        must_run_alone(stage, f"a-{i}", tenant="a")
    for i in range(25):
        stage.place(f"b-{i}", tenant=f"tenant-{i % 2}")
    worker = stage.worker("busy")
    drawn = draw(worker, 8, busy=True)
    assert len(drawn) == 8
    assert not any(job.alone for job in drawn)
    for _ in range(20):
        drawn += draw(worker, 8, busy=True)
    assert sorted(ids(drawn)) == sorted(f"b-{i}" for i in range(25))
    assert [job.alone for job in draw(stage.worker("idle"), 8)] == [True]


def test_many_tenants_whose_jobs_must_run_alone_hide_nobody(stage):
    for i in range(100):
        must_run_alone(stage, f"alone-{i}", tenant=f"tenant-{i}")
    stage.place("a", tenant="z")
    # Looked at once, they are out of the way.
    assert ids(draw(stage.worker("busy"), 1, busy=True)) == ["a"]
    assert stage.redis.zcard(stage.keys.pool_tenants(POOL, Priority.STANDARD)) == 0


def test_a_busy_worker_keeps_itself_free_for_a_job_that_waits_long_to_run_alone(stage):
    stage.place("a")
    die_twice(stage, "a")
    stage.place("b")
    stage.place("c")
    busy = stage.worker("busy")
    assert ids(draw(busy, busy=True)) == ["b"]
    stage.be_patient()
    assert draw(busy, 4, busy=True) == []
    assert ids(draw(stage.worker("second"), 4, busy=True)) == ["c"]
    assert ids(draw(busy, 4, busy=False)) == ["a"]


def test_jobs_that_must_run_alone_take_one_worker_of_a_pool_at_a_time_and_then_others_come_first(stage):
    for i in range(20):
        must_run_alone(stage, f"alone-{i}", tenant="a")
    for i in range(20):
        stage.place(f"b-{i}", tenant="b")
    workers = [stage.worker(f"w{i}") for i in range(4)]
    assert all(not job.alone for job in draw(workers[0]))
    stage.be_patient()
    (alone,) = draw(workers[1], 4)
    assert alone.alone
    stage.be_patient()
    for worker in (*workers[2:], *workers[2:]):
        assert ids(draw(worker, busy=True)) != []
    workers[1].finish(growth(alone, 1))
    assert [job.alone for job in draw(workers[1], 2)] == [False, False]
    stage.be_patient()
    assert draw(workers[2], 4, busy=True) == [], "it is the next that keeps itself free"


def test_who_runs_nothing_does_not_wait_for_the_one_that_keeps_itself_free(stage):
    stage.place("a")
    die_twice(stage, "a")
    for i in range(4):
        stage.place(f"b-{i}")
    stage.be_patient()
    long = stage.worker("long")
    assert draw(long, 4, busy=True) == []
    assert ids(draw(stage.worker("busy"), busy=True)) == ["b-0"]
    assert ids(draw(stage.worker("idle"), 4)) == ["a"]
    assert ids(draw(long, 4, busy=True)) == ["b-1", "b-2", "b-3"]


def test_who_kept_itself_free_and_died_is_passed_over(stage):
    stage.place("a")
    die_twice(stage, "a")
    stage.be_patient()
    assert draw(stage.worker("dies"), 4, busy=True) == []
    stage.redis.hset(f"{stage.keys.prefix}:quarantine:{POOL}", "until", "1")
    stage.place("b")
    other = stage.worker("other")
    assert draw(other, 4, busy=True) == []
    assert ids(draw(other, 4)) == ["a"]


def test_nobody_keeps_itself_free_for_what_was_cancelled(stage):
    stage.place("a")
    die_twice(stage, "a")
    stage.cancel("a")
    stage.place("b")
    stage.be_patient()
    assert ids(draw(stage.worker("busy"), 4, busy=True)) == ["b"]


def test_what_is_handed_back_to_the_tail_waits_behind_its_tenants_other_jobs(stage):
    worker = stage.worker("one.1")
    stage.place_all(["job-1", "job-2"])
    (job,) = draw(worker)
    worker.release(growth(job), to_tail=True)
    other = stage.worker("two.1")
    assert ids(draw(other, count=2)) == ["job-2", "job-1"]


def test_what_is_handed_back_to_the_tail_waits_behind_its_tenants_other_jobs_that_must_run_alone(stage):
    must_run_alone(stage, "a")
    must_run_alone(stage, "b")
    worker, other = stage.worker("one.1"), stage.worker("two.1")
    assert draw(other, 2) == [], "they wait alone now"
    stage.be_patient()
    (job,) = draw(worker)
    worker.release(growth(job), to_tail=True)
    stage.be_patient()
    assert (job.job_id, ids(draw(other))) == ("a", ["b"])


def test_a_drain_is_no_death_and_the_job_goes_on_first(stage):
    worker, other = stage.worker("w"), stage.worker("other")
    stage.place("a")
    (job,) = draw(worker)
    stage.place("b")
    assert worker.release(growth(job, 3)).offset == 3
    jobs = draw(other, 2)
    assert ids(jobs) == ["a", "b"]
    assert (jobs[0].offset, jobs[0].deaths) == (3, 0)
    worker.release(growth(job, 3))
    assert ids(draw(other)) == []


def test_a_draw_whose_answer_was_lost_is_answered_again(stage):
    worker = stage.worker("w")
    stage.place("a")
    number = worker._number
    first = draw(worker, 2)
    worker._number, worker._is_answer_owed = number, True
    stage.place("b")
    second = draw(worker, 2)
    assert [job.fence for job in second[:1]] == [job.fence for job in first]
    assert ids(second) == ["a", "b"]
    assert second[1].fence.draw_id != second[0].fence.draw_id


def test_the_same_write_twice_changes_nothing(stage):
    worker = stage.worker("w")
    stage.place("a")
    (job,) = draw(worker)
    worker.append(growth(job, 2))
    assert worker.append(growth(job, 2), expect=WriteStatus.OFFSET).offset == 2
    end = growth(job, 1, offset=2)
    worker.finish(end, input_tokens=1, reason="stop")
    worker.finish(end, input_tokens=1, reason="stop")
    assert stage.outcomes() == [("a", "succeeded")]
    assert stage.events("a") == ["started", "delta", "delta", "finished"]


def test_a_waiting_job_is_cancelled_at_once_and_stays_so(stage):
    stage.place("a")
    assert stage.cancel("a") == "closed"
    assert stage.cancel("a") == "closed"
    assert draw(stage.worker("w")) == []
    stage.place("a", dispatch=2, expect=PlaceResult.CLOSED)
    assert stage.outcomes() == []


def test_a_placement_after_a_cancel_of_an_unknown_job_is_refused(stage):
    assert stage.cancel("a") == "closed"
    stage.place("a", expect=PlaceResult.CLOSED)
    assert draw(stage.worker("w")) == []


def test_a_running_job_hears_of_its_cancel_with_its_tokens_and_with_its_beat(stage):
    worker = stage.worker("w")
    stage.place("a")
    (job,) = draw(worker)
    assert stage.cancel("a") == "running"
    worker.append(growth(job, 1), expect=WriteStatus.CANCELLED)
    worker.beat([Pulse("a", job.fence, True)], expect=WriteStatus.CANCELLED)
    end = growth(job, 0, offset=1)
    worker.fail(end, kind="cancelled", error=JobError("cancelled", ""))
    assert stage.outcomes() == [("a", "cancelled")]
    assert stage.events("a")[-1] == "failed"


def test_a_cancelled_job_whose_worker_dies_ends(stage):
    stage.place("a")
    assert ids(draw(stage.worker("w"))) == ["a"]
    assert stage.cancel("a") == "running"
    stage.lose("a")
    assert stage.outcomes() == [("a", "cancelled")]


def test_a_job_past_its_deadline_is_not_drawn(stage):
    stage.place("late", deadline=1)
    stage.place("in time")
    assert ids(draw(stage.worker("w"), 2)) == ["in time"]
    assert stage.outcomes() == [("late", "expired")]


def test_after_a_new_epoch_whatever_was_drawn_is_void(stage):
    worker = stage.worker("w")
    stage.place("a")
    (job,) = draw(worker)
    stage.redis.set(stage.keys.epoch, 2)
    for write in (
        lambda: worker.append_many([growth(job, 1)]),
        lambda: worker.finish(growth(job, 1), input_tokens=1, reason="stop"),
        lambda: worker.beat([Pulse("a", job.fence, True)]),
        lambda: worker.draw(1, [POOL], busy=False),
    ):
        with pytest.raises(EpochChanged):
            write()
    assert stage.events("a") == ["started"]
    assert worker.hello() == 2


def test_after_a_restart_all_leases_are_extended_once(stage):
    stage.place("a")
    assert ids(draw(stage.worker("w"))) == ["a"]
    stage.redis.zadd(stage.keys.leases, {"j a": 1})
    stage.redis.hset(stage.keys.lease_tick, "run_id", "another")
    tick = stage.tick()
    assert (tick.extended, tick.taken) == (1, 0)
    assert stage.tick().taken == 0
    stage.lose("a")
    (job,) = draw(stage.worker("other"))
    assert job.lossy


def test_after_a_pause_of_the_ticks_all_leases_are_extended_once(stage):
    stage.place("a")
    assert ids(draw(stage.worker("w"))) == ["a"]
    stage.redis.zadd(stage.keys.leases, {"j a": 1})
    at = int(stage.redis.hget(stage.keys.lease_tick, "at"))
    stage.redis.hset(stage.keys.lease_tick, "at", at - 1_500)
    assert stage.pools.tick(LEASE_MS, AGE_MS).extended == 1
    assert stage.tick().taken == 0


@pytest.mark.parametrize("change", [{}, {"run_id": "another"}], ids=["set back", "another took over"])
def test_a_clock_that_was_set_back_makes_no_lease_and_no_hint_last_longer(stage, change):
    stage.place("a")
    loser = stage.worker("w")
    assert ids(draw(loser)) == ["a"]
    # As a clock left it that was an hour ahead.
    ahead = int(stage.redis.time()[0]) * 1000 + 3_600_000
    stage.redis.zadd(stage.keys.leases, {"j a": ahead})
    stage.redis.hset(stage.keys.lease_tick, mapping={"at": ahead} | change)
    stage.pools.tick(LEASE_MS, AGE_MS)
    assert stage.redis.zscore(stage.keys.leases, "j a") <= ahead - 3_600_000 + LEASE_MS + 600_000
    stage.lose("a")
    stage.redis.hset(stage.keys.job("a"), "avoid_until", ahead)
    assert ids(draw(loser)) == ["a"]


def test_what_is_withdrawn_is_handed_back_and_its_worker_fenced(stage):
    worker = stage.worker("w")
    stage.place("a")
    (job,) = draw(worker)
    assert stage.pools.withdraw_many([("a", 1)], running=False) == ["running"]
    assert stage.pools.withdraw_many([("a", 1)], running=True) == ["withdrawn"]
    worker.append(growth(job, 1), expect=WriteStatus.FENCED)
    assert stage.outcomes() == [("a", "withdrawn")]
    stage.place("a", dispatch=2)
    assert stage.pools.withdraw_many([("a", 1)], running=True) == ["unknown"]


def test_a_sealed_job_tells_its_end_and_is_forgotten_after_a_while(stage):
    worker = stage.worker("w")
    stage.place("a")
    (job,) = draw(worker)
    error = JobError("engine_failed", "it broke")
    worker.fail(growth(job), kind="failed", error=error)
    assert stage.events("a") == ["started"]
    stage.pools.seal_many([("a", JobState.DEAD, error)], 60_000)
    stage.pools.seal_many([("a", JobState.DEAD, error)], 60_000)
    assert stage.events("a") == ["started", "failed"]
    assert 0 < stage.redis.pttl(stage.keys.job("a")) <= 60_000
    assert 0 < stage.redis.pttl(stage.keys.stream("a")) <= 60_000
    assert stage.field("a", "body") is None


def test_a_new_run_goes_back_and_only_forward_in_number(stage):
    worker = stage.worker("w")
    stage.place("a")
    (job,) = draw(worker)
    worker.append(growth(job, 3))
    again = Growth(job_id="a", fence=job.fence, run=1, offset=0, restarted=True)
    worker.append(again)
    worker.append(again, expect=WriteStatus.OFFSET)
    worker.append(growth(job, 1, offset=3), expect=WriteStatus.OFFSET)
    assert stage.events("a") == ["started", "delta", "restarted"]


def test_many_dead_entries_do_not_hold_up_a_draw(stage):
    for i in range(600):
        stage.place(f"dead-{i}")
        assert stage.cancel(f"dead-{i}") == "closed"
    stage.place("alive")
    worker = stage.worker("w")
    found = worker.draw(1, [POOL], busy=False)
    rounds = 0
    while not found.jobs and rounds < 5:
        assert found.again_in_ms == 1
        found, rounds = worker.draw(1, [POOL], busy=False), rounds + 1
    assert ids(found.jobs) == ["alive"]


def test_many_lanes_of_dead_entries_do_not_hide_another(stage):
    for i in range(100):
        for j in range(9):
            stage.place(f"dead-{i}-{j}", tenant=f"tenant-{i}")
            assert stage.cancel(f"dead-{i}-{j}") == "closed"
    stage.place("alive", tenant="z")
    worker = stage.worker("w")
    drawn = [ids(draw(worker)) for _ in range(4)]
    assert drawn == [[], [], [], ["alive"]]


KEYS_REFERENCE = ROOT / "docs" / "reference" / "redis-keys.md"


def test_every_key_and_every_field_of_a_job_is_in_the_reference(stage):
    _, _, reference = KEYS_REFERENCE.read_text().partition("# Keys of pool jobs")
    keys, _, fields = reference.partition("## A job's hash")
    patterns = [
        re.sub(r"<\w+>", "[^:]+", re.escape(key).replace(r"\<", "<").replace(r"\>", ">"))
        for key in re.findall(r"^\| `(\S+)` \|", keys, re.MULTILINE)
    ]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", fields.partition("## Scripts")[0], re.MULTILINE)
    told = {name for row in rows for cell in row for name in re.findall(r"`(\w+)`", cell)} | {"v"}
    worker = stage.worker("w")
    stage.place("a")
    assert ids(draw(worker)) == ["a"]
    stage.lose("a")
    stage.place("waiting")
    assert stage.cancel("gone") == "closed"
    (job,) = draw(stage.worker("other"))
    stage.worker("other").fail(growth(job), kind="failed", error=JobError("engine_failed", ""))
    assert draw(stage.worker("idle"), pools=(OTHER,)) == []
    stage.place("b", pool=OTHER)
    for key in stage.redis.scan_iter(f"{stage.keys.prefix}:*"):
        name = key.decode().removeprefix(f"{stage.keys.prefix}:")
        assert any(re.fullmatch(pattern, name) for pattern in patterns), f"{name} is not in the reference"
        if name.startswith("job:"):
            missing = {field.decode() for field in stage.redis.hkeys(key)} - told
            assert not missing, f"fields of a job that are not in the reference: {missing}"
