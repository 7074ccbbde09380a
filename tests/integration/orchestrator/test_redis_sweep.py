"""Every key of a job leaves Redis, whatever became of the job and whoever was killed on the way."""

import itertools

import pytest
import redis

from support.core_steps import CoreSteps
from support.databases import OTHER_POOL, POOL
from support.hand_worker import LEASE_MS, HandWorker, growth
from support.pool_stage import note_recent_tick
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.key_owners import KeyKind, owned_key
from tether.errors import StoreUnavailable
from tether.jobs import JobError, Priority
from tether.orchestrator.redis_sweep import BATCH, SEALING_MS, SERVED_LIFE_MS, SweepRedis
from tether.store.end_requests import Request

LIFE_MS = 100
DAY_MS = 86_400_000
BOOTS = itertools.count(1)


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace, life_ms=LIFE_MS)
    made.pools.tick(LEASE_MS, DAY_MS)
    yield made
    made.close()


def sweep_of(core, grace_ms=0):
    return SweepRedis(core.store, core.pools, life_ms=LIFE_MS, now_ms=core.clock, grace_ms=grace_ms)


def sweep(core, grace_ms=0):
    core.later(SEALING_MS + 1)
    run_pass(sweep_of(core, grace_ms))


def ends_soon(core, name):
    """Whether a job's hash has a life, or has had it."""
    return -1 != core.redis.pttl(core.keys.job(name)) <= LIFE_MS


def run_pass(step):
    while step() < 1:
        pass


def job_id(number):
    return f"job-{number:06}"


def worker(core):
    made = HandWorker(core.redis, core.keys, f"killed.{next(BOOTS)}")
    made.hello()
    return made


def lose(core, number):
    """The worker that runs this job is killed."""
    core.pools.tick(LEASE_MS, DAY_MS)
    assert core.redis.zadd(core.keys.leases, {f"j {job_id(number)}": 1}, xx=True, ch=True) == 1
    note_recent_tick(core.redis, core.keys)
    return core.pools.tick(LEASE_MS, DAY_MS).lost


def cancel(core, number):
    return core.ending.end([Request(None, job_id(number), "cancelled", core.now)])


def place_unknown(core, name, pool):
    dispatch = Dispatch(
        job_id=name,
        dispatch=1,
        pool=pool,
        tenant="default",
        priority=Priority.STANDARD,
        weight=1.0,
        deadline=0,
        cost=1,
        max_tokens=16,
        body=b'{"v":1}',
        options=b"{}",
    )
    assert core.pools.place([dispatch]) == [PlaceResult.PLACED]


def succeed(core):
    core.submit(*range(5))
    core.finish(5)
    core.settle()


def die(core):
    core.submit(5)
    core.worker.fail(growth(*core.draw(), 2), kind="failed", error=JobError("engine_failed", "x"))
    core.settle()
    assert core.states(5) == ["dead"]


def be_cancelled_between_two_attempts(core):
    core.submit(6)
    error = JobError("engine_failed", "x", retryable=True)
    core.worker.fail(growth(*core.draw(), 2), kind="failed", error=error)
    core.settle()
    assert core.states(6) == ["waiting_retry"]
    cancel(core, 6)


def be_cancelled_while_waiting(core):
    core.submit(7)
    core.submit(8, pool=OTHER_POOL)
    cancel(core, 7)
    cancel(core, 8)


def be_cancelled_while_running(core):
    core.submit(9)
    (job,) = core.draw()
    cancel(core, 9)
    core.worker.fail(growth(job, 1), kind="cancelled", error=JobError("cancelled", "x"))
    core.settle()


def expire(core):
    core.submit(10, deadline=core.now + 1)
    core.later()
    core.deadlines()
    assert core.states(10) == ["expired"]


def poison(core):
    core.submit(11)
    for _ in range(2):
        killed = worker(core)
        (job,) = killed.draw(1, [POOL], busy=False).jobs
        assert job.job_id == job_id(11)
        assert killed.gone(killed.boot_id, killed.process, "signal 11")
        killed.close()
        # It has died alone before, more than once, and nothing else has run.
        core.redis.hset(core.keys.job(job_id(11)), "suspicion", "1000 9999999999999 1 2 0 1")
    core.settle()
    assert core.states(11) == ["dead"]


