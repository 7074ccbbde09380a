"""The word of who watched a process end: what it ran goes on at once, and what may be the cause is tried."""

import json

import pytest

from support.hand_worker import growth
from support.pool_stage import OTHER, POOL, Stage, draw, ids
from tether.broker.pools.worker_port import WriteStatus
from tether.errors import EpochChanged
from tether.scheduling.blame import WEAK_DEATHS


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


def evidence(stage, job_id):
    return json.loads(stage.field(job_id, "evidence"))


def run(stage, name, count=8, pools=(POOL,)):
    """A new process that has drawn what it may."""
    worker = stage.worker(f"{name}.1")
    return worker, draw(worker, count, pools)


def end_others(stage, *jobs_of_workers):
    for worker, jobs in jobs_of_workers:
        for job in jobs:
            worker.finish(growth(job, 1))


# Whose word counts.


def test_what_a_process_ran_goes_on_at_once_and_the_process_is_fenced(stage):
    stage.place_all(["a", "b"])
    worker, (first, second) = run(stage, "w")
    worker.append(growth(first, 2))
    stage.die(worker)
    assert stage.redis.zcard(stage.keys.leases) == 0
    worker.append(growth(second, 1), expect=WriteStatus.FENCED)
    _, again = run(stage, "other")
    assert [(job.job_id, job.offset, job.deaths, job.alone) for job in again] == [
        ("a", 2, 1, False),
        ("b", 0, 1, False),
    ]
    assert stage.events("a") == ["started", "delta", "rerouted", "started"]


def test_nobody_can_tell_the_end_of_another_s_process(stage):
    stage.place("a")
    worker, _ = run(stage, "w")
    stranger, _ = run(stage, "stranger")
    assert not stranger.gone(worker.boot_id, stranger.process, "signal 9")
    assert not stranger.gone("w.2", worker.process, "signal 9")
    assert not stranger.gone("nobody.1", "made-up", "signal 9")
    assert (stage.field("a", "state"), stage.field("a", "deaths")) == ("running", "0")


def test_a_revoked_key_tells_nothing(stage):
    stage.place("a")
    worker, _ = run(stage, "w")
    stage.redis.sadd(stage.keys.revoked, "w")
    assert not worker.gone(worker.boot_id, worker.process, "signal 9")
    assert (stage.field("a", "state"), stage.field("a", "deaths")) == ("running", "0")


def test_nothing_is_told_in_an_epoch_that_has_passed(stage):
    stage.place("a")
    worker, _ = run(stage, "w")
    stage.redis.set(stage.keys.epoch, 2)
    with pytest.raises(EpochChanged):
        worker.gone(worker.boot_id, worker.process, "signal 9")
    assert stage.field("a", "state") == "running"


def test_a_process_that_never_drew_a_job_leaves_the_idle_sets(stage):
    worker, nothing = run(stage, "w")
    assert nothing == []
    stage.die(worker)
    stage.place("a")
    assert stage.redis.llen(stage.keys.wake("w.1")) == 0
    assert stage.redis.zcard(stage.keys.leases) == 0


def test_who_was_woken_and_is_gone_is_passed_over_at_once(stage):
    worker, _ = run(stage, "w")
    stage.place("a")
    assert stage.redis.llen(stage.keys.wake("w.1")) == 1
    other, _ = run(stage, "other", pools=(OTHER,))
    assert draw(other, pools=(OTHER, POOL), count=0) == []
    stage.redis.sadd(f"{stage.keys.prefix}:pool:{POOL}:idle", "other.1")
    stage.redis.set(f"{stage.keys.prefix}:idle:other.1", POOL)
    stage.die(worker)
    assert stage.redis.llen(stage.keys.wake("other.1")) == 1


def test_a_word_that_is_said_twice_counts_once(stage):
    stage.place("a")
    worker, _ = run(stage, "w")
    stage.die(worker)
    stage.die(worker, "unknown")
    assert [death["how"] for death in evidence(stage, "a")] == ["signal 11"]
    assert stage.field("a", "deaths") == "1"


@pytest.mark.parametrize("how", ["ended", "host"])
def test_an_end_that_no_job_can_have_caused_is_no_death(stage, how):
    stage.place("a")
    for name in ("one", "two", "three", "four"):
        worker, (job,) = run(stage, name)
        assert (job.job_id, job.alone, job.deaths) == ("a", False, 0)
        stage.die(worker, how)
    assert stage.field("a", "evidence") is None


@pytest.mark.parametrize("how", ["", "SIGNAL 9", "signal nine", "a b c", "x" * 40, "signal 9999"])
def test_what_is_no_end_is_refused(stage, how):
    worker, _ = run(stage, "w")
    with pytest.raises(Exception, match="INVALID"):
        worker.gone(worker.boot_id, worker.process, how)


# What a lease tells.


def test_a_lease_that_runs_out_is_nobody_s_fault(stage):
    stage.place("a")
    for name in ("one", "two", "three", "four"):
        _, (job,) = run(stage, name)
        assert (job.job_id, job.alone, job.deaths) == ("a", False, 0)
        stage.lose("a")


