"""A state machine over one breaker: attempts of several tenants on several workers, some of which break.

The model keeps all attempts and what was promised: nothing opens without as many samples as are asked for,
nor by one tenant or one worker among others; while it is open nobody passes, and while it is half-open one
job at a time; what passes decides, and nothing that was drawn before.
"""

import itertools

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tether.scheduling import breaker as breakers
from tether.scheduling.attempt_samples import AttemptSample
from tether.scheduling.breaker import BreakerProbe, BreakerRules, BreakerState, TripCause

NOW = 1_800_000_000_000
RULES = BreakerRules(
    window_ms=60_000,
    min_samples=4,
    failure_share=0.5,
    latency_factor=3.0,
    open_ms=10_000,
    max_open_ms=40_000,
    probe_ms=30_000,
    baseline_ms=3_600_000,
)
TENANTS = ("red", "green", "blue")
WORKERS = ("one", "two")
FAST, SLOW = 10.0, 100.0


class BreakerMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.now = NOW
        self.breaker = breakers.CLOSED_BREAKER
        self.samples = []
        self.numbers = itertools.count(1)
        self.opened = []

    @rule(ms=st.sampled_from((1, 1_000, 9_000, 31_000, 61_000)))
    def wait(self, ms):
        self.now += ms

    @rule(
        tenant=st.sampled_from(TENANTS),
        worker=st.sampled_from(WORKERS),
        count=st.integers(1, 4),
        blame=st.sampled_from((0.0, 1.0, None)),
        ms_per_token=st.sampled_from((0.0, FAST, SLOW)),
        age=st.sampled_from((0, 0, 5_000, 50_000)),
    )
    def end_attempts(self, tenant, worker, count, blame, ms_per_token, age):
        for _ in range(count):
            self.note(f"job-{next(self.numbers)}", tenant, worker, blame, ms_per_token, self.now - age)
        self.judge()

    @rule(blame=st.sampled_from((0.0, 1.0)), ms_per_token=st.sampled_from((FAST, SLOW)))
    def all_do_alike(self, blame, ms_per_token):
        for tenant, worker in itertools.product(TENANTS, WORKERS):
            job = f"job-{next(self.numbers)}"
            self.note(job, tenant, worker, blame, ms_per_token if not blame else 0.0, self.now)
        self.judge()

    @rule(
        others=st.integers(0, 3),
        by_tenant=st.booleans(),
        failures=st.integers(3, 8),
        silent=st.integers(0, 4),
    )
    def one_fails(self, others, by_tenant, failures, silent):
        """A tenant on all workers, or a worker for all tenants, after what was before is over."""
        self.now += RULES.window_ms
        for number in range(failures + others):
            fails = number < failures
            tenant, worker = TENANTS[number % 2], WORKERS[number % 2]
            if by_tenant:
                tenant = "blue" if fails else "red"
            else:
                worker = "two" if fails else "one"
            self.note(f"job-{next(self.numbers)}", tenant, worker, float(fails), 0.0, self.now)
        for number in range(silent):
            self.note(
                f"job-{next(self.numbers)}", TENANTS[number % 3], WORKERS[number % 2], None, 0.0, self.now
            )
        self.judge()

    @precondition(lambda self: self.breaker.cause is None)
    @rule()
    def slow_down(self):
        for ms_per_token in (FAST, SLOW):
            self.now += RULES.window_ms
            self.all_do_alike(0.0, ms_per_token)
            self.judge()

    @rule(count=st.integers(1, 3), silent=st.integers(0, 6), fails=st.booleans())
    def few_are_bad(self, count, silent, fails):
        self.now += RULES.window_ms
        for number in range(count + silent):
            blame = float(fails) if number < count else None
            job, tenant, worker = f"job-{next(self.numbers)}", TENANTS[number % 3], WORKERS[number % 2]
            self.note(job, tenant, worker, blame, 0.0 if fails else SLOW, self.now)
        self.judge()

    @precondition(lambda self: self.breaker.cause is not None)
    @rule(ms=st.sampled_from((0, 5_000, 30_000)), tenant=st.sampled_from(TENANTS))
    def become_half_open(self, ms, tenant):
        self.now = max(self.now, self.breaker.until + ms)
        self.judge()
        self.ask(tenant)

    def note(self, job, tenant, worker, blame, ms_per_token, began_at):
        self.samples.append(
            AttemptSample(
                at=self.now,
                began_at=began_at,
                job_id=job,
                tenant=tenant,
                worker=worker,
                blame=blame,
                ms_per_token=ms_per_token,
            )
        )

    @rule()
    def judge(self):
        former = self.breaker
        after = self.breaker = breakers.judged_breaker(former, self.samples, RULES, self.now)
        if former.cause is None and after.cause is not None:
            self.check_opening(former, after)
        elif former.cause is not None and after.cause is None:
            self.check_closing(former, after)
        elif former.cause is not None and after.until != former.until:
            self.check_reopening(former, after)
        elif former.cause is None:
            self.check_baseline(former, after)
        assert breakers.judged_breaker(after, self.samples, RULES, self.now).cause == after.cause
        if after.cause is not None:
            again = breakers.judged_breaker(after, self.samples, RULES, self.now)
            assert (again.until, again.trips) == (after.until, after.trips), "the same attempts count once"

    def window(self, breaker):
        found = [
            one
            for one in self.samples
            if self.now - RULES.window_ms < one.at and one.began_at > breaker.since and one.blame is not None
        ]
        found.sort(key=lambda one: -one.at)
        by_tenant = {tenant: [one for one in found if one.tenant == tenant] for tenant in TENANTS}
        return [one for of_tenant in by_tenant.values() for one in of_tenant[: 2 * RULES.min_samples]]

    def check_opening(self, former, after):
        bad = [one for one in self.window(former) if self.is_bad(former, after.cause, one)]
        counted = [
            one for one in self.window(former) if after.cause is TripCause.FAILURES or one.ms_per_token
        ]
        assert len(counted) >= RULES.min_samples
        assert 2 * len(bad) >= len(counted)
        for group_of in (lambda one: one.tenant, lambda one: one.worker):
            if len({group_of(one) for one in counted}) > 1:
                assert len({group_of(one) for one in bad}) > 1, "one alone opened it"
        longest = RULES.open_for_ms(after.trips)
        assert after.until == self.now + longest <= self.now + RULES.max_open_ms
        if former.trips and self.now - former.since <= RULES.max_open_ms:
            assert after.trips == former.trips + 1
        else:
            assert after.trips == 1

    def is_bad(self, breaker, cause, one):
        if cause is TripCause.FAILURES:
            return one.blame == 1.0
        return one.ms_per_token > RULES.latency_factor * breaker.baseline > 0

    def probes_of(self, breaker):
        return [one for one in self.samples if one.began_at >= breaker.until and one.blame is not None]

    def check_closing(self, former, after):
        assert former.state(self.now) is BreakerState.HALF_OPEN
        assert any(
            one.blame == 0
            and not (former.cause is TripCause.SLOWNESS and self.is_bad(former, former.cause, one))
            for one in self.probes_of(former)
        )
        assert after.since == self.now

    def check_reopening(self, former, after):
        assert former.state(self.now) is BreakerState.HALF_OPEN
        assert any(one.blame == 1.0 or one.ms_per_token == SLOW for one in self.probes_of(former))
        assert after.trips == former.trips + 1
        assert self.now < after.until <= self.now + RULES.max_open_ms
        assert after.opened_at == former.opened_at

    def check_baseline(self, former, after):
        if former.baseline:
            # What is slow enough to open it does not become normal meanwhile.
            assert after.baseline <= former.baseline * 1.1

    @rule(tenant=st.sampled_from(TENANTS))
    def ask(self, tenant):
        job = f"job-{next(self.numbers)}"
        after = breakers.claimed_breaker(
            self.breaker, BreakerProbe(job_id=job, tenant=tenant, claimed_at=self.now), RULES
        )
        state = self.breaker.state(self.now)
        if state is BreakerState.CLOSED:
            assert after == self.breaker
        elif state is BreakerState.OPEN:
            assert after is None
        else:
            probe = self.breaker.probe
            if probe is not None and self.now < probe.claimed_at + RULES.probe_ms:
                assert after is None, "two at a time"
            elif tenant not in self.breaker.passed_over or self.now >= self.breaker.until + 5_000:
                assert after is not None, "nobody tries"
                self.breaker = after
            else:
                assert after is None, "a tenant whose probe failed comes before others"

    @precondition(lambda self: self.breaker.probe is not None)
    @rule(blame=st.sampled_from((0.0, 1.0, None)), ms_per_token=st.sampled_from((0.0, FAST, SLOW)))
    def end_probe(self, blame, ms_per_token):
        probe = self.breaker.probe
        self.now += 10
        self.note(probe.job_id, probe.tenant, "one", blame, ms_per_token, probe.claimed_at)
        self.judge()
        assert self.breaker.probe is None, "a probe that ended keeps no other from trying"
        if blame == 1.0:
            assert self.breaker.state(self.now) is BreakerState.OPEN

    @invariant()
    def is_open_for_a_bounded_time(self):
        if hasattr(self, "breaker") and self.breaker.cause is not None:
            assert self.breaker.until <= self.now + RULES.max_open_ms