def survive_a_worker(core):
    core.submit(12)
    killed = worker(core)
    killed.append(growth(*killed.draw(1, [POOL], busy=False).jobs, 2))
    killed.close()
    lose(core, 12)
    core.worker.finish(growth(*core.draw(), 1))
    core.settle()
    assert core.states(12) == ["succeeded"]


def be_concluded_by_who_is_killed_before_the_seal(core):
    core.submit(13)
    core.submit(14, pool=OTHER_POOL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.pools, "seal_many", lambda jobs, *_: [redis.ResponseError("lost") for _ in jobs])
        cancel(core, 13)
        patch.setattr(core.pools, "seal_many", _die)
        with pytest.raises(KeyboardInterrupt):
            cancel(core, 14)
    assert core.states(13, 14) == ["cancelled"] * 2


def _die(*_):
    raise KeyboardInterrupt


def be_settled_and_never_sealed(core):
    core.submit(15)
    core.finish(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.pools, "seal_many", lambda jobs, *_: ["sealed" for _ in jobs])
        core.settle()


def lose_the_hash(core):
    core.submit(16)
    core.finish(1)
    core.redis.delete(core.keys.job(job_id(16)))
    core.settle()
    core.redis.delete(core.keys.job(job_id(16)))


def be_unknown(core):
    place_unknown(core, "unknown-ended", POOL)
    core.finish(1)
    place_unknown(core, "unknown-running", POOL)
    place_unknown(core, "unknown-waiting", OTHER_POOL)
    worker(core).draw(1, [POOL], busy=False)
    core.settle()


FATES = (
    *(succeed, die, be_cancelled_between_two_attempts, be_cancelled_while_waiting),
    *(be_cancelled_while_running, expire, poison, survive_a_worker),
    *(be_concluded_by_who_is_killed_before_the_seal, be_settled_and_never_sealed, lose_the_hash, be_unknown),
)


def all_keys(core):
    return sorted(core.redis.scan_iter(core.keys.prefix + ":*"))


def of_kind(core, *kinds):
    keys = [owned_key(core.keys.prefix, name) for name in all_keys(core)]
    return [key.name for key in keys if key is not None and key.kind in kinds]


def test_no_key_of_a_job_is_left_whatever_became_of_it(core):
    for fate in FATES:
        fate(core)
    core.reconcile()
    core.settle()
    assert of_kind(core, KeyKind.JOB), "there is something to sweep"
    sweep(core)
    eventually(
        lambda: not of_kind(core, KeyKind.JOB, KeyKind.STREAM), PATIENCE_SECONDS, "all keys of jobs expire"
    )
    sweep(core)
    note_recent_tick(core.redis, core.keys)
    core.pools.tick(LEASE_MS, DAY_MS)
    assert of_kind(core, *(set(KeyKind) - {KeyKind.IDLE, KeyKind.SERVED})) == []
    for key in of_kind(core, KeyKind.SERVED):
        assert 0 < core.redis.pttl(key) <= SERVED_LIFE_MS
    core.outcomes.trim()
    leases = core.redis.zrange(core.keys.leases, 0, -1)
    assert [member for member in leases if member.startswith(b"j ")] == []
    assert core.pending() == 0
    # What is left is of the namespace or of a worker, and either one of a kind or with a life.
    rest = set(all_keys(core)) - set(of_kind(core, *KeyKind))
    kept = [key for key in rest if core.redis.pttl(key) == -1]
    assert all(key.startswith(f"{core.keys.prefix}:core:".encode()) for key in kept), kept


