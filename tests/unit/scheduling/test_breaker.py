"""The breaker: decided by arithmetic, and by a state machine that must catch planted bugs."""

import inspect
import textwrap
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.breaker_machine import NOW, RULES, BreakerMachine
from support.machines import catches_bug, run_machine
from tether.scheduling import attempt_samples
from tether.scheduling import breaker as breakers
from tether.scheduling.attempt_samples import AttemptSample
from tether.scheduling.breaker import (
    CLOSED_BREAKER,
    Breaker,
    BreakerName,
    BreakerProbe,
    BreakerState,
    TripCause,
    claimed_breaker,
    freed_breaker,
    judged_breaker,
)

REAL = replace(RULES, min_samples=20)


def sample(number, blame=0.0, *, tenant=None, worker=None, ms=0.0, at=NOW, began_at=None):
    return AttemptSample(
        at=at,
        began_at=at if began_at is None else began_at,
        job_id=f"job-{number}",
        tenant=tenant or f"tenant-{number % 3}",
        worker=worker or f"worker-{number % 4}",
        blame=blame,
        ms_per_token=ms,
    )


def opened(**changes):
    return judged_breaker(
        CLOSED_BREAKER, [sample(number, 1.0) for number in range(20)], replace(REAL, **changes), NOW
    )


def asks(breaker, job, now, tenant="red", rules=REAL):
    return claimed_breaker(breaker, BreakerProbe(job_id=job, tenant=tenant, claimed_at=now), rules)


def test_it_opens_once_enough_attempts_failed_and_not_before():
    failed = [sample(number, 1.0) for number in range(20)]
    assert judged_breaker(CLOSED_BREAKER, failed[:19], REAL, NOW) == CLOSED_BREAKER
    breaker = judged_breaker(CLOSED_BREAKER, failed, REAL, NOW)
    assert (breaker.cause, breaker.opened_at, breaker.until) == (TripCause.FAILURES, NOW, NOW + 10_000)
    assert (breaker.share, breaker.count) == (1.0, 20)


def test_without_data_nothing_is_judged():
    assert judged_breaker(CLOSED_BREAKER, [], REAL, NOW) == CLOSED_BREAKER
    old = [sample(number, 1.0, at=NOW - REAL.window_ms) for number in range(50)]
    assert judged_breaker(CLOSED_BREAKER, old, REAL, NOW) == CLOSED_BREAKER


def test_ends_that_say_nothing_of_the_model_never_count():
    silent = [sample(number, None) for number in range(500)]
    assert judged_breaker(CLOSED_BREAKER, silent, REAL, NOW) == CLOSED_BREAKER
    few = [sample(number, 1.0) for number in range(19)]
    assert judged_breaker(CLOSED_BREAKER, silent + few, REAL, NOW) == CLOSED_BREAKER


def test_a_tenant_alone_opens_the_breaker_that_nobody_else_uses():
    failed = [sample(number, 1.0, tenant="red") for number in range(20)]
    assert judged_breaker(CLOSED_BREAKER, failed, REAL, NOW).cause is TripCause.FAILURES
    others = [sample(100 + number, 0.0, tenant="blue") for number in range(2)]
    assert judged_breaker(CLOSED_BREAKER, failed * 50 + others, REAL, NOW).cause is None


@given(
    st.lists(st.sampled_from(("red", "green", "blue")), min_size=1, max_size=30),
    st.integers(0, 500),
    st.booleans(),
)
def test_whoever_fails_alone_opens_no_breaker_of_others(others, failures, is_worker):
    good = [sample(number, tenant=tenant) for number, tenant in enumerate(others)]
    bad = [
        sample(1_000 + number, 1.0, **({"worker": "broken"} if is_worker else {"tenant": "odd"}))
        for number in range(failures)
    ]
    assert judged_breaker(CLOSED_BREAKER, good + bad, REAL, NOW).cause is None


def test_one_broken_worker_of_four_opens_nothing_and_three_do():
    def ends(broken):
        return [sample(n, 1.0 if n % 4 < broken else 0.0) for n in range(200)]

    assert judged_breaker(CLOSED_BREAKER, ends(1), REAL, NOW).cause is None
    assert judged_breaker(CLOSED_BREAKER, ends(3), REAL, NOW).cause is TripCause.FAILURES


