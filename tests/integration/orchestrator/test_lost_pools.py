"""What waits in a pool that lost its last worker is given back, in Redis and in the outbox, a bounded part at
a time."""

from types import MappingProxyType

import pytest
from sqlalchemy import select

from support.boundless_pools import BoundlessPools, choice_of
from support.core_steps import CoreSteps
from support.databases import DEMO, OTHER_POOL, POOL, all_held, new_job, outbox, state_of
from support.hand_worker import growth
from tether.broker.pools import withdrawn_lanes
from tether.broker.pools.dispatches import Dispatch
from tether.discovery.fleet.fleet import Fleet
from tether.discovery.fleet.liveness import Draws, Evidence
from tether.discovery.fleet.pool_views import PoolView
from tether.orchestrator import lost_pools
from tether.orchestrator.context import Lapses
from tether.orchestrator.lost_pools import GiveBackLost
from tether.orchestrator.outcomes import BATCH as SETTLED_AT_ONCE
from tether.orchestrator.waiting import PlaceWaiting
from tether.scheduling.lost_pools import MAX_GAP_MS, PoolPatience
from tether.store.pool_pauses import pause_pool, resume_pool
from tether.store.schema import attempts
from tether.store.tenants import Tenant, create_tenant
from tether.telemetry import metrics

THIRD_POOL = "gpu.cpu.local.third-00000000"
PATIENCE = PoolPatience(elsewhere_ms=10_000, nowhere_ms=20_000, loading_ms=30_000, cold_ms=60_000)


