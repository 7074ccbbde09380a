"""Whole workers of which one tenant may have a share: what runs at once, and that nothing stands still."""

import threading
from collections import Counter

import pytest

from support.inference import InferenceBench, whole_answer
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools import consumer, redis_port
from tether.broker.pools.draw_limits import NO_LIMITS
from tether.jobs import JobState
from tether.telemetry import metrics
from tether_workers import runtime
from tether_workers.base import BaseWorker, ResultKind
from tether_workers.tenant_shares import TenantShares

FOREVER_MS = 10_000 * PATIENCE_SECONDS


@pytest.fixture
def make_bench(tmp_path):
    benches = []

    def make(*, tokens_per_second=0.0, **worker):
        bench = InferenceBench(tmp_path, tokens_per_second=tokens_per_second, lease_ms=FOREVER_MS)
        bench.values["worker"] |= worker
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        bench.close()


class Team(BaseWorker):
    """Counts what runs at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = Counter()
        self.most = Counter()
        self.kinds = Counter()

    def authorize(self, job):
        with self.lock:
            self.running[job.tenant] += 1
            self.most[job.tenant] = max(self.most[job.tenant], self.running[job.tenant])

    def after_result(self, job, result):
        with self.lock:
            self.running[job.tenant] -= 1
            self.kinds[result.kind] += 1


def count_of(action):
    return metrics.TENANT_SHARES.labels(action=action).value


def running(bench, job_ids):
    return [
        job_id
        for job_id, state in zip(job_ids, bench.states_at_once(job_ids), strict=True)
        if state == "running"
    ]


def cancel(bench, job_ids):
    bench.pools.cancel_many([(job_id, JobState.CANCELLED) for job_id in job_ids])


def test_one_tenant_has_its_share_of_the_slots_and_anothers_job_starts_at_once(make_bench):
    bench = make_bench(tokens_per_second=0.001, tenant_share=0.5)
    many = [bench.place(number, tenant="many") for number in range(8)]
    before = count_of("passed_over")
    bench.start_worker()
    eventually(lambda: len(running(bench, many)) == 2, PATIENCE_SECONDS, "half of the slots are taken")
    eventually(lambda: count_of("passed_over") > before, PATIENCE_SECONDS, "the rest is passed over")
    few = [bench.place(number, tenant="few") for number in (100, 101)]
    for job_id in few:
        bench.wait_for_state(job_id, "running")
    assert running(bench, many) == many[:2]
    cancel(bench, many[:1])
    bench.wait_for_state(many[2], "running")
    assert running(bench, many) == many[1:3]
    cancel(bench, [*many, *few])
    for job_id in (*many, *few):
        bench.wait_for_state(job_id, "cancelled")


@pytest.fixture
def only_bells(monkeypatch):
    """Who waits for a bell that does not ring waits for longer than any test."""

    def waiting_for_ever(*arguments, timeout, **more):
        return consumer.PoolConsumer(*arguments, timeout=FOREVER_MS, **more)

    monkeypatch.setattr(consumer, "MAX_PAUSE_SECONDS", FOREVER_MS / 1000)
    monkeypatch.setattr(runtime, "PoolConsumer", waiting_for_ever)
    monkeypatch.setattr(redis_port, "max_block_seconds", lambda settings: FOREVER_MS / 1000)


def stop(bench, worker):
    """Stop a worker whose draws wait for a bell alone."""
    stopping = threading.Thread(target=bench.stop_worker, args=(worker,))
    stopping.start()

    def is_gone():
        for key in bench.client.scan_iter("{tether}:idle:*"):
            bench.client.rpush(key.replace(b":idle:", b":wake:"), "draw")
        return not stopping.is_alive()

    eventually(is_gone, PATIENCE_SECONDS, "the worker has stopped")


@pytest.mark.parametrize(("share", "most"), [(0.25, 1), (0.5, 2)])
def test_a_tenant_alone_gets_all_done_with_its_share_and_waits_for_nobody(
    make_bench, only_bells, share, most
):
    bench = make_bench(tenant_share=share)
    team = Team()
    worker = bench.start_worker(base=team)
    jobs = [bench.place(number, max_tokens=5, tenant="many") for number in range(60)]
    for job_id in jobs:
        bench.wait_for_state(job_id, "succeeded")
        assert bench.texts(job_id) == whole_answer(5)
    eventually(lambda: team.kinds.total() == 60, PATIENCE_SECONDS, "all hooks ran")
    assert team.most["many"] <= most
    assert team.kinds == {ResultKind.SUCCEEDED: 60}, "none was handed back"
    stop(bench, worker)


def test_many_tenants_get_all_done_beside_each_other(make_bench, only_bells):
    bench = make_bench(tokens_per_second=2_000.0, tenant_share=0.5)
    team = Team()
    worker = bench.start_worker(base=team)
    jobs = [bench.place(number, max_tokens=number % 7 + 1, tenant=f"t{number % 5}") for number in range(150)]
    for job_id in jobs:
        bench.wait_for_state(job_id, "succeeded")
    assert max(team.most.values()) <= 2
    assert team.kinds[ResultKind.RELEASED] == 0
    stop(bench, worker)


def test_two_workers_share_what_one_tenant_has(make_bench, only_bells):
    bench = make_bench(tenant_share=0.25)
    workers = [bench.start_worker() for _ in range(2)]
    jobs = [bench.place(number, max_tokens=3, tenant="many") for number in range(60)]
    for job_id in jobs:
        bench.wait_for_state(job_id, "succeeded")
    for worker in workers:
        stop(bench, worker)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The one by which tenants pay for their tokens."""
    clock = Clock()
    monkeypatch.setattr(runtime, "TenantShares", lambda share, _: TenantShares(share, clock))
    return clock