def test_a_word_that_comes_after_the_lease_completes_the_evidence(stage):
    stage.place("a")
    worker, _ = run(stage, "w")
    stage.run_for("a", 700_000)
    stage.lose("a")
    assert stage.field("a", "deaths") == "0"
    stage.die(worker, "oom")
    (death,) = evidence(stage, "a")
    assert (death["boot"], death["how"], death["beside"]) == ("w.1", "oom", 0)
    # Of ten minutes nothing was heard.
    assert 100_000 <= death["ran"] < 110_000
    assert stage.field("a", "deaths") == "1"


def test_a_worker_that_draws_again_was_only_cut_off(stage):
    stage.place("a")
    worker, _ = run(stage, "w")
    stage.lose("a")
    _, (again,) = run(stage, "other")
    assert draw(worker) == []
    stage.die(worker)
    assert (again.deaths, stage.field("a", "deaths")) == (0, "0")


# Who is tried, and with whom.


def test_those_that_ran_at_two_deaths_are_tried_by_halves(stage):
    names = [f"job-{i}" for i in range(8)]
    stage.place_all(names)
    for name in ("one", "two"):
        worker, jobs = run(stage, name)
        assert ids(jobs) == names
        assert not any(job.alone for job in jobs)
        stage.die(worker)
    third, jobs = run(stage, "three")
    assert ids(jobs) == names[:4], "half of them"
    assert all(job.alone and job.proof >= 3_000 for job in jobs)
    stage.die(third)
    fourth, jobs = run(stage, "four")
    assert sorted(ids(jobs)) == names[4:], "those beside whom it died again are none of them"
    assert not any(job.alone for job in jobs)
    end_others(stage, (fourth, jobs))
    fifth, jobs = run(stage, "five")
    assert (ids(jobs), jobs[0].alone) == (names[:2], True)
    end_others(stage, (fifth, jobs))
    sixth, jobs = run(stage, "six")
    assert ids(jobs) == [names[2]], "the other half is half as large"
    stage.die(sixth)
    assert [death["beside"] for death in evidence(stage, names[2])] == [7, 7, 3, 0]


def test_who_did_not_run_at_the_death_before_is_no_suspect(stage):
    stage.place("a")
    worker, _ = run(stage, "one")
    stage.die(worker)
    stage.place("b")
    worker, jobs = run(stage, "two")
    assert ids(jobs) == ["a", "b"]
    stage.die(worker)
    worker, jobs = run(stage, "three", count=1)
    assert [(job.job_id, job.alone) for job in jobs] == [("b", False)]


def test_who_runs_for_clearly_longer_than_at_its_last_death_was_not_the_cause(stage):
    stage.place("a")
    for name, milliseconds in (("one", 500), ("two", 5_000), ("three", 15_000), ("four", 40_000)):
        worker, (job,) = run(stage, name)
        assert not job.alone
        stage.run_for("a", milliseconds)
        stage.die(worker)


def test_who_is_handed_over_after_that_is_no_suspect_any_more(stage):
    stage.place_all(["a", "beside"])
    for name in ("one", "two"):
        worker, _ = run(stage, name)
        stage.die(worker)
    stage.cancel("beside")
    worker, (job,) = run(stage, "three")
    assert job.alone
    worker.release(growth(job))
    worker, (job,) = run(stage, "four")
    assert job.alone, "a moment shows nothing"
    stage.run_for("a", 60_000)
    worker.release(growth(job))
    _, (job,) = run(stage, "five")
    assert not job.alone


def test_what_is_tried_takes_one_worker_of_a_pool(stage):
    for i in range(4):
        stage.place(f"suspect-{i}")
        stage.redis.hset(stage.keys.job(f"suspect-{i}"), "group", f"group-{i}")
    assert draw(stage.worker("looks.1"), busy=True) == []
    tried = [job for i in range(4) for job in run(stage, f"w{i}")[1]]
    assert [job.alone for job in tried] == [True]


def test_what_waits_to_run_alone_is_drawn_though_it_was_lost_that_something_does(stage):
    stage.place("suspect")
    stage.redis.hset(stage.keys.job("suspect"), "group", "group")
    assert draw(stage.worker("looks.1"), busy=True) == []
    stage.redis.delete(f"{stage.keys.prefix}:core:alone")
    assert run(stage, "too-early")[1] == []
    stage.tick()
    stage.be_patient()
    _, (job,) = run(stage, "next")
    assert (job.job_id, job.alone) == ("suspect", True)


# When a job is poison.


def stand_alone(stage, job_id="poison"):
    """A job at two deaths of its processes, of which the second was alone."""
    stage.place(job_id)
    for name in ("one", "two"):
        worker, jobs = run(stage, name)
        assert ids(jobs) == [job_id]
        stage.run_for(job_id, 300)
        stage.die(worker)


