"""A tenant whose jobs end their processes, one after another: the others go on, and it is found out.

Times are those of a simulated clock, and the same on every machine.
"""

import pytest

from support.killer_pool import KillerPool
from support.machines import MachineServer
from support.pool_stage import POOL
from support.script_clock import with_set_clock
from tether.broker.scripts import BROKER_SCRIPTS

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("quiet_logs")]

GOOD = 60
SLOTS = KillerPool.SLOTS
KILLS_MS = 300
KILLS = 10


@pytest.fixture
def make_pool(machine_redis_url, monkeypatch):
    sound, pools = BROKER_SCRIPTS.source, []
    monkeypatch.setattr(BROKER_SCRIPTS, "source", lambda name: with_set_clock(sound(name)))

    def make(**options):
        pools.append(KillerPool(MachineServer(machine_redis_url), **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.mark.parametrize("killers", [10, 100])
@pytest.mark.parametrize(("workers", "times"), [(1, 3), (2, 2)])
def test_many_jobs_that_kill_leave_others_most_of_their_time(make_pool, workers, times, killers):
    pool = make_pool(workers=workers)
    pool.place("killer", killers, kills_ms=KILLS_MS)
    pool.place("good", GOOD)
    undisturbed = 1_000 * GOOD // (workers * SLOTS)
    pool.run_until_good_ended("good", within_ms=times * undisturbed)
    assert max(job.deaths for job in pool.good("good")) <= 3
    assert any(job.state == "dead" for job in pool.killers())


def test_one_after_another_is_found_while_others_come_all_the_time(make_pool):
    pool = make_pool(workers=2)
    pool.place("killer", 20, kills_ms=KILLS_MS)
    pool.place("good", 6 * GOOD)
    pool.run_until_good_ended("good", within_ms=70_000)
    dead = [job for job in pool.killers() if job.state == "dead"]
    assert len(dead) >= 4
    assert all(job.deaths <= 8 for job in dead)


def test_good_jobs_of_the_same_tenant_are_done_as_well(make_pool):
    pool = make_pool(workers=2)
    pool.place("killer", 10, kills_ms=KILLS_MS)
    pool.place("killer", 40)
    pool.place("good", GOOD)
    pool.run_until_good_ended("good", within_ms=16_000)
    pool.run_until_good_ended("killer", within_ms=90_000)
    assert all(job.state == "succeeded" for job in pool.good("good", "killer"))


def test_two_tenants_of_jobs_that_kill_do_not_shield_each_other(make_pool):
    pool = make_pool(workers=2)
    pool.place("killer", 50, kills_ms=KILLS_MS)
    pool.place("other killer", 50, kills_ms=KILLS_MS)
    pool.place("good", GOOD)
    pool.run_until_good_ended("good", within_ms=20_000)
    assert any(job.state == "dead" for job in pool.killers())


def test_a_worker_that_keeps_itself_free_beside_a_long_stream_leaves_others_most_of_its_time(make_pool):
    pool = make_pool(workers=1)
    pool.place("killer", 20, kills_ms=KILLS_MS)
    pool.place("first", GOOD // 2)
    pool.run_until_good_ended("first", within_ms=60_000)
    assert pool.known().is_apart("killer")
    pool.place("streaming", 1, runs_ms=200_000)
    for number in range(GOOD):
        pool.place(f"good-{number}", 2)
        pool.run_for(1_000)
    ended = [job for job in pool.jobs.values() if job.tenant.startswith("good") and job.state == "succeeded"]
    assert len(ended) >= 2 * GOOD * 3 / 4
    pool.run_until_good_ended("streaming", within_ms=400_000)
    before = pool.deaths
    pool.run_for(60_000)
    assert pool.deaths > before, "who is apart has its turn"


def test_no_worker_keeps_itself_free_for_jobs_that_were_cancelled(make_pool):
    pool = make_pool(workers=1)
    pool.place("killer", 20, kills_ms=KILLS_MS)
    pool.place("first", GOOD // 2)
    pool.run_until_good_ended("first", within_ms=60_000)
    assert pool.known().is_apart("killer")
    for killer in pool.killers():
        pool.stage.cancel(killer.job_id)
    pool.run_for(5_000)
    pool.place("streaming", 1, runs_ms=200_000)
    pool.run_for(1_000)
    pool.place("killer", 1)
    (cancelled,) = pool.good("killer")
    pool.stage.cancel(cancelled.job_id)
    for number in range(GOOD // 2):
        pool.place(f"good-{number}", 2)
        pool.run_for(1_000)
    late = [job.job_id for job in pool.jobs.values() if job.tenant.startswith("good") and not job.ended_ms]
    assert len(late) <= 2


def test_one_job_that_kills_sets_no_tenant_apart(make_pool):
    pool = make_pool(workers=2)
    pool.place("killer", 1, kills_ms=KILLS_MS)
    pool.place("killer", 30)
    pool.place("good", GOOD)
    pool.run_until_good_ended("good", "killer", within_ms=20_000)
    (killer,) = pool.killers()
    assert (killer.state, killer.deaths) == ("dead", 5)
    assert not any(each.is_apart for each in pool.known().watched.values())


def test_a_worker_that_is_killed_from_outside_leaves_two_tenants_as_fast_as_one(make_pool):
    """Neither is the cause: whoever is set apart for it is soon free again."""
    times = []
    for tenants in (("one",), ("one", "two")):
        pool = make_pool(workers=1)
        for tenant in tenants:
            pool.place(tenant, 40 // len(tenants), runs_ms=4_000)
        pool.kills = [(2_500 * number, "w0") for number in range(1, KILLS + 1)]
        times.append(pool.run_until_good_ended(*tenants, within_ms=200_000))
        assert pool.deaths == KILLS
    assert times[1] <= times[0]


def test_where_it_is_lost_that_a_pool_has_tenants_that_are_apart_the_lease_loop_finds_out(make_pool):
    pool = make_pool(workers=2)
    pool.place("killer", 20, kills_ms=KILLS_MS)
    pool.place("good", GOOD)
    pool.run_for(5_000)
    alone = f"{pool.stage.keys.prefix}:core:alone"
    assert pool.stage.redis.delete(alone) == 1
    pool.stage.tick()
    assert pool.stage.redis.sismember(alone, POOL)


def test_where_what_is_known_of_tenants_is_lost_a_death_is_heard_all_the_same(make_pool):
    pool = make_pool(workers=2)
    pool.place("killer", 20, kills_ms=KILLS_MS)
    pool.place("good", GOOD)
    prefix = pool.stage.keys.prefix
    while not pool.stage.redis.keys(f"{prefix}:apart_run:*"):
        pool.run_for(50)
    assert pool.stage.redis.delete(f"{prefix}:apart:{POOL}") == 1
    before = pool.deaths
    pool.run_for(2_000)
    assert pool.deaths > before