class Watcher(BoundlessPools):
    """The step over a fleet that a test makes up, and the scheduler that goes by it."""

    def __init__(self, core):
        self.core = core
        self.served = {}
        self.asked = {}
        self.reported = {}
        self.loaded = []
        self.cold = []
        self.held = {}
        self.unwatched = set()
        self.asked_of = []
        self.at = 1_000_000
        self.looked_again = 0
        self.evidence = None
        self.step = self.restarted()
        self.placing = PlaceWaiting(core.store, self, core.reservations, now_ms=core.clock)

    def restarted(self):
        """Another orchestrator's step."""
        return GiveBackLost(
            self.core.store,
            self.core.pools,
            self,
            models=self,
            patience=PATIENCE,
            now_ms=self.core.clock,
            monotonic=lambda: self.at,
            watches=lambda pool: pool not in self.unwatched,
        )

    @property
    def fleet(self):
        return Fleet(served=MappingProxyType(dict(self.served)), held={"worker": self.held})

    def judge(self):
        self.looked_again += 1

    def served_models(self):
        return [DEMO] if self.served else []

    def served_needs(self, with_needs):
        return []

    def serving_pools(self):
        return {DEMO: [self.view(name) for name in {*self.loaded, *self.cold}]}

    def may_go_elsewhere(self, pool, jobs):
        self.asked_of = [*self.asked_of, *(job.job_id for job in jobs)]
        return {job.job_id for job in jobs if job.region != "here"}

    def view(self, name):
        return PoolView(
            name=name,
            model=DEMO.model,
            version=DEMO.model_version,
            digest="",
            gpu_class="cpu",
            region="local",
            workers=1,
            warm=name in self.loaded,
            held_from=dict.fromkeys(self.held.get(name, ()), 1),
        )

    def choose_pools(self, waiting):
        self.avoided = [job.avoided_pool for job in waiting]
        return [choice_of(next(iter(self.served), None)) for _ in waiting]

    def pass_time(self, ms=MAX_GAP_MS):
        """One look, so much later."""
        self.at += ms
        self.evidence = Evidence(now=self.at, asked=dict(self.asked), reported=dict(self.reported))
        return self.step()

    def wait(self, ms):
        for _ in range(ms // MAX_GAP_MS):
            self.pass_time()

    def give_back(self, most=200):
        """Look on, and let outcomes settle, until nothing is left to do at once. Returns how many steps that
        took."""
        for count in range(most):
            pause = self.pass_time(50)
            self.core.settle()
            if pause > 1:
                return count
        raise AssertionError(f"not at rest after {most} steps")


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


@pytest.fixture
def watcher(core):
    return Watcher(core)


def pool_keys(core, pool=POOL):
    """All but how old its jobs are: who ends leases forgets that once no standard job is left."""
    names = core.redis.scan_iter(f"{core.keys.prefix}:pool:{pool}:*")
    return sorted(name for name in names if not name.endswith(b":ages"))


def kinds(core, number):
    query = select(attempts.c.kind).where(attempts.c.job_id == f"job-{number:06}")
    return core.store.read(lambda connection: list(connection.execute(query).scalars()))


def test_another_pool_gets_the_jobs_of_a_lost_one(core, watcher):
    core.submit(1, 2, 3)
    core.submit(4, 5, places=False)
    watcher.served = {OTHER_POOL: 1}
    watcher.wait(PATIENCE.elsewhere_ms)
    assert core.states(1, 4) == ["placed", "accepted"]
    watcher.pass_time()
    watcher.give_back()
    assert core.states(1, 2, 3, 4, 5) == ["parked"] * 5
    assert pool_keys(core) == []
    assert (kinds(core, 1), kinds(core, 4)) == (["withdrawn"], [])
    assert (outbox(core.store), all_held(core.store)) == ([], {("quota", "default"): 5})
    watcher.placing()
    core.store.write_alone(lambda connection: None).result()
    assert core.states(1, 2, 3, 4, 5) == ["placed"] * 5
    assert [state_of(core.store, number)[1] for number in (1, 4)] == [2, 2]
    drawn = core.worker.draw(5, [OTHER_POOL], busy=False).jobs
    for job in drawn:
        core.worker.finish(growth(job, 1))
    core.settle()
    assert core.states(1, 2, 3, 4, 5) == ["succeeded"] * 5


def test_where_no_pool_can_serve_them_jobs_are_parked_later_and_woken_by_a_worker(core, watcher):
    core.submit(1)
    watcher.wait(PATIENCE.nowhere_ms)
    assert core.states(1) == ["placed"]
    watcher.pass_time()
    watcher.give_back()
    assert core.states(1) == ["parked"]
    watcher.placing()
    assert core.states(1) == ["parked"]
    watcher.served = {POOL: 1}
    watcher.placing()
    core.store.write_alone(lambda connection: None).result()
    assert state_of(core.store, 1) == ("placed", 2)


def test_a_pool_whose_workers_cannot_be_seen_is_not_lost(core, watcher):
    core.submit(1)
    core.submit(2, places=False)
    watcher.served = {OTHER_POOL: 1}
    watcher.unwatched = {POOL}
    watcher.wait(2 * PATIENCE.nowhere_ms)
    watcher.give_back()
    assert core.states(1, 2) == ["placed", "accepted"]
    watcher.unwatched = set()
    watcher.wait(2 * PATIENCE.elsewhere_ms)
    watcher.give_back()
    assert core.states(1, 2) == ["parked", "parked"]


@pytest.mark.parametrize("why", ["a worker", "asked", "restarted", "away"])
def test_for_a_blip_nothing_is_given_back(core, watcher, why):
    core.submit(1)
    for _ in range(12):
        watcher.wait(PATIENCE.nowhere_ms - MAX_GAP_MS)
        if why == "a worker":
            watcher.served = {POOL: 1}
            watcher.pass_time()
            watcher.served = {}
        elif why == "asked":
            watcher.asked = {Draws("somebody", POOL): watcher.at}
        elif why == "restarted":
            watcher.step = watcher.restarted()
        else:
            watcher.at += 2 * MAX_GAP_MS
    assert core.states(1) == ["placed"]
    assert (core.redis.xlen(core.keys.outcomes), watcher.looked_again) == (0, 0)
    watcher.wait(2 * PATIENCE.nowhere_ms)
    assert core.redis.xlen(core.keys.outcomes) == 1


def test_attempts_that_run_are_left_to_their_leases(core, watcher):
    core.submit(1, 2)
    (job,) = core.draw()
    watcher.wait(2 * PATIENCE.nowhere_ms)
    watcher.give_back()
    left = {1, 2} - {int(job.job_id[4:])}
    assert core.states(*left) == ["parked"]
    assert core.redis.hget(core.keys.job(job.job_id), "state") == b"running"
    core.worker.finish(growth(job, 1))
    core.settle()
    assert core.states(int(job.job_id[4:])) == ["succeeded"]


class Loading:
    """A worker of the pool asks for it, and never draws; another pool has the model loaded."""

    def __init__(self, watcher, *, is_announced=True):
        self.watcher = watcher
        watcher.served = {OTHER_POOL: 1, **({POOL: 1} if is_announced else {})}
        watcher.loaded = [OTHER_POOL, POOL]

    def wait(self, ms, *, drawing=(OTHER_POOL,), loader="loader"):
        watcher = self.watcher
        for _ in range(ms // MAX_GAP_MS):
            watcher.asked[Draws(loader, POOL)] = watcher.reported[loader] = watcher.at
            for pool in drawing:
                watcher.core.redis.zadd(watcher.core.keys.pool_drawing(pool), {"drawer": watcher.at})
            watcher.pass_time()


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_load_that_hangs_keeps_no_jobs_that_another_pool_could_do(core, watcher, is_announced):
    core.submit(1)
    core.submit(2, places=False)
    loading = Loading(watcher, is_announced=is_announced)
    loading.wait(PATIENCE.loading_ms)
    assert core.states(1, 2) == ["placed", "accepted"]
    loading.wait(2 * MAX_GAP_MS)
    watcher.give_back()
    assert core.states(1, 2) == ["parked", "parked"]


def test_a_load_that_hangs_keeps_no_jobs_that_another_pool_could_load_for(core, watcher):
    core.submit(1)
    core.submit(2, places=False)
    loading = Loading(watcher)
    watcher.loaded, watcher.cold = [], [POOL, OTHER_POOL]
    loading.wait(PATIENCE.cold_ms, drawing=())
    assert core.states(1, 2) == ["placed", "accepted"]
    loading.wait(2 * MAX_GAP_MS, drawing=())
    watcher.give_back()
    assert core.states(1, 2) == ["parked", "parked"]


def test_where_jobs_wait_for_another_pools_load_already_none_follow_them(core, watcher):
    core.submit(1)
    core.submit(2, pool=OTHER_POOL)
    loading = Loading(watcher)
    watcher.loaded, watcher.cold = [], [POOL, OTHER_POOL]
    for _ in range(3 * PATIENCE.cold_ms // MAX_GAP_MS):
        watcher.asked[Draws("loader", OTHER_POOL)] = watcher.at
        loading.wait(MAX_GAP_MS, drawing=())
    assert core.states(1, 2) == ["placed", "placed"]


@pytest.mark.parametrize("why", ["it only loads", "held"])
def test_jobs_that_no_other_pool_may_have_stay_and_are_not_looked_at_again_and_again(core, watcher, why):
    core.submit(1)
    core.submit(2, region="here")
    core.submit(3, places=False)
    core.submit(4, places=False, region="here")
    loading = Loading(watcher)
    if why == "held":
        watcher.held = {POOL: ["default"]}
        watcher.wait(PATIENCE.elsewhere_ms + MAX_GAP_MS)
    else:
        loading.wait(PATIENCE.loading_ms + 2 * MAX_GAP_MS)
    watcher.give_back()
    assert core.states(1, 2, 3, 4) == ["parked", "placed", "parked", "accepted"]
    asked = watcher.asked_of.count("job-000002")
    for _ in range(20):
        watcher.pass_time(100)
    assert watcher.asked_of.count("job-000002") == asked
    assert core.states(2, 4) == ["placed", "accepted"]


def submit_for_two(core):
    core.store.write_alone(create_tenant, Tenant("other", "other", 1.0, None, core.now)).result()
    core.submit(1, 2)
    core.submit(3, places=False)
    core.submit(4, tenant_id="other")
    core.submit(5, tenant_id="other", places=False)


def test_jobs_from_which_all_workers_of_a_pool_are_held_go_to_another_pool(core, watcher):
    submit_for_two(core)
    watcher.served, watcher.loaded = {POOL: 1, OTHER_POOL: 1}, [POOL, OTHER_POOL]
    watcher.held = {POOL: ["default"]}
    watcher.wait(PATIENCE.elsewhere_ms)
    assert core.states(1, 3) == ["placed", "accepted"]
    watcher.pass_time()
    watcher.give_back()
    assert core.states(1, 2, 3, 4, 5) == ["parked"] * 3 + ["placed", "accepted"]


@pytest.mark.parametrize("why", ["no other pool", "held there too", "for a moment"])
def test_no_jobs_are_moved_where_that_helps_nothing(core, watcher, why):
    submit_for_two(core)
    watcher.served = {POOL: 1, OTHER_POOL: 1}
    watcher.loaded = [POOL] if why == "no other pool" else [POOL, OTHER_POOL]
    watcher.held = {POOL: ["default"]}
    if why == "held there too":
        watcher.held[OTHER_POOL] = ["default"]
    for _ in range(10):
        watcher.wait(PATIENCE.elsewhere_ms)
        if why == "for a moment":
            held, watcher.held = watcher.held, {}
            watcher.pass_time()
            watcher.held = held
    assert core.states(1, 2, 3, 4, 5) == ["placed", "placed", "accepted", "placed", "accepted"]


@pytest.mark.parametrize("why", ["it draws", "another draws", "no other has loaded it", "busy", "elsewhere"])
def test_a_pool_that_is_drawn_from_or_alone_waits_for_its_loads(core, watcher, why):
    core.submit(1)
    loading = Loading(watcher)
    if why == "it draws":
        loading.wait(4 * PATIENCE.loading_ms, drawing=(OTHER_POOL, POOL))
    elif why == "another draws":
        watcher.asked[Draws("of another make", POOL)] = watcher.at + 10**6
        loading.wait(4 * PATIENCE.loading_ms)
    elif why == "no other has loaded it":
        watcher.loaded = [POOL]
        loading.wait(4 * PATIENCE.loading_ms)
    elif why == "busy":
        # It asks no longer, since it has no slot; a fleet that announces nothing else believes it.
        for _ in range(4 * PATIENCE.loading_ms // MAX_GAP_MS):
            watcher.pass_time()
    else:
        loading.wait(4 * PATIENCE.loading_ms, drawing=())
    assert core.states(1) == ["placed"]


def test_it_is_looked_once_more_before_anything_is_given_back(core, watcher, monkeypatch):
    core.submit(1)
    monkeypatch.setattr(watcher, "judge", lambda: watcher.served.update({POOL: 1}))
    watcher.wait(4 * PATIENCE.nowhere_ms)
    assert core.redis.xlen(core.keys.outcomes) == 0


def test_who_loses_the_loops_lease_tells_of_no_lost_pools_and_begins_anew(core, watcher):
    core.submit(1)
    core.break_job(1)
    watcher.wait(2 * PATIENCE.nowhere_ms)
    assert metrics.REGISTRY.value_of("tether_lost_pools") == 1
    assert isinstance(watcher.step, Lapses)
    watcher.step.lapse()
    assert metrics.REGISTRY.value_of("tether_lost_pools") == 0
    watcher.pass_time()
    assert metrics.REGISTRY.value_of("tether_lost_pools") == 0


def test_a_late_hand_over_of_what_was_parked_harms_nothing(core, watcher):
    core.submit(1, places=False)
    watcher.wait(2 * PATIENCE.nowhere_ms)
    assert core.states(1) == ["parked"]
    # Who read the row before it was parked places it now.
    core.reservations.hand_over([Dispatch.of(new_job(1).job, 1, POOL)])
    core.store.write_alone(lambda connection: None).result()
    assert core.states(1) == ["parked"]
    watcher.served = {OTHER_POOL: 1}
    watcher.placing()
    core.store.write_alone(lambda connection: None).result()
    assert core.draw(2) == ()
    (job,) = core.worker.draw(2, [OTHER_POOL], busy=False).jobs
    core.worker.finish(growth(job, 1))
    core.settle()
    assert core.states(1) == ["succeeded"]


def test_what_cannot_be_withdrawn_keeps_nothing_behind_it(core, watcher, monkeypatch):
    monkeypatch.setattr(withdrawn_lanes, "PAGE", 2)
    core.submit(*range(1, 9))
    core.break_job(1)
    core.redis.hset(core.keys.job("job-000002"), "dispatch", "x")
    watcher.wait(2 * PATIENCE.nowhere_ms)
    watcher.give_back()
    assert core.states(*range(3, 9)) == ["parked"] * 6


@pytest.mark.parametrize("lost", ["restarted", "emptied"])
def test_what_reconcile_puts_back_into_a_lost_pool_is_given_back_as_well(core, watcher, lost):
    core.submit(1, 2)
    watcher.wait(PATIENCE.nowhere_ms)
    if lost == "emptied":
        for key in core.redis.scan_iter(core.keys.prefix + ":*"):
            core.redis.delete(key)
    else:
        core.redis.delete(core.keys.job("job-000001"))
    core.reconcile()
    core.later()
    core.relay()
    assert core.states(1, 2) == ["placed", "placed"]
    watcher.pass_time()
    watcher.give_back()
    assert core.states(1, 2) == ["parked", "parked"]


def test_a_job_that_goes_back_and_forth_waits_longer_each_time(core, watcher):
    core.submit(1)
    pauses = []
    for _ in range(5):
        watcher.served = {}
        watcher.wait(2 * PATIENCE.nowhere_ms)
        watcher.give_back()
        assert core.states(1) == ["parked"]
        watcher.served = {OTHER_POOL: 1}
        began = core.now
        pool = new_job(1).pool if not pauses else OTHER_POOL
        while core.states(1) == ["parked"]:
            watcher.placing()
            core.store.write_alone(lambda connection: None).result()
            if core.states(1) == ["parked"]:
                core.now += 2_500
        pauses.append(core.now - began)
        assert watcher.avoided == [pool if len(pauses) > 1 else None]
    assert pauses == [0, 0, 5_000, 10_000, 20_000]


def test_many_pools_that_are_lost_and_empty_keep_nobody_busy(core, watcher):
    for number in range(30):
        core.submit(number, pool=f"gpu.cpu.region{number}.demo-00000000")
    watcher.wait(2 * PATIENCE.nowhere_ms)
    watcher.give_back(20)
    assert set(core.states(*range(30))) == {"parked"}


@pytest.mark.parametrize("count", [600, pytest.param(20_000, marks=pytest.mark.long)])
def test_a_large_lost_pool_is_given_back_in_parts_and_in_turn_with_a_small_one(core, watcher, count):
    for first in range(0, count, 200):
        core.submit(*range(first, first + 200))
    core.store.write_alone(create_tenant, Tenant("other", "other", 1.0, None, core.now)).result()
    core.submit(*range(50_000, 50_010), pool=THIRD_POOL, tenant_id="other")
    core.submit(60_000, pool=OTHER_POOL)
    watcher.served = {OTHER_POOL: 1}
    watcher.wait(PATIENCE.elsewhere_ms + MAX_GAP_MS)
    # Nobody settles: no more is withdrawn than may be unsettled.
    for _ in range(20):
        watcher.pass_time(50)
    most = lost_pools.MAX_UNSETTLED + withdrawn_lanes.PAGE
    assert core.redis.xlen(core.keys.outcomes) <= most
    assert SETTLED_AT_ONCE >= lost_pools.MAX_UNSETTLED
    core.settle()
    assert core.states(*range(50_000, 50_010)) == ["parked"] * 10
    assert core.states(60_000) == ["placed"]
    (job,) = core.worker.draw(1, [OTHER_POOL], busy=False).jobs
    assert job.job_id == "job-060000"
    core.worker.finish(growth(job, 1))
    watcher.give_back(count)
    core.settle()
    assert set(core.states(*range(count))) == {"parked"}
    assert core.states(60_000) == ["succeeded"]
    assert pool_keys(core) == pool_keys(core, THIRD_POOL) == []


def test_what_waits_in_a_paused_pool_stays_there_though_nobody_serves_it(core, watcher):
    core.submit(1, 2)
    core.submit(3, places=False)
    core.store.write_alone(pause_pool, POOL, "new driver", core.now).result()
    watcher.served = {OTHER_POOL: 1}
    watcher.wait(2 * PATIENCE.nowhere_ms)
    watcher.give_back()
    assert core.states(1, 2, 3) == ["placed", "placed", "accepted"]
    core.store.write_alone(resume_pool, POOL).result()
    watcher.wait(PATIENCE.elsewhere_ms + MAX_GAP_MS)
    watcher.give_back()
    assert core.states(1, 2, 3) == ["parked"] * 3
