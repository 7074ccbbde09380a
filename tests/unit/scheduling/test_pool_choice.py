"""Which pool a process chooses, beyond the scores: what it remembers of its own choices."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from support.presences import DIGEST, MODEL
from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.errors import StoreUnavailable
from tether.jobs import JobRequest, Priority
from tether.scheduling.known_pauses import FRESH_PAUSES_SECONDS
from tether.scheduling.pool_bounds import bound_of_class, pool_bound
from tether.scheduling.pool_choice import TRY_SECONDS, PoolChoice
from tether.store.capacity import share_name
from tether.store.holds import depths, shares
from tether.store.pool_pauses import PoolPause, pool_pauses


class Chooser:
    """Two pools; the workers of the better one are held back from a tenant's jobs."""

    def __init__(self):
        self.now = 100.0
        self.may_try = True
        registry = SimpleNamespace(find=lambda model: MODEL, models=[MODEL])
        store = SimpleNamespace(read=lambda query, *asked: {})
        self.choice = PoolChoice(self, registry, SchedulingSettings(), store, clock=lambda: self.now)

    def pools(self):
        return (
            self.view("better", warm=True, held_from={"one": 1}, may_try=self.may_try),
            self.view("worse", warm=False),
        )

    def view(self, name, **about):
        where = {"gpu_class": "cpu", "region": "local", "workers": 1, "slots": 64}
        return PoolView(name=name, model="tiny", version="1", digest=DIGEST, **where, **about)

    def new(self, tenant="one"):
        return self.choice.choose(job_of(tenant), is_new=True).pool


def job_of(tenant="one", **asked):
    needed = {"model": "tiny", "model_version": "1", "priority": Priority.STANDARD, "payload": "{}"}
    needed |= {"job_id": "job", "weight": 1.0, "cost": 1, "max_tokens": 16}
    return Placeable(tenant_id=tenant, **needed, **asked)


@pytest.fixture
def chooser():
    return Chooser()


def test_now_and_then_a_new_job_shows_whether_workers_that_are_held_back_work_again(chooser):
    assert [chooser.new() for _ in range(3)] == ["better", "worse", "worse"]
    chooser.now += TRY_SECONDS - 1
    assert chooser.new() == "worse"
    chooser.now += 1
    assert chooser.choice.choose(job_of()).pool == "worse"
    assert chooser.new() == "better"


def test_nothing_is_tried_while_they_pause(chooser):
    chooser.may_try = False
    assert chooser.new() == "worse"
    assert chooser.new("two") == "better"


def test_another_tenants_jobs_are_no_trial(chooser):
    assert [chooser.new("two"), chooser.new("two"), chooser.new()] == ["better"] * 3


def test_what_a_job_asks_for_decides_also_where_it_is_placed_again(chooser):
    assert chooser.choice.choose(job_of(region="eu")).pool is None
    assert chooser.choice.choose(job_of(region="eu", prefer="region")).pool == "worse"
    assert chooser.choice.choose(job_of(min_vram=2)).pool is None


def test_why_no_pool_serves_a_job_is_told_of_each_and_only_where_pools_lack_what_it_asks_for(chooser):
    words = (
        "no pool meets what the job asks for: "
        "pool better is in region local, not eu; pool worse is in region local, not eu"
    )
    assert chooser.choice.why_unserved(job_of(region="eu")) == words
    request = JobRequest(model="tiny", prompt="p", region="eu")
    assert chooser.choice.why_not_served(request, "one") == words
    assert not chooser.choice.is_served(request, "one")
    assert chooser.choice.why_unserved(job_of()) == ""
    chooser.pools = lambda: ()
    assert chooser.choice.why_unserved(job_of(region="eu")) == ""
    chooser.pools = lambda: tuple(chooser.view(f"pool-{number}") for number in range(9))
    assert chooser.choice.why_unserved(job_of(region="eu")).endswith(
        "pool-2 is in region local, not eu; and 6 more"
    )


def test_no_need_is_named_where_a_pool_that_meets_it_has_nobody_to_take_jobs(chooser):
    away = {"gpu_class": "cpu", "region": "eu", "workers": 0, "silent": 1}
    there = PoolView(name="away", model="tiny", version="1", digest=DIGEST, **away)
    chooser.pools = lambda: (chooser.view("elsewhere"), there)
    assert not chooser.choice.is_served(JobRequest(model="tiny", prompt="p", region="eu"), "one")
    assert chooser.choice.why_unserved(job_of(region="eu")) == ""
    assert "is in region local, not asia" in chooser.choice.why_unserved(job_of(region="asia"))