def test_much_that_went_well_before_does_not_hide_that_nothing_does_now():
    well = [sample(number, at=NOW - 1_000) for number in range(3_000)]
    fails = [sample(number, 1.0) for number in range(3 * REAL.min_samples)]
    assert judged_breaker(CLOSED_BREAKER, well + fails, REAL, NOW).cause is TripCause.FAILURES


def test_a_flood_of_one_tenant_s_failures_hides_nobody_else_s_success():
    well = [sample(0, tenant="blue", at=NOW - 50_000)]
    flood = [sample(number, 1.0, tenant="red") for number in range(4_000)]
    assert judged_breaker(CLOSED_BREAKER, well + flood, REAL, NOW).cause is None


def test_a_death_is_one_failure_among_all_that_ran_beside():
    died = [sample(number, 1 / 16) for number in range(16 * 3)]
    assert judged_breaker(CLOSED_BREAKER, died, REAL, NOW).cause is None


def measured(ms, count=40, at=NOW, first=0):
    return [sample(first + number, ms=ms, at=at) for number in range(count)]


def test_it_opens_for_slowness_against_its_own_baseline_however_slow_that_is():
    for normal in (0.1, 20.0, 5_000.0):
        learned = judged_breaker(CLOSED_BREAKER, measured(normal), REAL, NOW)
        assert learned.baseline == normal
        later = NOW + 100_000
        assert judged_breaker(learned, measured(normal * 2.9, at=later), REAL, later).cause is None
        breaker = judged_breaker(learned, measured(normal * 3.1, at=later), REAL, later)
        assert breaker.cause is TripCause.SLOWNESS


def test_outliers_open_nothing():
    learned = judged_breaker(CLOSED_BREAKER, measured(10.0), REAL, NOW)
    mixed = measured(10.0, 21) + measured(10_000.0, 20, first=100)
    assert judged_breaker(learned, mixed, REAL, NOW + 1).cause is None


def test_the_baseline_follows_slowly_and_slowness_does_not_become_normal_before_it_is_found():
    breaker = judged_breaker(CLOSED_BREAKER, measured(10.0), REAL, NOW)
    now = NOW
    for _ in range(60):
        now += 1_000
        # More of the window is slow with each second, until the half of it is.
        slow = (now - NOW) // 1_500
        breaker = judged_breaker(
            breaker, measured(10.0, 40 - slow, now) + measured(90.0, slow, now, 100), REAL, now
        )
        if breaker.cause is not None:
            break
    assert breaker.cause is TripCause.SLOWNESS
    assert breaker.baseline < 10.5


def test_a_lasting_change_becomes_normal_after_some_probes():
    breaker = judged_breaker(CLOSED_BREAKER, measured(10.0), REAL, NOW)
    now = NOW + 1
    breaker = judged_breaker(breaker, measured(100.0, at=now), REAL, now)
    for probes in range(1, 30):
        now = breaker.until
        breaker = asks(breaker, f"probe-{probes}", now + 5_000)
        now += 6_000
        breaker = judged_breaker(breaker, [sample(probes, ms=100.0, at=now)], REAL, now)
        if breaker.cause is None:
            break
    assert 5 <= probes <= 10


def test_it_stays_open_twice_as_long_with_each_failed_probe_up_to_a_cap():
    breaker = opened()
    lengths = []
    for number in range(6):
        now = breaker.until
        assert asks(breaker, "early", now - 1) is None
        breaker = judged_breaker(breaker, [sample(number, 1.0, at=now)], REAL, now)
        lengths.append(breaker.until - now)
    assert lengths == [20_000, 40_000, 40_000, 40_000, 40_000, 40_000]


def test_one_probe_at_a_time_and_one_that_is_lost_lapses():
    breaker = opened()
    breaker = asks(breaker, "first", breaker.until)
    assert breaker.probe.job_id == "first"
    assert asks(breaker, "second", breaker.until + 1) is None
    assert asks(breaker, "first", breaker.until + 1) == breaker
    later = breaker.until + REAL.probe_ms
    assert asks(breaker, "second", later - 1) is None
    assert asks(breaker, "second", later).probe.job_id == "second"


