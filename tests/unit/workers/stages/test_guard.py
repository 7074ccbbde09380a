"""The stage guard: hands back what was drawn though its tenant has its share."""

import pytest

from support.drawn_jobs import drawn_job
from tether.broker.pools.slots import Slots
from tether.telemetry import metrics
from tether_workers.attempts.attempt import Attempt, AttemptEnding
from tether_workers.job import read_drawn_job
from tether_workers.stages.guard import QuotaGuard
from tether_workers.stages.work import InferenceWork
from tether_workers.tenant_shares import TenantShare, TenantShares


def attempt_of(drawn):
    return Attempt(drawn, clock=lambda: 0.0, on_unwritten=lambda attempt: None)


def handed_back():
    return metrics.TENANT_SHARES.labels(action="handed_back").value


@pytest.fixture
def slots():
    return Slots(8)


def guarded(shares, slots, drawn):
    """The attempt after the stage."""
    attempt = attempt_of(drawn)
    QuotaGuard(shares, slots).run(InferenceWork(attempt=attempt, job=read_drawn_job(drawn)))
    return attempt


def test_of_too_many_jobs_of_one_tenant_those_drawn_first_stay(slots):
    shares = TenantShares(TenantShare(slots=2), lambda: 0.0)
    jobs = [drawn_job(number, tenant=tenant) for number, tenant in enumerate("abaaba")]
    assert slots.fill(jobs)
    before = handed_back()
    attempts = [guarded(shares, slots, drawn) for drawn in jobs]
    ended = [attempt.drawn.job_id for attempt in attempts if attempt.ending is AttemptEnding.RELEASE]
    assert ended == ["job-3", "job-5"]
    assert [attempt.avoid_seconds for attempt in attempts] == [None] * 6, "nobody knows when a job ends"
    assert handed_back() == before + 2
    slots.clear("boot:0")
    assert guarded(shares, slots, jobs[3]).ending is None


def test_a_tenant_with_too_many_tokens_is_handed_back_with_the_time_until_it_may(slots):
    shares = TenantShares(TenantShare(tokens_per_second=10.0), lambda: 0.0)
    shares.note("a", 130)
    jobs = [drawn_job(1, tenant="a"), drawn_job(2, tenant="b")]
    assert slots.fill(jobs)
    assert shares.limits({}).passed_over == {"a"}
    first, second = (guarded(shares, slots, drawn) for drawn in jobs)
    assert (first.ending, second.ending) == (AttemptEnding.RELEASE, None)
    assert first.avoid_seconds == pytest.approx(3.0)
    assert not first.gives_way, "it stays in front of its tenant's others"
