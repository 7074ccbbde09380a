"""Breakers over a real Redis: shared, decided once, and put right where what stands there is not theirs."""

import threading
from dataclasses import replace

import pytest
import redis

from support.core_steps import CoreSteps
from support.hand_worker import growth
from tether.attempts import AttemptEnd
from tether.broker.pools.breaker_records import MAX_ATTEMPTS_NOTED
from tether.jobs import JobError
from tether.models.registry import ModelVersion, Registry, pool_name
from tether.orchestrator.breakers import JudgeBreakers
from tether.orchestrator.ended_probes import PLACED_WITHIN_MS
from tether.orchestrator.noted_attempts import NoteAttempts
from tether.outcomes import Fence, Outcome, OutcomeKind
from tether.scheduling.attempt_samples import AttemptSample
from tether.scheduling.breaker import Breaker, BreakerName, BreakerRules, BreakerState, TripCause
from tether.scheduling.breaker_codec import breaker_to_bytes, sample_to_bytes
from tether.scheduling.known_breakers import STALE_BREAKERS_SECONDS, KnownBreakers
from tether.scheduling.shared_breakers import SharedBreakers

MODEL = ModelVersion(name="meta/llama:8b", version="1", digest="0" * 64, context=64)
NAME = BreakerName("meta/llama:8b", "1", "local")
RULES = BreakerRules(min_samples=4, open_ms=1_000, max_open_ms=60_000)
BROKE = JobError("engine_failed", "x", retryable=True)


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


@pytest.fixture
def shared(core):
    return SharedBreakers(core.pools, Registry([MODEL]), RULES)


def redis_now(core):
    seconds, microseconds = core.redis.time()
    return seconds * 1000 + microseconds // 1000


def ended(core, number, error=BROKE, *, tenant=None, pool=None, age=0, cause="failed"):
    at = redis_now(core) - age
    fence = Fence(1, 1, f"worker-{number % 3}.1:{number}")
    end = AttemptEnd(
        dispatch=1,
        attempt=1,
        draw_id=fence.draw_id,
        pool=pool or pool_name("cpu", "local", MODEL),
        run=0,
        offset=0,
        started_at=at,
        start_offset=0,
        ended_at=at,
        cause=cause,
        went="database",
    )
    kind = OutcomeKind.FAILED if error else OutcomeKind.SUCCEEDED
    outcome = Outcome(job_id=f"job-{number}", kind=kind, fence=fence, error=error, ends=(end,))
    return outcome, tenant or f"tenant-{number % 2}"


def judge(core, shared):
    JudgeBreakers(core.store, shared, now_ms=lambda: redis_now(core))()


def opened(core, shared):
    shared.note([ended(core, number) for number in range(8)], silent_too=False)
    judge(core, shared)
    return shared.told()[NAME]


def half_opened(core, shared):
    opened(core, shared)
    return shared.change(NAME, lambda breaker, samples, now: replace(breaker, until=now))


def test_failures_open_it_for_every_reader(core, shared):
    known = KnownBreakers(shared, lambda: redis_now(core))
    known()
    assert known.shut() == {}
    breaker = opened(core, shared)
    assert breaker.state(redis_now(core)) is BreakerState.OPEN
    known()
    assert known.shut() == {NAME: breaker}


@pytest.mark.parametrize(
    "end",
    [
        {"error": JobError("request_invalid", "x", retryable=False)},
        {"error": None, "cause": "cancelled"},
        {"error": None, "cause": "expired"},
        {"error": None, "cause": "released"},
        {"error": None, "cause": "lease_lost"},
        {"error": None, "cause": "gone"},
        {"error": None, "cause": "revoked"},
        {"error": None, "cause": "withdrawn"},
        {"error": BROKE, "pool": "gpu.cpu.local.other-ffffffff"},
    ],
)
def test_what_is_no_fault_of_the_model_never_counts(core, shared, end):
    shared.note([ended(core, number, **{"error": BROKE, **end}) for number in range(50)], silent_too=True)
    judge(core, shared)
    assert shared.told() == {}


def test_one_of_many_that_ask_at_once_may_try(core, shared):
    half_opened(core, shared)
    answers = {}

    def ask(number):
        answers[number] = shared.claim(NAME, f"job-{number}", "red")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers.values()) == [False] * 5 + [True]
    (winner,) = [number for number, answer in answers.items() if answer]
    assert shared.told()[NAME].probe.job_id == f"job-{winner}"
    assert shared.claim(NAME, f"job-{winner}", "red")