def test_a_pool_that_has_enough_of_a_tenant_is_told_to_be_full_though_nothing_is_claimed(chooser):
    only = chooser.view("only")
    bound = bound_of_class(pool_bound(only, SchedulingSettings()), Priority.STANDARD)
    held = {"only": bound - 1, share_name("only", "greedy"): bound - 1}
    registry = SimpleNamespace(find=lambda model: MODEL, models=[MODEL])
    found = SimpleNamespace(
        read=lambda query, *asked: held if query is depths or query is shares else {},
    )
    chooser.choice = PoolChoice(chooser, registry, SchedulingSettings(), found, clock=lambda: chooser.now)
    chooser.pools = lambda: (only,)
    words = "has as many jobs of this tenant as it takes: some room is kept for others"
    why = f"its pools take no more jobs now: pool only {words}; it is placed in turn once they do"
    assert chooser.choice.why_unserved(job_of("greedy")) == why
    told = chooser.choice.explanation(job_of("greedy"))
    assert (told.pool, [(row.pool, row.words) for row in told.pools]) == (None, [("only", words)])
    assert chooser.choice.why_unserved(job_of("modest")) == ""
    assert chooser.choice.explanation(job_of("modest")).pool == "only"


class Pauses:
    """A database in which a test pauses pools."""

    def __init__(self):
        self.paused = {}
        self.is_away = False
        self.looks = 0

    def read(self, query, *asked):
        if query is not pool_pauses:
            return {}
        self.looks += 1
        if self.is_away:
            raise StoreUnavailable("the database is away")
        return {name: PoolPause(reason, 1) for name, reason in self.paused.items()}


@pytest.fixture
def pauses(chooser):
    found = Pauses()
    registry = SimpleNamespace(find=lambda model: MODEL, models=[MODEL])
    chooser.choice = PoolChoice(chooser, registry, SchedulingSettings(), found, clock=lambda: chooser.now)
    return found


def test_a_paused_pool_gets_no_job_and_is_served_by_nobody(chooser, pauses):
    pauses.paused = {"better": "new driver"}
    assert [chooser.new("two"), chooser.new("two")] == ["worse", "worse"]
    assert [pool.name for pool in chooser.choice.serving()[MODEL]] == ["worse"]
    assert [pool.name for pool in chooser.choice.serving_needs(["tiny"])[MODEL]] == ["worse"]
    assert chooser.choice.why_unserved(job_of("two")) == ""
    pauses.paused = {"better": "new driver", "worse": ""}
    chooser.now += FRESH_PAUSES_SECONDS
    assert chooser.new("two") is None
    assert chooser.choice.serving() == {}
    assert not chooser.choice.is_served(JobRequest(model="tiny", prompt="p"), "one")
    words = "pool better is paused: new driver; pool worse is paused"
    assert chooser.choice.why_unserved(job_of("two")) == words


def test_a_pool_that_is_paused_is_told_before_those_that_lack_what_is_asked_for(chooser, pauses):
    pauses.paused = {"worse": "new driver"}
    elsewhere, here = replace(chooser.view("better"), region="eu"), chooser.view("worse")
    gone = replace(chooser.view("gone"), workers=0)
    chooser.pools = lambda: (elsewhere, here)
    why = "pool worse is paused: new driver; pool better is in region eu, not local"
    assert chooser.choice.why_unserved(job_of(region="local")) == why
    chooser.pools = lambda: (elsewhere, gone, here)
    assert chooser.choice.why_unserved(job_of(region="local")) == "pool worse is paused: new driver"


def test_pauses_are_read_once_a_second_however_many_jobs_come(chooser, pauses):
    for _ in range(50):
        chooser.new("two")
    assert pauses.looks == 1
    pauses.paused = {"better": ""}
    assert chooser.new("two") == "better"
    chooser.now += FRESH_PAUSES_SECONDS
    assert chooser.new("two") == "worse"
    assert pauses.looks == 2


def test_without_the_database_nothing_is_placed_and_what_was_paused_stays_so(chooser, pauses):
    pauses.is_away = True
    with pytest.raises(StoreUnavailable):
        chooser.new("two")
    pauses.is_away, pauses.paused = False, {"better": ""}
    assert chooser.new("two") == "worse"
    pauses.is_away = True
    chooser.now += FRESH_PAUSES_SECONDS
    with pytest.raises(StoreUnavailable):
        chooser.new("two")
    pauses.is_away = False
    assert chooser.new("two") == "worse"


def test_a_job_goes_where_an_operator_moved_it_if_that_can_serve_it(chooser, pauses):
    assert chooser.choice.choose(job_of("two"), avoid="better").pool == "worse"
    assert chooser.choice.choose(job_of("two"), moved_to="worse").pool == "worse"
    assert chooser.choice.choose(job_of("two"), moved_to="unknown").pool == "better"
    pauses.paused = {"worse": ""}
    chooser.now += FRESH_PAUSES_SECONDS
    assert chooser.choice.choose(job_of("two"), moved_to="worse").pool == "better"
    assert chooser.choice.choose(job_of("two"), avoid="better").pool == "better"