def test_who_makes_too_many_tokens_waits_until_it_has_paid_and_others_do_not(make_bench, clock):
    bench = make_bench(tenant_tokens_per_second=10)
    bench.start_worker()
    bench.wait_for_state(bench.place(1, max_tokens=200, tenant="many"), "succeeded")
    before = count_of("passed_over")
    more = [bench.place(number, max_tokens=10, tenant="many") for number in (2, 3)]
    for number in range(10, 20):
        bench.wait_for_state(bench.place(number, max_tokens=5, tenant=f"few-{number}"), "succeeded")
    eventually(lambda: count_of("passed_over") > before, PATIENCE_SECONDS, "it is passed over")
    assert bench.states_at_once(more) == ["placed", "placed"]
    clock.now += 9.9
    bench.wait_for_state(bench.place(30, max_tokens=5, tenant="few"), "succeeded")
    assert bench.states_at_once(more) == ["placed", "placed"]
    # Both at once make less than a burst together.
    clock.now += 5
    for job_id in more:
        bench.wait_for_state(job_id, "succeeded")


class Blind(TenantShares):
    """Its draws are told of no limits, as one is that waited while a tenant reached its share."""

    def limits(self, running):
        super().limits(running)
        return NO_LIMITS


def test_what_was_drawn_though_its_tenant_has_its_share_is_handed_back_and_no_attempt(
    make_bench, monkeypatch
):
    monkeypatch.setattr(runtime, "TenantShares", Blind)
    bench = make_bench(tokens_per_second=0.001, tenant_share=0.5)
    before = count_of("handed_back")
    bench.start_worker()
    many = [bench.place(number, tenant="many") for number in range(3)]
    eventually(lambda: count_of("handed_back") > before, PATIENCE_SECONDS, "one is too many")
    bench.wait_for_state(many[2], "placed")
    other = bench.place(10, tenant="few")
    bench.wait_for_state(other, "running")
    assert running(bench, many) == many[:2]
    cancel(bench, many[:2])
    bench.wait_for_state(many[2], "running")
    assert bench.outcomes()[-1]["kind"] == "cancelled", "no attempt has ended in a failure"
    cancel(bench, [many[2], other])
    for job_id in (many[2], other):
        bench.wait_for_state(job_id, "cancelled")


def test_too_many_tokens_in_the_meantime_carry_the_time_until_it_may(make_bench, clock, monkeypatch):
    class Made(Blind):
        def __init__(self, share, _):
            super().__init__(share, clock)
            self.note("many", 1_000)

    monkeypatch.setattr(runtime, "TenantShares", Made)
    bench = make_bench(tenant_tokens_per_second=10)
    before = count_of("handed_back")
    bench.start_worker()
    job_id = bench.place(1, tenant="many")

    def hint():
        state, until = bench.client.hmget(bench.keys.job(job_id), "state", "avoid_until")
        return state == b"placed" and int(until) - bench.client.time()[0] * 1000

    eventually(lambda: count_of("handed_back") > before, PATIENCE_SECONDS, "it is handed back")
    # Of the whole second that has begun some has passed.
    assert 3_000 < eventually(hint, PATIENCE_SECONDS, "it waits again") <= 11_000
    bench.wait_for_state(bench.place(2, tenant="few"), "succeeded")
    assert bench.state(job_id) == "placed"
    clock.now += 61
    bench.client.hset(bench.keys.job(job_id), "avoid_until", "0")
    bench.wait_for_state(job_id, "succeeded")