def others_end_well(stage, name, milliseconds=60_000):
    stage.place(name)
    worker, (job,) = run(stage, f"for-{name}", count=1)
    assert job.job_id == name
    stage.run_for(name, milliseconds)
    worker.finish(growth(job, 1))


def test_two_deaths_alone_between_which_another_ended_well_are_poison(stage):
    stand_alone(stage)
    assert run(stage, "too-early")[1] == [], "others come first"
    others_end_well(stage, "other")
    worker, (job,) = run(stage, "three")
    assert (job.job_id, job.alone, job.deaths) == ("poison", True, 2)
    stage.run_for("poison", 300)
    stage.die(worker)
    assert stage.outcomes() == [("other", "succeeded"), ("poison", "poisoned")]
    (told,) = [fields for _, fields in stage.redis.xrange(stage.keys.outcomes) if fields[b"job"] == b"poison"]
    deaths = json.loads(told[b"evidence"])
    assert [(death["boot"], death["how"], death["beside"]) for death in deaths] == [
        ("one.1", "signal 11", 0),
        ("two.1", "signal 11", 0),
        ("three.1", "signal 11", 0),
    ]


@pytest.mark.parametrize("how", ["signal 9", "unknown"])
def test_who_is_killed_from_outside_is_poison_two_deaths_later(stage, how):
    stand_alone(stage)
    for number in range(1, 1 + WEAK_DEATHS):
        others_end_well(stage, f"other-{number}")
        worker, (job,) = run(stage, f"killed-{number}")
        assert (job.job_id, job.alone) == ("poison", True)
        stage.run_for("poison", 300)
        stage.die(worker, how)
        assert ("poison", "poisoned") not in stage.outcomes()
    others_end_well(stage, "last")
    worker, (job,) = run(stage, "once-more")
    stage.run_for("poison", 300)
    stage.die(worker, how)
    assert ("poison", "poisoned") in stage.outcomes()


def test_others_that_ended_sooner_than_it_died_show_nothing(stage):
    stand_alone(stage)
    others_end_well(stage, "short", 100)
    assert run(stage, "too-early")[1] == []
    others_end_well(stage, "long", 4_000)
    assert ids(run(stage, "three")[1]) == ["poison"]


def wait_long(stage, job_id="poison"):
    """It has waited for others for long enough."""
    ran, first, lone, vain, survived, _ = stage.field(job_id, "suspicion").split()
    stage.redis.hset(stage.keys.job(job_id), "suspicion", f"{ran} {first} {lone} {vain} {survived} 1")


def test_where_nothing_else_runs_it_takes_more(stage):
    stand_alone(stage)
    for name in ("three", "four", "five"):
        assert stage.outcomes() == []
        wait_long(stage)
        worker, (job,) = run(stage, name)
        assert job.job_id == "poison"
        stage.die(worker)
    assert stage.outcomes() == [("poison", "poisoned")]


def test_where_its_worker_died_without_it_too_it_takes_more(stage):
    stand_alone(stage)
    stage.place("other")
    worker, _ = run(stage, "three")
    stage.die(worker)
    # As on a machine that kills whatever it runs: the next process there has the key of that one.
    stage.cancel("other")
    others_end_well(stage, "well")
    worker = stage.worker("three.2")
    (job,) = draw(worker, 1)
    assert job.job_id == "poison"
    stage.die(worker)
    assert ("poison", "poisoned") not in stage.outcomes()


def test_what_ended_well_in_another_pool_before_a_job_came_there_shows_nothing(stage):
    stand_alone(stage)
    stage.redis.hset(f"{stage.keys.prefix}:quarantine:{OTHER}", "survived", 10**9)
    assert stage.pools.withdraw_many([("poison", 1)], running=False) == ["withdrawn"]
    stage.place("poison", dispatch=2, pool=OTHER)
    for name in ("elsewhere", "further"):
        wait_long(stage)
        worker, (job,) = run(stage, name, pools=(OTHER,))
        assert job.job_id == "poison"
        stage.die(worker)
    assert ("poison", "poisoned") not in stage.outcomes()


def test_a_job_that_failed_in_order_starts_anew(stage):
    stand_alone(stage)
    wait_long(stage)
    worker, (job,) = run(stage, "three")
    worker._end("fail", growth(job), "failed", '{"code":"engine_failed","message":"no"}')
    stage.place_all(["poison"], dispatch=2)
    worker, (job,) = run(stage, "four")
    assert not job.alone
    stage.die(worker)
    _, (job,) = run(stage, "five")
    assert not job.alone


def test_evidence_is_bounded_and_keeps_the_first(stage):
    stage.place("a")
    for i in range(20):
        worker, _ = run(stage, f"w-{i}")
        # Each time it runs for longer: it is never the suspect.
        stage.run_for("a", 4_000 * 3**i)
        stage.die(worker)
    assert [death["boot"] for death in evidence(stage, "a")] == [f"w-{i}.1" for i in (0, *range(5, 20))]
    assert stage.field("a", "deaths") == "20"
