"""What Redis notes of what workers do, by which they are believed to live."""

import pytest
import redis

from support.hand_worker import HandWorker, growth
from support.pool_stage import OTHER, POOL, Stage, draw, note_recent_tick
from tether.broker.keys import Keys
from tether.broker.pools.worker_port import Pulse
from tether.discovery.fleet.liveness import Draws
from tether.discovery.over_redis.queue_evidence import QueueEvidence


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


@pytest.fixture
def evidence(stage):
    opened = QueueEvidence(stage.redis, stage.keys)
    yield opened
    opened.close()


def test_a_draw_is_noted_for_each_pool_that_it_asks_by_redis_s_clock(stage, evidence):
    worker = stage.worker("w.1")
    assert evidence.read().asked == {}
    draw(worker, pools=(POOL, OTHER))
    seen = evidence.read()
    assert set(seen.asked) == {Draws("w", POOL), Draws("w", OTHER)}
    assert all(0 <= seen.now - at < 60_000 for at in seen.asked.values())
    seconds, _ = stage.redis.time()
    assert abs(seen.now / 1000 - seconds) < 60


def test_a_worker_may_draw_from_some_of_its_pools_now_and_from_others_then(stage, evidence):
    worker = stage.worker("w.1")
    draw(worker, pools=(POOL, OTHER))
    stage.redis.hset(stage.keys.asked, "w", f"5 {POOL} {OTHER}")
    for _ in range(2):
        draw(worker, pools=(POOL,))
        asked = dict(evidence.read().asked)
        assert asked.pop(Draws("w", POOL)) > 5
        assert asked == {Draws("w", OTHER): 5}
    draw(worker, pools=(OTHER,))
    assert evidence.read().asked[Draws("w", OTHER)] > 5


def test_no_worker_s_notes_grow_and_hide_those_of_others(stage, evidence):
    draw(stage.worker("w.1"))
    liar = stage.worker("liar.1")
    for number in range(20):
        draw(liar, pools=[f"pool-{number}-{each}" for each in range(64)])
    (size, _) = (stage.redis.hlen(stage.keys.asked), stage.redis.zcard(stage.keys.seen))
    assert size == 2
    seen = evidence.read()
    assert Draws("w", POOL) in seen.asked
    assert {draws.pool for draws in seen.asked if draws.worker == "liar"} == {
        f"pool-19-{each}" for each in range(64)
    }


def test_a_draw_for_no_slot_asks_for_nothing(stage, evidence):
    draw(stage.worker("w.1"), count=0)
    assert evidence.read().asked == {}


def test_a_revoked_worker_s_draw_is_no_proof(stage, evidence):
    stage.redis.sadd(stage.keys.revoked, "w")
    with pytest.raises(Exception, match="was revoked"):
        draw(stage.worker("w.1"))
    assert evidence.read().asked == {}


def test_who_renews_a_lease_by_a_beat_or_with_tokens_works(stage, evidence):
    for number, renew in enumerate((beat, append)):
        name = f"w{number}"
        worker = stage.worker(f"{name}.1")
        stage.place(f"job-{number}")
        (job,) = draw(worker)
        assert name not in evidence.read().renewed
        renew(worker, job)
        seen = evidence.read()
        assert 0 <= seen.now - seen.renewed[name] < 60_000


def beat(worker, job):
    worker.beat([Pulse(job.job_id, job.fence, renew=False)])
    worker.beat([Pulse(job.job_id, job.fence, renew=True)])


def append(worker, job):
    worker.append(growth(job, 1))


def test_a_beat_that_renews_nothing_is_no_proof(stage, evidence):
    stage.place("job")
    worker = stage.worker("w.1")
    (job,) = draw(worker)
    worker.beat([Pulse(job.job_id, job.fence, renew=False)])
    assert evidence.read().renewed == {}


def test_a_woken_worker_that_does_not_come_is_noted(stage, evidence):
    worker = stage.worker("w.1")
    draw(worker)
    stage.place("job")
    assert stage.redis.zadd(stage.keys.leases, {"w w.1": 1}, xx=True, ch=True) == 1
    assert evidence.read().missed == {}
    stage.tick()
    seen = evidence.read()
    assert 0 <= seen.now - seen.missed[Draws("w", POOL)] < 60_000
    assert seen.missed[Draws("w", POOL)] >= seen.asked[Draws("w", POOL)]


