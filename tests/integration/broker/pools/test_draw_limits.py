"""Draws that are told how many jobs of one tenant they may take: who is passed over, and who is woken."""

import pytest
import redis

from support.hand_worker import growth
from support.planted_bugs import plant
from support.pool_stage import LEASE_MS, OTHER, POOL, Stage, ids
from tether.broker.pools.draw_limits import DrawLimits
from tether.broker.scripts import BROKER_SCRIPTS
from tether.jobs import Priority

POOLS = (POOL, OTHER)


@pytest.fixture
def stage(shared_redis_server, namespace):
    stage = Stage(shared_redis_server, namespace)
    yield stage
    stage.close()


def limited(worker, count=1, pools=POOLS, *, busy=True, others=None, **left):
    return worker.draw(count, pools, busy=busy, limits=DrawLimits(others, left))


def drawn(worker, count=1, pools=POOLS, **limits):
    return ids(limited(worker, count, pools, **limits).jobs)


def is_rung(stage, worker):
    return bool(stage.redis.exists(stage.keys.wake(worker.boot_id)))


def idle_of(stage, pool):
    return f"{stage.keys.prefix}:pool:{pool}:idle"


def counters(stage, pool=POOL):
    return dict(stage.redis.zrange(stage.keys.pool_tenants(pool, "standard"), 0, -1, withscores=True))


def test_a_tenant_without_any_left_is_passed_over_and_keeps_place_and_counter(stage):
    stage.place_all(["a1", "a2"], tenant="a", cost=5)
    stage.place_all(["b1", "b2"], tenant="b", cost=7)
    worker = stage.worker("w.1")
    before = counters(stage)
    found = limited(worker, 3, a=0)
    assert ids(found.jobs) == ["b1", "b2"]
    assert found.passed_over == 1
    assert counters(stage) == {b"a": before[b"a"]}
    assert stage.redis.lrange(stage.keys.pool_jobs(POOL, "standard", "a"), 0, -1) == [b"a1 1", b"a2 1"]
    assert drawn(worker, 3) == ["a1", "a2"]


def test_the_jobs_of_one_draw_count(stage):
    for tenant in "abc":
        stage.place_all([f"{tenant}{number}" for number in range(4)], tenant=tenant)
    worker = stage.worker("w.1")
    found = limited(worker, 12, others=2, a=1)
    assert sorted(ids(found.jobs)) == ["a0", "b0", "b1", "c0", "c1"]
    assert found.passed_over == 3
    assert sorted(drawn(worker, 12)) == ["a1", "a2", "a3", "b2", "b3", "c2", "c3"]


def test_they_count_across_pools_and_classes(stage):
    for number, (pool, priority) in enumerate([(POOL, p) for p in Priority] + [(OTHER, p) for p in Priority]):
        stage.place(f"a{number}", tenant="a", pool=pool, priority=priority)
        stage.place(f"b{number}", tenant="b", pool=pool, priority=priority)
    worker = stage.worker("w.1")
    found = limited(worker, 12, others=4, b=2)
    of_tenant = [job.tenant for job in found.jobs]
    assert (of_tenant.count("a"), of_tenant.count("b")) == (4, 2)
    assert len(drawn(worker, 12)) == 6


def test_what_is_told_again_counts(stage):
    stage.place_all([f"a{number}" for number in range(4)], tenant="a")
    worker = stage.worker("w.1")
    assert drawn(worker, 1, others=2) == ["a0"]
    # As if that answer had been lost.
    worker._number, worker._is_answer_owed = 1, True
    assert drawn(worker, 4, others=2) == ["a0", "a1"]


def test_late_standard_jobs_of_such_a_tenant_stay_too(stage):
    stage.place("a", tenant="a")
    stage.place("i", tenant="b", priority=Priority.INTERACTIVE)
    stage.redis.hset(stage.keys.job("a"), "placed_at", 1)
    stage.redis.zadd(f"{stage.keys.prefix}:pool:{POOL}:ages", {"a": 1})
    stage.tick(standard_age_ms=60_000)
    assert stage.redis.hlen(f"{stage.keys.prefix}:core:late") == 1
    worker = stage.worker("w.1")
    assert drawn(worker, 1, a=0) == ["i"]
    assert drawn(worker, 1) == ["a"]


@pytest.mark.parametrize("tenant", ["a b", "ü\n{", '"', "1", "x" * 512])
def test_any_tenant_may_be_named(stage, tenant):
    stage.place("job", tenant=tenant)
    worker = stage.worker("w.1")
    found = worker.draw(1, POOLS, busy=False, limits=DrawLimits(None, {tenant: 0}))
    assert (found.jobs, found.passed_over) == ((), 1)
    stage.place("more", tenant=tenant)
    assert not is_rung(stage, worker)
    assert ids(worker.draw(2, POOLS, busy=False, limits=DrawLimits(2, {tenant: 1})).jobs) == ["job"]