def test_jobs_that_wait_and_run_are_left_alone(core):
    core.submit(0, 1)
    core.submit(2, pool=OTHER_POOL)
    (running,) = core.draw()
    # Of the others some live for seconds, which the sweep may take.
    kept = [name for name in all_keys(core) if core.redis.pttl(name) == -1]
    assert core.keys.job(job_id(0)).encode() in kept
    before = {name: core.redis.dump(name) for name in kept}
    for _ in range(2):
        sweep(core)
    served = set(of_kind(core, KeyKind.SERVED))
    after = {name: core.redis.dump(name) for name in all_keys(core)}
    assert {name for name in before if before[name] != after.get(name)} <= served
    core.worker.finish(growth(running, 1))
    core.finish(1)
    core.settle()
    assert core.states(0, 1, 2) == ["succeeded", "succeeded", "placed"]


def test_a_job_that_the_database_does_not_know_goes_on_for_a_while_and_is_forgiven(core):
    place_unknown(core, job_id(0), POOL)
    sweep(core, grace_ms=DAY_MS)
    name = core.keys.job(job_id(0))
    assert core.redis.hexists(name, "unknown_since")
    sweep(core, grace_ms=DAY_MS)
    assert core.redis.hget(name, "state") == b"placed"
    # It was the wrong database.
    core.submit(0)
    sweep(core, grace_ms=DAY_MS)
    assert not core.redis.hexists(name, "unknown_since")
    core.finish(1)
    core.settle()
    assert core.states(0) == ["succeeded"]


def test_no_job_is_taken_for_unknown_while_the_database_is_away(core, monkeypatch):
    core.submit(0)

    def read(*_):
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(core.store, "read", read)
        with pytest.raises(StoreUnavailable):
            sweep(core)
    assert not core.redis.hexists(core.keys.job(job_id(0)), "unknown_since")
    core.finish(1)


def test_long_lists_are_tidied_in_chunks_and_keep_what_waits(core):
    numbers = range(2 * BATCH + 20)
    core.submit(*numbers)
    gone = [number for number in numbers if number % 3]
    core.ending.end([Request(None, job_id(number), "cancelled", core.now) for number in gone])
    (name,) = of_kind(core, KeyKind.LIST)
    assert core.redis.llen(name) == len(numbers)
    sweep(core)
    left = [entry.split()[0].decode() for entry in core.redis.lrange(name, 0, -1)]
    assert left == [job_id(number) for number in numbers if number % 3 == 0]


def test_counters_that_say_nothing_leave_and_the_others_stay(core):
    served = f"{core.keys.prefix}:served:{POOL}:standard"
    core.redis.hset(served, mapping={"floor": "10.5", "t:low": "3", "t:at": "10.5", "t:high": "11"})
    sweep(core)
    assert core.redis.hgetall(served) == {b"floor": b"10.5", b"t:high": b"11", b"swept": b"10.5"}
    core.redis.pexpire(served, 1_000)
    sweep(core)
    assert core.redis.pttl(served) <= 1_000, "nobody has drawn since"
    core.redis.hset(served, "floor", "10.6")
    sweep(core)
    assert core.redis.pttl(served) > 1_000


def test_idle_workers_that_are_gone_and_jobs_that_they_do_not_run_leave(core):
    core.draw()
    idle, drawn = f"{core.keys.prefix}:pool:{POOL}:idle", f"{core.keys.prefix}:drawn:gone.1"
    core.redis.sadd(idle, *(f"gone.{number}" for number in range(600)))
    core.redis.hset(drawn, job_id(0), 1)
    sweep(core)
    assert core.redis.smembers(idle) == {b"hands.1"}
    assert not core.redis.exists(drawn)


def test_an_end_that_was_just_committed_is_left_to_whoever_seals_it(core):
    be_settled_and_never_sealed(core)
    run_pass(sweep_of(core))
    assert core.redis.pttl(core.keys.job(job_id(15))) == -1
    sweep(core)
    assert ends_soon(core, job_id(15))


def test_a_key_of_another_type_holds_up_no_other(core):
    core.redis.set(f"{core.keys.prefix}:drawn:odd.1", "x")
    core.redis.set(core.keys.job("odd"), "x")
    before = core.failures("redis-sweep")
    be_settled_and_never_sealed(core)
    sweep(core)
    assert ends_soon(core, job_id(15))
    assert core.failures("redis-sweep") == before + 1
    assert ends_soon(core, "odd")