def test_a_good_probe_closes_it_and_two_orchestrators_agree(core, shared):
    half_opened(core, shared)
    assert shared.claim(NAME, "probe", "red")
    shared.note([ended(core, 99, None, cause="succeeded")], silent_too=True)
    other = SharedBreakers(core.pools, Registry([MODEL]), RULES)
    judge(core, shared)
    judge(core, other)
    assert shared.told() == other.told() == {}
    assert shared.claim(NAME, "any", "red")


def test_a_decision_by_what_is_no_longer_so_is_not_written(core, shared):
    opened(core, shared)
    (former,) = shared.read_all(0)
    shared.reset(NAME)
    assert not shared.write(former, replace(former.breaker, trips=9))
    assert shared.told() == {}


def test_a_reset_closes_it_and_what_failed_before_does_not_open_it_again(core, shared):
    opened(core, shared)
    assert shared.reset(NAME).cause is not None
    judge(core, shared)
    assert shared.told() == {}


def test_a_lost_redis_begins_closed(core, shared):
    opened(core, shared)
    core.redis.delete(core.keys.breaker(NAME.text), core.keys.breaker_attempts(NAME.text))
    judge(core, shared)
    assert shared.told() == {}


def test_what_readers_are_told_is_written_again_where_it_alone_is_lost(core, shared):
    breaker = opened(core, shared)
    core.redis.delete(core.keys.open_breakers)
    judge(core, shared)
    assert shared.told() == {NAME: breaker}


@pytest.mark.parametrize(
    "bytes_there", [b"x", b"{}", b'{"v":9}', b"[1]", b"\xff", b'{"v":1,"until":-1}', b"["]
)
def test_unreadable_bytes_cost_one_breaker_and_are_put_right(core, shared, bytes_there):
    opened(core, shared)
    other = BreakerName("other", "1", "local")
    core.redis.hset(core.keys.breaker(NAME.text), "kept", bytes_there)
    core.redis.hset(core.keys.open_breakers, mapping={NAME.text: bytes_there, "odd": b"x"})
    core.redis.rpush(core.keys.breaker_attempts(NAME.text), bytes_there)
    shared.change(
        other, lambda breaker, samples, now: replace(breaker, cause=TripCause.FAILURES, until=now + 10**6)
    )
    assert other in shared.told()
    shared.note([ended(core, number) for number in range(8)], silent_too=False)
    judge(core, shared)
    assert {NAME, other} <= shared.told().keys()


@pytest.mark.parametrize("key", ["breaker", "breaker_attempts", "breakers", "open_breakers"])
def test_a_key_of_another_type_is_put_right(core, shared, key):
    opened(core, shared)
    found = getattr(core.keys, key)
    name = found(NAME.text) if callable(found) else found
    core.redis.delete(name)
    core.redis.set(name, "x")
    judge(core, shared)
    shared.note([ended(core, number) for number in range(8)], silent_too=False)
    judge(core, shared)
    assert NAME in shared.told()


def test_what_is_stale_is_not_known(core, shared):
    at = [0.0]
    known = KnownBreakers(shared, lambda: redis_now(core), lambda: at[0])
    opened(core, shared)
    known()
    assert known.shut()
    at[0] = STALE_BREAKERS_SECONDS
    assert known.shut() == {}


def test_settling_notes_what_failed_with_its_tenant_once(core, shared):
    known = KnownBreakers(shared, lambda: redis_now(core))
    core.settle_step._on_settled = NoteAttempts(shared, known)
    core.submit(1, 2, tenant_id="default")
    for job in core.draw(2):
        core.worker.fail(growth(job), kind="failed", error=BROKE)
    core.settle()
    core.settle()
    (read,) = shared.read_all(0)
    assert {(one.job_id, one.tenant, one.blame) for one in read.samples} == {
        (f"job-{number:06}", "default", 1.0) for number in (1, 2)
    }
    assert read.name == NAME
    assert len(read.samples) == 2


@pytest.mark.parametrize("number", [b"x", b"9999999999999999", b"1e3", b"0x10", b"007", b""])
def test_a_number_of_writes_that_is_none_keeps_nobody_from_writing(core, shared, number):
    opened(core, shared)
    core.redis.hset(core.keys.breaker(NAME.text), "write", number)
    shared.reset(NAME)
    assert shared.told() == {}


def test_a_breaker_that_cannot_be_written_costs_itself(core, shared, monkeypatch):
    odd = BreakerName("a", "1", "local")
    write = shared.write
    shared.change(odd, lambda breaker, samples, now: replace(breaker, cause=TripCause.FAILURES))
    core.redis.hdel(core.keys.open_breakers, odd.text)

    def broken(read, breaker):
        if read.name == odd:
            raise ValueError("surrogates not allowed")
        return write(read, breaker)

    monkeypatch.setattr(shared, "write", broken)
    assert NAME not in shared.told()
    opened(core, shared)