def test_a_lapsed_probe_that_ends_well_still_closes_it():
    breaker = opened()
    breaker = asks(breaker, "slow", breaker.until)
    late = breaker.until + 10 * REAL.probe_ms
    ended = sample(0, at=late, began_at=breaker.until)
    assert judged_breaker(breaker, [ended], REAL, late).state(late) is BreakerState.CLOSED


def test_what_was_drawn_before_it_became_half_open_says_nothing():
    breaker = opened()
    later = breaker.until + 5
    old = [sample(number, blame, at=later, began_at=NOW) for number, blame in enumerate((0.0, 1.0, None))]
    assert judged_breaker(breaker, old, REAL, later) == breaker


def test_after_a_failed_probe_other_tenants_come_first_for_a_moment():
    breaker = opened()
    breaker = judged_breaker(breaker, [sample(0, 1.0, tenant="red", at=breaker.until)], REAL, breaker.until)
    assert asks(breaker, "job", breaker.until, "red") is None
    assert asks(breaker, "job", breaker.until, "blue") is not None
    assert asks(breaker, "job", breaker.until + 5_000, "red") is not None


def test_as_many_good_probes_close_it_as_are_asked_for():
    rules = replace(REAL, probes=2)
    breaker = opened(probes=2)
    first = sample(1, at=breaker.until)
    assert judged_breaker(breaker, [first], rules, breaker.until).cause is not None
    second = sample(2, at=breaker.until + 1)
    assert judged_breaker(breaker, [first, second], rules, breaker.until + 1).cause is None


def test_a_probe_that_the_client_cancelled_frees_the_way_for_the_next():
    breaker = opened()
    now = breaker.until
    breaker = asks(breaker, "job-7", now)
    breaker = judged_breaker(breaker, [sample(7, None, at=now + 5, began_at=now + 1)], REAL, now + 5)
    assert breaker.state(now + 5) is BreakerState.HALF_OPEN
    assert asks(breaker, "next", now + 5).probe.job_id == "next"


def test_a_probe_that_is_over_is_freed_and_another_one_is_not():
    breaker = opened()
    breaker = asks(breaker, "job-7", breaker.until)
    freed = freed_breaker(breaker, breaker.probe)
    assert asks(freed, "next", breaker.until).probe.job_id == "next"
    assert freed_breaker(freed, breaker.probe) is None


def test_an_attempt_from_the_future_neither_keeps_it_open_nor_closes_it():
    breaker = opened()
    for blame in (0.0, 1.0):
        odd = sample(1, blame, at=NOW + 10**12)
        assert judged_breaker(breaker, [odd], REAL, breaker.until) == breaker


def test_times_from_the_future_neither_keep_it_closed_nor_hold_its_baseline():
    odd = replace(CLOSED_BREAKER, since=NOW + 10**12, baseline=10.0, measured_at=NOW + 10**12)
    odd = judged_breaker(odd, [], REAL, NOW)
    assert (odd.since, odd.measured_at) == (NOW, NOW)
    later = NOW + 1_000
    assert judged_breaker(odd, measured(20.0, at=later), REAL, later).baseline > 10.0
    failed = [sample(number, 1.0, at=later) for number in range(20)]
    assert judged_breaker(odd, failed, REAL, later).cause is TripCause.FAILURES


def test_a_worker_that_claims_to_be_fast_makes_nobody_slow():
    claims = [sample(number, worker="liar", ms=0.001) for number in range(30)]
    honest = [sample(number, worker="honest", ms=20.0) for number in range(10)]
    learned = judged_breaker(CLOSED_BREAKER, claims + honest, REAL, NOW)
    assert learned.baseline == 20.0
    later = NOW + REAL.window_ms
    assert judged_breaker(learned, measured(20.0, at=later), REAL, later).cause is None


def test_a_clock_that_was_set_back_keeps_it_open_no_longer():
    breaker = opened()
    past = NOW - 10**9
    assert judged_breaker(breaker, [], REAL, past).until <= past + REAL.max_open_ms


