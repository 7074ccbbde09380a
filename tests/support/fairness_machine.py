"""A state machine over the scripts of pools: whose jobs a worker gets, whatever stands in front of them.

Heads that a worker may not have (ended, to be run alone, lost by that worker a moment ago) are made in any
number, in any lane. What is checked: how much work one draw is, that a few draws reach every lane, who runs
alone, and that batch jobs of every tenant grow old.
"""

import itertools
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from support.hand_worker import growth
from support.pool_stage import OTHER, POOL, Stage
from tether.broker.keys import WAITING_CLASSES
from tether.broker.pools.draw_limits import NO_LIMITS, DrawLimits
from tether.broker.pools.lane_moves import LaneMove, MoveResult
from tether.jobs import JobState, Priority

TENANTS = [f"tenant {letter}" for letter in "abcdefghijkl"]
POOLS = (POOL, OTHER)
FAR = 2**52

SMALL_BOUNDS = {
    ("draw", "MAX_AVOID_LIFE"): FAR,
    ("draw", "MAX_SKIPPED"): 4,
    ("draw", "MAX_DISCARDED"): 12,
    ("draw", "MAX_DISCARDED_OF_LANE"): 4,
    ("expire", "MAX_AGED"): 3,
}
"""Bounds of the scripts while the machine runs, so that few jobs reach them."""

LANES_PER_DRAW = 3
COMMANDS_PER_ENTRY = 25
COMMANDS_PER_STATION = 6


class Waiting:
    """What the model knows of a job that waits."""

    def __init__(self, pool, priority, tenant):
        self.pool, self.priority, self.tenant = pool, priority, tenant
        self.must_be_alone = False

    @property
    def lane(self):
        return (self.pool, self.priority, self.tenant)