def test_what_a_process_that_is_gone_misses_says_nothing_of_the_one_after_it(stage, evidence):
    draw(stage.worker("w.1"))
    stage.redis.hset(stage.keys.fleet_order, "w", "2:1")
    stage.place("job")
    assert stage.redis.zadd(stage.keys.leases, {"w w.1": 1}, xx=True, ch=True) == 1
    stage.tick()
    assert evidence.read().missed == {}


def test_a_pause_of_the_lease_loop_is_known_and_what_was_seen_long_ago_is_forgotten(stage, evidence):
    draw(stage.worker("w.1"))
    stage.redis.zadd(stage.keys.seen, {"r old": 1_000})
    stage.redis.hset(stage.keys.asked, "old", f"1000 {POOL}")
    stage.redis.hset(stage.keys.lease_tick, "at", 5_000)
    stage.pools.tick(600_000, 600_000)
    seen = evidence.read()
    assert (set(seen.asked), seen.renewed) == ({Draws("w", POOL)}, {})
    assert (seen.paused, 0 <= seen.now - seen.resumed < 60_000) == (5_000, True)
    note_recent_tick(stage.redis, stage.keys)
    stage.pools.tick(600_000, 600_000)
    assert evidence.read().resumed == seen.resumed


@pytest.mark.parametrize("run_id", [None, "another"], ids=["set back", "another took over"])
def test_what_was_seen_by_a_clock_that_was_set_back_is_not_in_the_future(stage, evidence, run_id):
    stage.place("job")
    worker = stage.worker("w.1")
    (job,) = draw(worker)
    beat(worker, job)
    draw(stage.worker("idle.1"), pools=(POOL, OTHER))
    seconds, _ = stage.redis.time()
    ahead = seconds * 1000 + 3_600_000
    # As a clock left it that was an hour ahead.
    for mark in stage.redis.zrange(stage.keys.seen, 0, -1):
        stage.redis.zadd(stage.keys.seen, {mark: ahead})
    stage.redis.hset(stage.keys.asked, "idle", f"{ahead} {POOL} {OTHER}\t5 x-{ahead}\t{ahead} y")
    stage.redis.hset(f"{stage.keys.prefix}:fleet:since", "idle", f"5 {ahead} {ahead}")
    stage.redis.zadd(stage.keys.fleet_expiry, {"idle": ahead, "w": ahead - 7_200_000})
    stage.redis.zadd(stage.keys.leases, {"j job": ahead})
    tick = {"at": ahead, "paused": ahead - 5_000, "resumed": ahead} | ({"run_id": run_id} if run_id else {})
    stage.redis.hset(stage.keys.lease_tick, mapping=tick)
    stage.pools.tick(600_000, 600_000)
    seen = evidence.read()
    assert max(seen.renewed["w"], *seen.asked.values(), seen.paused, seen.resumed) <= seen.now
    assert (
        seen.asked["idle", POOL] == seen.asked["idle", OTHER] == seen.asked["idle", "y"] > seen.now - 60_000
    )
    assert seen.asked["idle", f"x-{ahead}"] == 5
    (first, former, latest) = seen.known["idle"]
    assert first == 5
    assert former == latest <= seen.now
    assert seen.now - 60_000 < stage.redis.zscore(stage.keys.fleet_expiry, "idle") <= seen.now + 60_000
    assert stage.redis.zscore(stage.keys.fleet_expiry, "w") == ahead - 7_200_000
    assert stage.redis.zscore(stage.keys.leases, "j job") <= seen.now + 600_000


def test_at_the_memory_limit_a_draw_is_noted_all_the_same(redis_server):
    keys = Keys("full")
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(keys.epoch, 1)
        worker, evidence = HandWorker(client, keys, "w.1"), QueueEvidence(client, keys)
        try:
            worker.hello()
            client.config_set("maxmemory", 1)
            assert worker.draw(1, [POOL], busy=True).again_in_ms == 500
            assert set(evidence.read().asked) == {Draws("w", POOL)}
        finally:
            worker.close()
            evidence.close()