def test_disabled_it_closes_and_never_opens():
    rules = replace(REAL, is_enabled=False)
    assert judged_breaker(opened(), [], rules, NOW).cause is None
    assert judged_breaker(CLOSED_BREAKER, [sample(n, 1.0) for n in range(99)], rules, NOW) == CLOSED_BREAKER


def test_names_are_read_as_they_were_written_whatever_a_model_is_called():
    for model in ("m", "meta/llama:8b", "a@b:c", "über:x"):
        name = BreakerName(model, "1.0", "eu-west")
        assert BreakerName.of_text(name.text) == name
    for text in ("", "m", "m@1", "m:eu", "@1:eu", "m@:eu"):
        with pytest.raises(ValueError, match="name of a breaker"):
            BreakerName.of_text(text)


@pytest.mark.parametrize("examples", [100, pytest.param(3_000, marks=pytest.mark.long)])
def test_machine(examples):
    run_machine(BreakerMachine, {}, max_examples=examples)


PLANTED = {
    "few samples open it": (breakers, "judged_breaker", "len(counted) >= rules.min_samples and ", ""),
    "slowness needs no samples": (
        breakers,
        "judged_breaker",
        "len(measured) < rules.min_samples",
        "not measured",
    ),
    "old attempts count": (breakers, "judged_breaker", "now - rules.window_ms < one.at <= now", "True"),
    "a closed breaker remembers": (breakers, "judged_breaker", " and one.began_at > breaker.since", ""),
    "what says nothing counts": (breakers, "judged_breaker", "if one.blame is not None]", "]"),
    "one tenant is enough": (attempt_samples, "least_share", "lambda one: one.tenant,", ""),
    "one worker is enough": (attempt_samples, "least_share", "lambda one: one.worker,", ""),
    "it never stays open longer": (breakers, "_opened", "breaker.trips + 1 if is_repeated else 1", "1"),
    "it opens without end": (BreakerMachineRules := breakers.BreakerRules, "open_for_ms", "min(", "max("),
    "an open one lets jobs pass": (
        breakers,
        "is_turn_of",
        "breaker.state(now) is not BreakerState.HALF_OPEN or ",
        "",
    ),
    "two try at a time": (breakers, "is_turn_of", " or _has_probe(breaker, rules, now)", ""),
    "a lost probe keeps it half-open": (
        breakers,
        "_has_probe",
        "probe.claimed_at <= now < probe.claimed_at + rules.probe_ms",
        "True",
    ),
    "the same tenant tries again": (
        breakers,
        "is_turn_of",
        "(comes_first and tenant not in breaker.passed_over) or ",
        "",
    ),
    "what was placed before decides": (breakers, "_judged_open", "breaker.until <= one.began_at and ", ""),
    "a bad probe is forgotten": (breakers, "_judged_open", "if slow or sample.blame >= 0.5:", "if slow:"),
    "a slow probe closes it": (breakers, "_judged_open", "if slow or sample", "if sample"),
    "an ended probe stays": (breakers, "_judged_open", "return replace(breaker, probe=None)", "pass"),
    "slowness becomes normal": (breakers, "_followed", "1 - math.exp(-passed_ms / rules.baseline_ms)", "1.0"),
    "a bad probe opens it no longer": (breakers, "_reopened", "breaker.trips + 1", "breaker.trips"),
}


def plant(monkeypatch, owner, name, original, planted):
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(original) >= 1, original
    module = breakers if owner is BreakerMachineRules else owner
    space = {}
    exec(compile(source.replace(original, planted, 1), "planted", "exec"), vars(module), space)
    monkeypatch.setattr(owner, name, space[name])


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(monkeypatch, bug):
    plant(monkeypatch, *PLANTED[bug])
    if PLANTED[bug][1] == "least_share":
        monkeypatch.setattr(breakers, "least_share", attempt_samples.least_share)
    assert catches_bug(BreakerMachine, {}, max_examples=400)


def test_a_sound_breaker_passes_as_the_planted_ones_are_run():
    assert not catches_bug(BreakerMachine, {}, max_examples=100)
    assert Breaker() == CLOSED_BREAKER