def test_however_many_have_their_share_the_draw_finds_the_others(stage):
    tenants = [f"t{number:03}" for number in range(300)]
    for tenant in tenants:
        stage.place_all([f"{tenant}-0", f"{tenant}-1"], tenant=tenant)
    stage.place_all(["last-0", "last-1"], tenant="zz")
    worker = stage.worker("w.1")
    stage.redis.config_resetstat()
    found = worker.draw(2, [POOL], busy=True, limits=DrawLimits(None, dict.fromkeys(tenants, 0)))
    stats = stage.redis.info("commandstats")
    calls = stats["cmdstat_zrange"]["calls"]
    assert ids(found.jobs) == ["last-0", "last-1"]
    assert found.passed_over == 300
    assert calls < 20, "they are read many at once"


def test_how_many_wait_changes_nothing_in_what_a_draw_does(stage):
    worker = stage.worker("w.1")

    def commands(tenants):
        for tenant in tenants:
            stage.place_all([f"{tenant}-0", f"{tenant}-1"], tenant=tenant)
        stage.redis.config_resetstat()
        assert len(limited(worker, 2, [POOL], others=1, a=0).jobs) == 2
        stats = stage.redis.info("commandstats")
        return sum(each["calls"] for name, each in stats.items() if not name.startswith("cmdstat_config"))

    few = commands([*"abc"])
    assert commands([f"t{number}" for number in range(200)]) <= few + 5


# Who is woken.


def test_nobody_is_woken_for_a_tenant_that_it_passes_over(stage):
    worker = stage.worker("w.1")
    stage.place("a1", tenant="a")
    assert drawn(worker, a=0) == []
    stage.place("a2", tenant="a")
    assert not is_rung(stage, worker)
    stage.place("b1", tenant="b")
    assert is_rung(stage, worker), "others are not kept waiting for it"


def test_another_is_woken_for_it_that_does_not(stage):
    full, free = stage.worker("full.1"), stage.worker("free.1")
    assert drawn(full, a=0) == drawn(free, b=0) == []
    for number in range(10):
        stage.place(f"a{number}", tenant="a")
        assert not is_rung(stage, full)
        assert is_rung(stage, free)
        assert drawn(free, b=0) == [f"a{number}"]
        assert drawn(free, b=0) == []
        stage.redis.delete(stage.keys.wake(free.boot_id))


def test_who_has_drawn_with_other_limits_is_woken_again(stage):
    worker = stage.worker("w.1")
    assert drawn(worker, a=0) == []
    assert drawn(worker, a=1) == []
    stage.place("a1", tenant="a")
    assert is_rung(stage, worker)


def test_a_tenant_that_got_its_share_in_the_draw_is_passed_over_from_then_on(stage):
    worker = stage.worker("w.1")
    stage.place("a1", tenant="a")
    assert drawn(worker, 3, others=1) == ["a1"]
    stage.place("a2", tenant="a")
    assert not is_rung(stage, worker)
    stage.place("b1", tenant="b")
    assert is_rung(stage, worker)


def test_who_was_woken_for_what_it_may_not_have_wakes_another(stage):
    first, second, third = (stage.worker(f"{name}.1") for name in ("one", "two", "three"))
    assert drawn(second, a=0) == drawn(third, a=0) == drawn(first) == []
    stage.place("a1", tenant="a")
    assert is_rung(stage, first)
    # The first has got more of a's tokens since than it may, and the second may have it again.
    stage.redis.set(f"{stage.keys.prefix}:idle:{second.boot_id}", " ".join(POOLS))
    assert drawn(first, a=0) == []
    assert is_rung(stage, second)
    assert not is_rung(stage, third), "it passes that tenant over"
    assert drawn(second) == ["a1"]


def test_where_all_pass_it_over_nobody_wakes_anybody(stage):
    workers = [stage.worker(f"w{number}.1") for number in range(4)]
    for worker in workers:
        assert drawn(worker) == []
    stage.place("a1", tenant="a")
    rounds = 0
    while any(is_rung(stage, worker) for worker in workers):
        for worker in workers:
            if is_rung(stage, worker):
                stage.redis.delete(stage.keys.wake(worker.boot_id))
                assert drawn(worker, a=0) == []
                rounds += 1
    assert rounds <= len(workers)


def test_a_worker_leaves_the_idle_sets_whoever_it_passes_over(stage):
    worker = stage.worker("w.1")
    assert drawn(worker, a=0, **{"b c": 0}) == []
    assert stage.redis.smembers(idle_of(stage, POOL)) == {b"w.1"}
    assert drawn(worker, count=0) == []
    for pool in POOLS:
        assert not stage.redis.exists(idle_of(stage, pool))


# Handing back.


