"""What breakers make of placing a job: where it goes, who may try, and what is said."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from support.presences import DIGEST, MODEL
from tether.admission.breaker_closed import breaker_closed
from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.errors import BreakerOpen
from tether.jobs import JobRequest, Priority
from tether.scheduling.breaker import Breaker, BreakerName, BreakerProbe, BreakerRules, TripCause, is_turn_of
from tether.scheduling.breaker_refusals import refusal_by_breaker, waits_not
from tether.scheduling.pool_choice import PoolChoice
from tether.scheduling.waiting_placement import WaitingPlacement
from tether.store.waiting_jobs import WaitingJob

NOW = 1_800_000_000_000
RULES = BreakerRules()
EU, US = BreakerName("tiny", "1", "eu"), BreakerName("tiny", "1", "us")
OPEN = Breaker(
    cause=TripCause.FAILURES, opened_at=NOW - 5_000, until=NOW + 5_000, trips=1, share=0.8, count=20
)
HALF_OPEN = replace(OPEN, until=NOW)
SLOW = replace(OPEN, cause=TripCause.SLOWNESS, baseline=12.5)


class Known:
    """What a process knows of breakers; `granted` says whether a claim is."""

    def __init__(self):
        self.breakers = {}
        self.granted = True
        self.claims = []

    def now_ms(self):
        return NOW

    def shut(self):
        return self.breakers

    def passable(self, shut, tenant, *, comes_first=True):
        return {
            name
            for name, breaker in shut.items()
            if is_turn_of(breaker, tenant, RULES, NOW, comes_first=comes_first)
        }

    def claim(self, name, job_id, tenant):
        self.claims.append((name, job_id))
        return self.granted


class Chooser:
    """A pool in each of two regions; that in `eu` is the better one."""

    def __init__(self):
        self.known = Known()
        self.regions = ("eu", "us")
        self.eu_classes = ("cpu",)
        registry = SimpleNamespace(find=lambda model: MODEL, models=[MODEL])
        store = SimpleNamespace(read=lambda query, *asked: {})
        self.choice = PoolChoice(self, registry, SchedulingSettings(), store, breakers=self.known)
        self.placement = WaitingPlacement(self.choice, lambda: NOW)

    def pools(self):
        return tuple(
            PoolView(
                name=f"{region}-{gpu_class}",
                model="tiny",
                version="1",
                digest=DIGEST,
                gpu_class=gpu_class,
                region=region,
                workers=1,
                slots=8,
                warm=region == "eu",
            )
            for region in self.regions
            for gpu_class in (self.eu_classes if region == "eu" else ("cpu",))
        )

    def place(self, **asked):
        return self.choice.choose(job(**asked), is_new=True).pool

    def serves(self):
        return [view.name for views in self.choice.serving().values() for view in views]


def job(**asked):
    needed = {"model": "tiny", "model_version": "1", "priority": Priority.STANDARD, "payload": "{}"}
    needed |= {"job_id": "job", "tenant_id": "one", "weight": 1.0, "cost": 1, "max_tokens": 16}
    return Placeable(**{**needed, **asked})


def asked(priority=Priority.STANDARD, **more):
    return JobRequest(model="tiny", prompt="x", priority=priority, **more)


@pytest.fixture
def chooser():
    return Chooser()


def test_without_open_breakers_nobody_is_asked(chooser):
    assert chooser.place() == "eu-cpu"
    assert chooser.known.claims == []


@pytest.mark.parametrize("breaker", [OPEN, SLOW])
def test_another_region_gets_the_job(chooser, breaker):
    chooser.known.breakers = {EU: breaker}
    assert chooser.place() == "us-cpu"
    (row,) = [row for row in chooser.choice.explanation(job()).pools if row.pool == "eu-cpu"]
    assert row.excluded == "breaker"
    assert "circuit breaker of tiny@1 in region eu is open since" in row.words


def test_where_nobody_else_can_it_waits_and_says_why_and_until_when(chooser):
    chooser.known.breakers = {EU: OPEN, US: OPEN}
    assert chooser.place() is None
    assert chooser.serves() == []
    words = chooser.choice.why_unserved(job())
    assert "is open since 2027-01-15T07:59:55Z: 80% of 20 attempts had failed" in words
    assert "the next job tries at 2027-01-15T08:00:05Z" in words


def test_a_job_for_one_region_waits_though_others_are_served(chooser):
    chooser.known.breakers = {EU: OPEN}
    assert chooser.place(region="eu") is None
    assert chooser.place(region="us") == "us-cpu"


def test_slow_is_better_than_not_at_all(chooser):
    chooser.known.breakers = {EU: SLOW, US: OPEN}
    assert chooser.place() == "eu-cpu"
    assert chooser.place(region="eu") == "eu-cpu"
    assert chooser.serves() == ["eu-cpu"]


def test_of_a_half_open_breaker_the_job_that_claims_it_is_the_probe(chooser):
    chooser.known.breakers = {EU: HALF_OPEN}
    assert chooser.serves() == ["eu-cpu", "us-cpu"]
    assert chooser.place() == "eu-cpu"
    assert chooser.known.claims == [(EU, "job")]


def test_a_job_whose_claim_came_too_late_goes_elsewhere_or_waits(chooser):
    chooser.known.breakers = {EU: HALF_OPEN}
    chooser.known.granted = False
    assert chooser.place() == "us-cpu"
    assert chooser.place(region="eu") is None


def test_while_one_tries_nobody_else_asks(chooser):
    probe = BreakerProbe(job_id="other", tenant="two", claimed_at=NOW - 1)
    chooser.known.breakers = {EU: replace(HALF_OPEN, probe=probe)}
    assert chooser.place() == "us-cpu"
    assert chooser.known.claims == []


def test_a_probe_is_offered_no_other_half_open_pool(chooser):
    chooser.known.breakers = {EU: HALF_OPEN, US: HALF_OPEN}
    decision = chooser.choice.choose(job(), is_new=True)
    assert [claim.pool for claim in chooser.choice.chosen_pools(decision, Priority.STANDARD, NOW).claims] == [
        "eu-cpu"
    ]


def test_a_job_that_goes_elsewhere_is_not_offered_a_half_open_pool_either(chooser):
    chooser.known.breakers = {US: HALF_OPEN}
    decision = chooser.choice.choose(job(), is_new=True)
    claims = chooser.choice.chosen_pools(decision, Priority.STANDARD, NOW).claims
    assert [claim.pool for claim in claims] == ["eu-cpu"]
    assert chooser.known.claims == []


def test_a_tenant_whose_probe_failed_lets_others_try_first(chooser):
    chooser.regions = ("eu",)
    chooser.known.breakers = {EU: replace(HALF_OPEN, passed_over=("one",))}
    assert chooser.place() is None
    assert chooser.place(tenant_id="two") == "eu-cpu"


def test_a_job_that_has_failed_leaves_the_first_moment_to_others_where_it_is_served_elsewhere(chooser):
    chooser.known.breakers = {EU: HALF_OPEN}
    assert chooser.place(failed_on="worker") == "us-cpu"
    assert chooser.known.claims == []
    assert chooser.place(failed_on="worker", region="eu") == "eu-cpu"
    assert chooser.known.claims == [(EU, "job")]
    chooser.known.breakers = {EU: replace(HALF_OPEN, until=NOW - RULES.open_ms)}
    assert chooser.place(failed_on="worker") == "eu-cpu"


def test_of_waiting_jobs_one_tries_that_has_failed_the_least(chooser):
    chooser.regions = ("eu",)
    chooser.known.breakers = {EU: HALF_OPEN}
    waiting = [WaitingJob(job(job_id=f"job-{n}"), n, attempts=n) for n in (3, 1, 2)]
    assert len(chooser.placement.choose_pools(waiting)) == 3
    assert chooser.known.claims[0] == (EU, "job-1")


def test_a_choice_says_whether_a_breaker_keeps_the_job_back(chooser):
    chooser.regions = ("eu",)
    for breakers, is_shut in (({EU: OPEN}, True), ({}, False)):
        chooser.known.breakers = breakers
        (choice,) = chooser.placement.choose_pools([WaitingJob(job(region="eu"), 1, attempts=0)])
        assert choice.is_shut is is_shut
    chooser.known.breakers = {EU: OPEN}
    chooser.regions = ("eu", "us")
    (choice,) = chooser.placement.choose_pools([WaitingJob(job(), 1, attempts=0)])
    assert not choice.is_shut


def test_waiting_jobs_do_not_go_to_where_one_tries(chooser):
    chooser.known.breakers = {US: HALF_OPEN}
    assert chooser.placement.may_go_elsewhere("eu-cpu", [job()]) == set()
    chooser.known.breakers = {}
    assert chooser.placement.may_go_elsewhere("eu-cpu", [job()]) == {"job"}


def test_what_does_not_wait_is_refused_with_when_to_try_again(chooser):
    chooser.known.breakers = {EU: OPEN, US: replace(OPEN, until=NOW + 2_500)}
    refusal = refusal_by_breaker(chooser.choice, asked(), "one")
    assert isinstance(refusal, BreakerOpen)
    assert (refusal.http_status, refusal.retry_after) == (503, 3.0)
    assert "region us" in str(refusal)
    assert breaker_closed(asked(), SimpleNamespace(shut_out=refusal)) is refusal
    assert not chooser.choice.is_served(asked(), "one")
    chooser.known.breakers = {EU: OPEN, US: HALF_OPEN}
    assert refusal_by_breaker(chooser.choice, asked(), "one") is None
    assert chooser.choice.is_served(asked(), "one")


def test_a_breaker_is_not_blamed_where_nobody_serves_the_model(chooser):
    chooser.regions = ()
    chooser.known.breakers = {EU: OPEN}
    assert refusal_by_breaker(chooser.choice, asked(), "one") is None


def test_only_interactive_jobs_that_may_start_now_are_refused():
    assert waits_not(asked(Priority.INTERACTIVE))
    assert not waits_not(asked(Priority.INTERACTIVE, not_before=NOW))
    assert not waits_not(asked())
    assert not waits_not(asked(Priority.BATCH))
