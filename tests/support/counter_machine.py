"""A state machine that draws from pools, and holds each draw against a pure Virtual Token Counter.

Tenants of different weights come, leave and return; several workers draw from several pools; jobs are
handed back, cancelled, end well or not, some draws are limited, and years pass. Weights are powers of two:
nothing is rounded.
"""

import itertools

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from support.hand_worker import growth
from support.pool_stage import OTHER, POOL, Stage
from support.token_counters import TokenCounters, WaitingJob
from tether.broker.pools.draw_limits import NO_LIMITS, DrawLimits
from tether.jobs import JobError, Priority

WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.0, "e": 4.0}
POOLS = (POOL, OTHER)
BAD_REQUEST = JobError("request_invalid", "x", retryable=False)
YEARS = 2.0**37
MAX_CANCELLED = 5


class RunningJob:
    def __init__(self, drawn, worker, job, counters):
        self.drawn, self.worker, self.job, self.counters = drawn, worker, job, counters
        self.made = drawn.offset


class CounterMachine(RuleBasedStateMachine):
    server = None
    namespace = ""

    @initialize()
    def begin(self):
        self.stage = Stage(self.server, self.namespace)
        self.workers = [self.stage.worker(f"{name}.1") for name in ("one", "two", "three")]
        self.counters = {(pool, priority): TokenCounters() for pool in POOLS for priority in Priority}
        self.running = []
        self.numbers = itertools.count(1)

    tenants = st.sampled_from(sorted(WEIGHTS))
    # Mostly one and the same, in which something happens then.
    pools = st.sampled_from((POOL, POOL, POOL, OTHER))
    priorities = st.sampled_from((Priority.STANDARD, Priority.STANDARD, Priority.STANDARD, *Priority))

    @rule(
        pool=pools, priority=priorities, tenant=tenants, count=st.integers(1, 6), cost=st.integers(1, 1_000)
    )
    def place(self, pool, priority, tenant, count, cost):
        for _ in range(count):
            job = WaitingJob(f"job-{next(self.numbers)}", tenant, cost, WEIGHTS[tenant])
            self.stage.place(
                job.job_id, pool=pool, priority=priority, tenant=tenant, cost=cost, weight=job.weight
            )
            self.counters[pool, priority].place(job)

    @rule(pool=pools, priority=priorities, chosen=st.sets(tenants, min_size=2), cost=st.integers(1, 100))
    def many_come(self, pool, priority, chosen, cost):
        for tenant in sorted(chosen):
            self.place(pool, priority, tenant, 4, cost)

    @rule(tenant=tenants, cost=st.integers(1, 100), count=st.integers(1, 500))
    def one_leaves_and_returns(self, tenant, cost, count):
        """While others wait, and what it had is made still."""
        counters = self.counters[POOL, Priority.STANDARD]
        self.place(POOL, Priority.STANDARD, tenant, 1, cost)
        for _ in range(40):
            if tenant not in counters.waiting:
                break
            self.draw(0, POOL, 1)
        self.make(len(self.running) - 1, count)
        self.place(POOL, Priority.STANDARD, tenant, 3, cost)

    @rule(chosen=st.sets(tenants, min_size=2), cost=st.integers(1, 100), count=st.integers(1, 500))
    def all_leave_and_some_return(self, chosen, cost, count):
        """What was drawn last is made while nobody waits."""
        while self.counters[POOL, Priority.STANDARD].waiting:
            self.draw(1, POOL, 8)
        self.make(len(self.running) - 1, count)
        self.many_come(POOL, Priority.STANDARD, chosen, cost)

    @rule(
        tenant=tenants,
        cost=st.integers(100, 1_000),
        draws=st.integers(0, 12),
        input_tokens=st.integers(0, 2_000),
    )
    def an_estimate_was_wrong(self, tenant, cost, draws, input_tokens):
        """That is known once others have been drawn; and what is done about it shows in the next draws."""
        counters = self.counters[POOL, Priority.STANDARD]
        self.many_come(POOL, Priority.STANDARD, {"a", "b", "c"}, 50)
        self.place(POOL, Priority.STANDARD, tenant, 3, cost)
        while self.counters[POOL, Priority.INTERACTIVE].waiting:
            self.draw(1, POOL, 8)
        for _ in range(60):
            self.draw(1, POOL, 1)
            if self.running[-1].job.cost == cost:
                break
        wrong = len(self.running) - 1
        if draws:
            self.draw(1, POOL, draws)
        self.finish(wrong, input_tokens, 0)
        if counters.waiting:
            self.draw(2, POOL, 8)

    @rule(index=st.integers(0, 2), pool=pools, count=st.integers(1, 8))
    def draw(self, index, pool, count, limits=NO_LIMITS):
        found = self.workers[index].draw(count, [pool], busy=True, limits=limits).jobs
        expected = []

        def has_its_share(tenant):
            most = limits.left.get(tenant, limits.others)
            return most is not None and sum(job.tenant == tenant for job, _ in expected) >= most

        for priority in Priority:
            counters = self.counters[pool, priority]
            while len(expected) < count and (job := counters.draw(has_its_share)) is not None:
                expected.append((job, counters))
        assert [each.job_id for each in found] == [job.job_id for job, _ in expected], (
            "the least served first"
        )
        for drawn, (job, counters) in zip(found, expected, strict=True):
            self.running.append(RunningJob(drawn, self.workers[index], job, counters))

    @rule(
        index=st.integers(0, 2),
        pool=pools,
        count=st.integers(1, 8),
        others=st.sampled_from((None, 1, 2)),
        left=st.dictionaries(tenants, st.integers(0, 2)),
    )
    def draw_with_limits(self, index, pool, count, others, left):
        """Some have their share of that worker, or little left of it."""
        self.draw(index, pool, count, DrawLimits(others, left))

    @rule(at=st.integers(0, 30), count=st.integers(1, 500))
    def make(self, at, count):
        if self.running:
            each = self.running[at % len(self.running)]
            each.worker.append(growth(each.drawn, count, offset=each.made))
            each.made += count
            each.counters.make(each.job, count)

    def ended(self, at):
        return self.running.pop(at % len(self.running)) if self.running else None

    @rule(at=st.integers(0, 30), input_tokens=st.integers(0, 2_000), count=st.integers(0, 50))
    def finish(self, at, input_tokens, count):
        if (each := self.ended(at)) is not None:
            last = growth(each.drawn, count, offset=each.made)
            each.worker.finish(last, input_tokens=input_tokens)
            each.counters.make(each.job, count)
            each.counters.finish(each.job, input_tokens)

    @rule(at=st.integers(0, 30))
    def fail(self, at):
        if (each := self.ended(at)) is not None:
            each.worker.fail(growth(each.drawn, offset=each.made), kind="failed", error=BAD_REQUEST)

    @rule(at=st.integers(0, 30))
    def hand_back(self, at):
        if (each := self.ended(at)) is not None:
            each.worker.release(growth(each.drawn, offset=each.made))
            # That its worker is not to get it at once is another matter.
            self.stage.redis.hset(self.stage.keys.job(each.job.job_id), "avoid", "")
            each.counters.place(each.job, to_head=True)

    @rule(pool=pools, priority=priorities, tenant=tenants)
    def cancel(self, pool, priority, tenant):
        jobs = self.counters[pool, priority].waiting.get(tenant, ())
        left = [job for job in jobs if not job.is_cancelled]
        if left and len(jobs) - len(left) < MAX_CANCELLED:
            assert self.stage.cancel(left[-1].job_id) == "closed"
            left[-1].is_cancelled = True

    @rule(pool=pools, priority=priorities)
    def years_pass(self, pool, priority):
        counters = self.counters[pool, priority]
        if not counters.counters or max(counters.counters.values()) > YEARS:
            return
        redis, keys = self.stage.redis, self.stage.keys
        tenants, served = keys.pool_tenants(pool, priority), f"{keys.prefix}:served:{pool}:{priority}"
        for tenant, _ in redis.zscan_iter(tenants):
            redis.zincrby(tenants, YEARS, tenant)
        for field in redis.hkeys(served):
            if field == b"floor" or field.startswith(b"t:"):
                redis.hset(served, field, repr(float(redis.hget(served, field)) + YEARS))
        counters.pass_years(YEARS)

    def teardown(self):
        if hasattr(self, "stage"):
            self.stage.close()