def test_names_that_are_none_of_ours_are_passed_over(core, shared):
    text = breaker_to_bytes(Breaker(cause=TripCause.FAILURES, until=2**52))
    names = ("x" * 1_000 + "@1:local", b"\xff@1:local", "a@1:lo\ncal")
    core.redis.hset(core.keys.open_breakers, mapping=dict.fromkeys(names, text))
    assert shared.told() == {}
    opened(core, shared)


def test_attempts_of_one_breaker_that_are_refused_cost_no_others(core, shared, monkeypatch):
    records = shared._records
    run = records._pools.run_script

    def refused(name, breaker, *arguments):
        if breaker == "a":
            raise redis.ResponseError("ERR it is too long")
        return run(name, breaker, *arguments)

    monkeypatch.setattr(records._pools, "run_script", refused)
    records.note({"a": [b"x"], NAME.text: [b"y"]}, 60_000, 40)
    assert core.redis.lrange(core.keys.breaker_attempts(NAME.text), 0, -1) == [b"y"]


def attempts_of(tenant, count, at, blame=1.0):
    return [
        sample_to_bytes(
            AttemptSample(
                at=at, began_at=at, job_id=f"{tenant}-{n}", tenant=tenant, worker=f"w-{n % 3}", blame=blame
            )
        )
        for n in range(count)
    ]


def test_a_tenant_with_many_failures_pushes_out_nobody_s_success(core, shared):
    at = redis_now(core)
    records = shared._records
    records.note({NAME.text: attempts_of("blue", 3, at, 0.0)}, 60_000, 8)
    for _ in range(3):
        records.note({NAME.text: attempts_of("red", 2_000, at)}, 60_000, 8)
    (read,) = shared.read_all(0)
    assert [one.job_id for one in read.samples if one.tenant == "blue"] == ["blue-0", "blue-1", "blue-2"]
    assert len(read.samples) <= MAX_ATTEMPTS_NOTED
    judge(core, shared)
    assert shared.told() == {}


def test_many_tenants_keep_some_of_each_the_newest_last(core, shared):
    at = redis_now(core)
    for n in range(0, 1_500, 100):
        texts = [text for m in range(n, n + 100) for text in attempts_of(f"t-{m}", 4, at)]
        shared._records.note({NAME.text: texts}, 60_000, 8)
    (read,) = shared.read_all(0)
    assert len({one.tenant for one in read.samples}) == 1_500
    assert [one.job_id for one in read.samples if one.tenant == "t-1499"] == [f"t-1499-{n}" for n in range(4)]


def test_garbage_among_attempts_is_dropped_where_there_are_too_many(core, shared):
    name = core.keys.breaker_attempts(NAME.text)
    core.redis.rpush(name, *[b"\xff"] * 5_000)
    opened(core, shared)
    assert core.redis.llen(name) == 8


@pytest.mark.parametrize("job_id", ["job-that-never-came", "job-000001"])
def test_a_probe_whose_job_is_in_no_pool_of_it_frees_the_way(core, shared, job_id):
    half_opened(core, shared)
    core.submit(1, 2)
    core.redis.delete(core.keys.breaker_attempts(NAME.text))
    loop = JudgeBreakers(core.store, shared, now_ms=lambda: redis_now(core))

    def aged(breaker, samples, now):
        return replace(breaker, probe=replace(breaker.probe, claimed_at=now - PLACED_WITHIN_MS))

    assert shared.claim(NAME, job_id, "red")
    shared.change(NAME, aged)
    if job_id == "job-000001":
        loop()
        loop()
        assert shared.told()[NAME].probe.job_id == job_id, "it waits in its pool"
        core.pools.withdraw_many([(job_id, 1)], running=False)
        core.settle()
        assert core.states(1) == ["parked"]
    loop()
    assert shared.told()[NAME].probe is not None, "what became of it may not be known yet"
    loop()
    assert shared.told()[NAME].probe is None
    assert shared.claim(NAME, "next", "red")


def test_a_probe_that_was_claimed_a_moment_ago_is_not_freed(core, shared):
    half_opened(core, shared)
    assert shared.claim(NAME, "not-yet-placed", "red")
    loop = JudgeBreakers(core.store, shared, now_ms=lambda: redis_now(core))
    for _ in range(3):
        loop()
    assert shared.told()[NAME].probe.job_id == "not-yet-placed"