class FairnessMachine(RuleBasedStateMachine):
    server = None
    namespace = ""

    @initialize()
    def begin(self):
        self.stage = Stage(self.server, self.namespace)
        self.jobs = {}
        self.rubbish = Counter()
        self.numbers = itertools.count(1)
        self.workers = [self.stage.worker("one.1"), self.stage.worker("two.1")]

    def waiting(self, **conditions):
        return [
            job_id
            for job_id, job in self.jobs.items()
            if all(getattr(job, name) == value for name, value in conditions.items())
        ]

    def drawable(self):
        return self.waiting(must_be_alone=False)

    tenants = st.sampled_from(TENANTS)

    @rule(
        pool=st.sampled_from(POOLS),
        priority=st.sampled_from(list(Priority)),
        tenant=tenants,
        count=st.integers(1, 8),
    )
    def place(self, pool, priority, tenant, count):
        job_ids = [f"job-{next(self.numbers)}" for _ in range(count)]
        self.stage.place_all(job_ids, pool=pool, priority=priority, tenant=tenant)
        for job_id in job_ids:
            self.jobs[job_id] = Waiting(pool, priority, tenant)

    @rule(tenant=tenants)
    def all_of_a_tenant_are_cancelled(self, tenant):
        self.cancel(self.waiting(tenant=tenant))

    @rule(
        pool=st.sampled_from(POOLS),
        tenant=tenants,
        to=st.sampled_from(list(Priority)),
        count=st.integers(1, 8),
    )
    def some_get_another_priority(self, pool, tenant, to, count):
        moved = self.waiting(pool=pool, tenant=tenant)[:count]
        before = [self.stage.field(job_id, "placed_at") for job_id in moved]
        moves = [LaneMove(job_id, 1, to) for job_id in moved]
        assert set(self.stage.pools.reprioritise_many(moves)) <= {MoveResult.MOVED, MoveResult.KNOWN}
        assert [self.stage.field(job_id, "placed_at") for job_id in moved] == before, "it keeps its age"
        for job_id in moved:
            job = self.jobs[job_id]
            job.priority = Priority(self.stage.field(job_id, "priority"))
            has_aged = (job.priority, to) == (Priority.STANDARD, Priority.BATCH)
            assert job.priority is to or has_aged, "it waits at its new priority"
            assert self.lanes_of(job_id) in ([job.priority], [f"alone.{job.priority}"]), "and there alone"

    def lanes_of(self, job_id):
        """The classes in whose lanes a job has a valid entry."""
        job, entry = self.jobs[job_id], f"{job_id} {self.stage.field(job_id, 'ticket')}".encode()
        keys = self.stage.keys
        return [
            each
            for each in WAITING_CLASSES
            if self.stage.redis.lpos(keys.pool_jobs(job.pool, each, job.tenant), entry) is not None
        ]

    @rule(pool=st.sampled_from(POOLS), priority=st.sampled_from(list(Priority)))
    def lanes_of_rubbish_hide_nobody(self, pool, priority):
        """So many lanes, or so much in one, that one draw cannot look into all."""
        for tenant, count in zip(TENANTS, (60, *(5,) * 9), strict=False):
            self.place(pool, priority, tenant, count)
            self.cancel(self.waiting(tenant=tenant))
        self.place(pool, priority, TENANTS[-1], 1)
        self.a_few_draws_reach_everybody(1)

    def cancel(self, job_ids):
        answers = self.stage.pools.cancel_many([(job_id, JobState.CANCELLED) for job_id in job_ids])
        assert answers == ["closed"] * len(job_ids)
        for job_id in job_ids:
            self.rubbish[self.jobs.pop(job_id).lane] += 1

    @rule(pool=st.sampled_from(POOLS), priority=st.sampled_from(list(Priority)))
    def what_must_run_alone_hides_nobody(self, pool, priority):
        if len(self.jobs) < 100:
            for tenant in TENANTS[:6]:
                self.place(pool, priority, tenant, 60)
                self.all_of_a_lane_must_run_alone(tenant, priority)
            self.place(pool, priority, TENANTS[-1], 1)
            self.a_few_draws_reach_everybody(1)

    @rule(tenant=tenants, priority=st.sampled_from(list(Priority)))
    def all_of_a_lane_must_run_alone(self, tenant, priority):
        """Suspects that stand in front of the others still."""
        found = self.waiting(tenant=tenant, priority=priority)
        self.note(found, {"group": "x"})
        for job_id in found:
            self.jobs[job_id].must_be_alone = True
            self.rubbish[self.jobs[job_id].lane] += 1

    def note(self, job_ids, fields):
        pipeline = self.stage.redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hset(self.stage.keys.job(job_id), mapping=fields)
        pipeline.execute()

    @rule(pool=st.sampled_from(POOLS))
    def a_pool_has_been_patient(self, pool):
        key = f"{self.stage.keys.prefix}:quarantine:{pool}"
        if self.stage.redis.exists(key):
            self.stage.redis.hset(key, "since", "1")

    @rule(pool=st.sampled_from(POOLS), index=st.integers(0, 1))
    def busy_workers_run_nothing_alone(self, pool, index):
        self.a_pool_has_been_patient(pool)
        self.end(self.workers[index], self.draw(self.workers[index], 2, busy=True))

    def draw(self, worker, count, busy, limits=NO_LIMITS):
        """A draw, in what it takes and in what it costs."""
        self.stage.redis.config_resetstat()
        drawn = list(worker.draw(count, POOLS, busy=busy, limits=limits).jobs)
        stats = self.stage.redis.info("commandstats")
        commands = sum(each["calls"] for name, each in stats.items() if not name.startswith("cmdstat_config"))
        entries = count + SMALL_BOUNDS["draw", "MAX_SKIPPED"] + SMALL_BOUNDS["draw", "MAX_DISCARDED"]
        stations = 10 + 2 * len(Priority) * len(POOLS)
        most = COMMANDS_PER_ENTRY * entries + COMMANDS_PER_STATION * stations
        assert commands <= most, f"a draw is bounded: {commands} commands"
        for job in drawn:
            known = self.jobs.pop(job.job_id, None)
            assert known is not None, "what is drawn waits"
            assert job.alone == known.must_be_alone
            assert not job.alone or (len(drawn) == 1 and not busy), "alone is alone"
        for tenant, taken in Counter(job.tenant for job in drawn).items():
            most = limits.left.get(tenant, limits.others)
            assert most is None or taken <= most, "nobody gets more than its share"
        return drawn

    def end(self, worker, drawn):
        for job in drawn:
            worker.finish(growth(job, 1))

    limits = st.builds(DrawLimits, st.sampled_from((None, 1, 2)), st.dictionaries(tenants, st.integers(0, 2)))

    @rule(index=st.integers(0, 1), count=st.integers(1, 4), busy=st.booleans(), limits=limits)
    def some_are_drawn(self, index, count, busy, limits):
        worker = self.workers[index]
        self.end(worker, self.draw(worker, count, busy, limits))

    @rule(count=st.integers(1, 3), full=st.sets(tenants, min_size=1))
    def who_has_its_share_hides_nobody(self, count, full):
        """However many these are, and whatever stands in front of their lanes."""
        self.a_few_draws_reach_everybody(count, full=full)

    @rule(count=st.integers(1, 3), index=st.integers(0, 1))
    def hints_hide_nobody(self, count, index):
        """What a worker lost a moment ago it had rather not get, and gets where there is too much of it."""
        self.note(self.jobs, {"avoid": self.workers[index].boot_id, "avoid_until": str(FAR // 2)})
        self.a_few_draws_reach_everybody(count, self.workers[index], SMALL_BOUNDS["draw", "MAX_SKIPPED"])

    @rule(count=st.integers(1, 3))
    def a_few_draws_reach_everybody(self, count, worker=None, left_over=0, full=frozenset()):
        """A worker that is busy, with free slots, gets all that need not run alone, but of tenants that have
        their share."""
        worker = worker or self.stage.worker(f"w-{next(self.numbers)}.1")
        self.release_quarantines()
        lanes = self.rubbish.keys() | {job.lane for job in self.jobs.values()}
        draws_per_round = 2 + -(-len(lanes) // LANES_PER_DRAW)
        in_vain = 0
        limits = DrawLimits(left=dict.fromkeys(full, 0))
        while (
            len(drawable := [each for each in self.drawable() if self.jobs[each].tenant not in full])
            > left_over
        ):
            # Each round takes some of what stands before a job in its own lane.
            before = min(self.rubbish[self.jobs[job_id].lane] for job_id in drawable)
            patience = draws_per_round * (1 + -(-before // SMALL_BOUNDS["draw", "MAX_DISCARDED_OF_LANE"]))
            drawn = self.draw(worker, count, busy=True, limits=limits)
            self.end(worker, drawn)
            in_vain = 0 if drawn else in_vain + 1
            assert in_vain <= patience, "nobody's heads hide another's"
            if in_vain == 0:
                self.release_quarantines()
        self.throw_rubbish_away(worker)

    def throw_rubbish_away(self, worker):
        """Draw until nothing is left to be thrown away."""
        for _ in range(100):
            self.release_quarantines()
            found = worker.draw(0, POOLS, busy=True) if self.drawable() else worker.draw(1, POOLS, busy=True)
            assert found.jobs == ()
            if found.again_in_ms != 1:
                break
        if not self.drawable():
            self.rubbish.clear()

    @rule(pool=st.sampled_from(POOLS))
    def one_worker_of_a_pool_at_a_time_runs_alone(self, pool):
        """Where others wait as well, however many must run alone."""
        if not self.waiting(must_be_alone=True, pool=pool):
            return
        self.a_few_draws_reach_everybody(3)
        for tenant in TENANTS[:2]:
            self.place(pool, Priority.INTERACTIVE, tenant, 8)
        held = []
        for _ in range(6):
            self.a_pool_has_been_patient(pool)
            worker = self.stage.worker(f"w-{next(self.numbers)}.1")
            drawn = self.only_of(worker, pool, busy=False)
            held.append((worker, drawn))
        assert sum(job.alone for _, drawn in held for job in drawn) <= 1, "a quarantine takes one worker"
        for worker, drawn in held:
            self.end(worker, drawn)

    def only_of(self, worker, pool, busy):
        drawn = list(worker.draw(1, [pool], busy=busy).jobs)
        for job in drawn:
            del self.jobs[job.job_id]
        return drawn

    def release_quarantines(self):
        """None is due, and nobody keeps itself free."""
        for pool in POOLS:
            self.stage.redis.delete(f"{self.stage.keys.prefix}:quarantine:{pool}")

    @rule(pool=st.sampled_from(POOLS), count=st.integers(1, 9))
    def batch_jobs_grow_old(self, pool, count):
        for tenant in TENANTS[:count]:
            self.place(pool, Priority.BATCH, tenant, 12)
        lanes = {}
        for job_id in self.waiting(priority=Priority.BATCH):
            lanes.setdefault(self.jobs[job_id].lane, []).append(job_id)
        # Lanes that draws have emptied stand there too, until a tick has looked.
        standing = self.stage.redis.zcard(f"{self.stage.keys.prefix}:core:aging")
        # The first may find that the last one was long ago, and do nothing else.
        ticks = 2 + 2 * -(-standing // SMALL_BOUNDS["expire", "MAX_AGED"])
        for _ in range(ticks):
            self.stage.tick(age_ms=0)
        for job_id in self.waiting(priority=Priority.BATCH):
            self.jobs[job_id].priority = Priority(self.stage.field(job_id, "priority"))
        for job_ids in lanes.values():
            aged = [job_id for job_id in job_ids if self.jobs[job_id].priority is Priority.STANDARD]
            assert aged, "a batch job of each tenant grows old"

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        try:
            self.come_to_the_end()
        finally:
            self.stage.close()

    def come_to_the_end(self):
        """Everything that waits is drawn in the end, also what must run alone."""
        worker = self.stage.worker("last.1")
        for _ in range(2 * len(self.jobs) + 200):
            self.end(worker, self.draw(worker, 3, busy=False))
            if not self.jobs:
                return
        raise AssertionError(f"never drawn: {sorted(self.jobs)}")