def test_a_hint_says_how_long_a_worker_is_not_given_a_job_again(stage):
    worker, other = stage.worker("w.1"), stage.worker("o.1")
    stage.place_all(["a1", "a2"], tenant="a")
    (job,) = limited(worker).jobs
    worker.release(growth(job), avoid_ms=10_000)
    found = worker.draw(2, POOLS, busy=True)
    assert ids(found.jobs) == ["a2"]
    assert 2_000 < found.again_in_ms <= 10_000
    assert ids(other.draw(1, POOLS, busy=True).jobs) == ["a1"], "others may have it"


def test_without_time_to_wait_it_is_given_again_at_once(stage):
    worker = stage.worker("w.1")
    stage.place("a1", tenant="a")
    for _ in range(3):
        (job,) = limited(worker).jobs
        worker.release(growth(job), avoid_ms=0)
    assert stage.field("a1", "state") == "placed"


def test_a_hint_of_a_job_that_ended_changes_nothing(stage):
    worker = stage.worker("w.1")
    stage.place("a1", tenant="a")
    (job,) = limited(worker).jobs
    stage.cancel("a1")
    worker.release(growth(job), avoid_ms=500)
    assert stage.field("a1", "state") == "cancelled"


@pytest.mark.parametrize("hint", [-1, 10_001, "x", "", 1.5])
def test_a_hint_that_is_none_is_refused(stage, hint):
    worker = stage.worker("w.1")
    stage.place("a1", tenant="a")
    (job,) = limited(worker).jobs
    fence = (job.fence.dispatch, job.fence.attempt, job.fence.draw_id)
    arguments = (1, "a1", *fence, 0, 0, 0, "{}", 0, hint)
    answer = BROKER_SCRIPTS.run(stage.redis, "pool/release", stage.keys.leases, *arguments)
    assert answer[0] == b"invalid"
    assert stage.field("a1", "state") == "running"


@pytest.mark.parametrize(
    "limits",
    [
        "{",
        '{"others":0}',
        '{"others":-1}',
        '{"others":1.5}',
        '{"others":1025}',
        '{"others":null}',
        '{"left":1}',
        '{"left":[1]}',
        '{"left":null}',
        '{"left":{"a":-1}}',
        '{"left":{"a":1025}}',
        '{"left":{"a":"x"}}',
        '{"left":{"a":null}}',
        '{"left":{"a":[]}}',
        '{"left":{' + ",".join(f'"{number}":1' for number in range(8193)) + "}}",
    ],
)
def test_limits_that_are_none_are_refused(stage, limits):
    stage.place("a1", tenant="a")
    arguments = (1, "v.1", 1, 1, LEASE_MS, 0, 0, "process", 0, 1, "body", POOL, limits)
    with pytest.raises(redis.ResponseError, match="INVALID draw: the limits"):
        BROKER_SCRIPTS.run(stage.redis, "pool/draw", stage.keys.leases, *arguments)
    assert stage.field("a1", "state") == "placed"


@pytest.mark.parametrize(
    "limits", ["{}", '{"left":{}}', '{"left":[]}', '{"others":1}', '{"new":[1],"left":{"b":0}}']
)
def test_limits_may_be_few_and_have_more_than_is_known(stage, limits):
    stage.place("a1", tenant="a")
    arguments = (1, "v.1", 1, 1, LEASE_MS, 0, 0, "process", 0, 1, "body", POOL, limits)
    found = BROKER_SCRIPTS.run(stage.redis, "pool/draw", stage.keys.leases, *arguments)
    assert (found[2][0], found[3:]) == (b"a1", [0])


PLANTED = {
    "one draw takes any number": (
        "draw",
        "    note_probe(pool, tenant, id)\n    if limits then\n      limits.take(tenant)\n    end\n",
        "    note_probe(pool, tenant, id)\n",
        test_the_jobs_of_one_draw_count,
    ),
    "the first that has its share hides the others": (
        "draw",
        "ranks[tenants] = limits.pass_over(pool, tenants, rank)",
        "return false",
        test_a_tenant_without_any_left_is_passed_over_and_keeps_place_and_counter,
    ),
    "what is told again does not count": (
        "draw",
        "    if limits and tenant then\n      limits.take(tenant)\n    end\n",
        "",
        test_what_is_told_again_counts,
    ),
    "it is woken for whom it passes over": (
        "place",
        "elseif not does_pass_over(standing) and would_get",
        "elseif would_get",
        test_nobody_is_woken_for_a_tenant_that_it_passes_over,
    ),
    "the others are not woken": (
        "draw",
        "    wake_one(limits.woken_for, now, worker, tenant)\n",
        "",
        test_who_was_woken_for_what_it_may_not_have_wakes_another,
    ),
    "a hint is forgotten": (
        "release",
        "integer(now + avoid_ms)",
        "'0'",
        test_a_hint_says_how_long_a_worker_is_not_given_a_job_again,
    ),
}
"""Bugs: (script, what stands there, what is to stand there, which test sees it)."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_in_limits_is_caught(stage, bug, monkeypatch):
    script, original, planted, test = PLANTED[bug]
    plant(monkeypatch, (script, original, planted))
    with pytest.raises(AssertionError):
        test(stage)
