"""When a pool counts as lost: by what workers do, watched without a gap, and never for a blip."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tether.scheduling import lost_pools
from tether.scheduling.lost_pools import (
    MAX_GAP_MS,
    MAX_PAUSE_MS,
    FleetLook,
    PoolFate,
    PoolLook,
    PoolPatience,
    PoolWatch,
    fate_of,
    lost_shares,
    pause_after,
    watch_on,
)

POOL = "gpu.cpu.local.demo-00000000"
PATIENCE = PoolPatience(elsewhere_ms=15_000, nowhere_ms=60_000, loading_ms=40_000, cold_ms=80_000)
STEADY = 10**9


def look(
    at,
    workers=0,
    *,
    seen_ms=None,
    elsewhere=False,
    loading=False,
    loaded=True,
    cold=False,
    held=(),
    steady_ms=STEADY,
):
    pool = PoolLook(
        workers=workers,
        seen_ms=seen_ms,
        is_served_elsewhere=elsewhere,
        is_only_loading=loading,
        is_loaded_elsewhere=loaded,
        is_cold_elsewhere=cold,
        held_from=frozenset(held),
    )
    return FleetLook(at=at, steady_ms=steady_ms, pools={POOL: pool})


def fates(*looks):
    """What is judged at each of these looks."""
    watch, found = PoolWatch(), []
    for each in looks:
        watch = watch_on(watch, each)
        found.append(fate_of(POOL, watch, PATIENCE))
    return found


def every_second(first, last, **about):
    return [look(at, **about) for at in range(first, last + 1, 1_000)]


@pytest.mark.parametrize(("elsewhere", "grace"), [(True, 15_000), (False, 60_000)])
def test_a_pool_is_lost_once_it_was_watched_without_a_worker_for_its_grace(elsewhere, grace):
    found = fates(*every_second(0, grace, elsewhere=elsewhere))
    assert found[-1] is PoolFate.LOST
    assert set(found[:-1]) == {PoolFate.PATIENCE}


def test_a_pool_with_a_worker_is_served():
    assert set(fates(*every_second(0, 90_000, workers=1))) == {PoolFate.SERVED}


@pytest.mark.parametrize("workers", [1, 0])
def test_a_pool_whose_workers_only_load_is_lost_where_another_has_the_model(workers):
    found = fates(*every_second(0, 40_000, workers=workers, seen_ms=0, loading=True))
    assert found[-1] is PoolFate.LOST
    assert PoolFate.LOST not in found[:-1]


def test_where_others_would_have_to_load_the_model_too_a_load_may_take_longer():
    looks = every_second(0, 80_000, workers=1, loading=True, loaded=False, cold=True)
    found = fates(*looks)
    assert found[-1] is PoolFate.LOST
    assert set(found[:-1]) == {PoolFate.SERVED}
    assert fates(*looks[:-1], look(80_000, 1, loading=True, loaded=False))[-1] is PoolFate.SERVED


def shares(*looks):
    watch = PoolWatch()
    for each in looks:
        watch = watch_on(watch, each)
    return lost_shares(watch, PATIENCE)


def test_jobs_are_given_back_of_whom_all_workers_are_held_from():
    looks = every_second(0, 14_000, workers=2, held=["one"])
    assert shares(*looks) == {}
    assert shares(*looks, look(15_000, 2, held=["one", "two"])) == {POOL: {"one"}}
    assert shares(*looks, look(15_000, 2)) == {}
    assert shares(*every_second(0, 15_000, workers=2, held=[None, "one"])) == {POOL: None}
    assert shares(*every_second(0, 60_000, held=["one"])) == {POOL: None}
    outage = [*looks, look(15_000, 2, held=["one"], steady_ms=0)]
    assert shares(*outage) == shares(*looks, None, look(15_000, 2, held=["one"])) == {}


def test_where_no_other_has_the_model_a_load_is_waited_for():
    looks = every_second(0, 90_000, workers=1, loading=True, loaded=False)
    assert set(fates(*looks)) == {PoolFate.SERVED}
    assert fates(*looks, look(91_000, 1, loading=True))[-1] is PoolFate.LOST


@pytest.mark.parametrize("between", [look(40_000, 1), look(40_000, 1, loading=True, steady_ms=0), None])
def test_loads_are_waited_for_anew_after_a_draw_or_an_outage(between):
    looks = every_second(0, 39_000, workers=1, loading=True)
    found = fates(*looks, between, *every_second(41_000, 79_000, workers=1, loading=True))
    assert PoolFate.LOST not in found


def test_a_pool_that_is_not_looked_at_is_not_lost():
    watch = watch_on(PoolWatch(), FleetLook(at=0, steady_ms=STEADY, pools={}))
    assert fate_of(POOL, watch, PATIENCE) is PoolFate.SERVED


def test_a_worker_that_comes_back_within_the_grace_begins_it_anew():
    looks = [*every_second(0, 14_000, elsewhere=True), look(15_000, 1), *every_second(16_000, 30_000)]
    assert PoolFate.LOST not in fates(*looks)


def test_who_asks_for_jobs_keeps_its_pool_though_nobody_hears_of_it():
    looks = [look(at, seen_ms=at % 5_000, elsewhere=True) for at in range(0, 90_000, 1_000)]
    assert set(fates(*looks)) == {PoolFate.PATIENCE}


@pytest.mark.parametrize("blind", [None, "gap", "pause"])
def test_what_could_not_be_watched_does_not_count(blind):
    looks = every_second(0, 14_000, elsewhere=True)
    at = 15_000
    if blind is None:
        looks.append(None)
    elif blind == "gap":
        at = 14_001 + MAX_GAP_MS
    looks += [
        look(later, elsewhere=True, steady_ms=later - at if blind == "pause" else STEADY)
        for later in range(at, at + 15_000, 1_000)
    ]
    found = fates(*looks)
    assert PoolFate.LOST not in found
    assert fates(*looks, look(at + 15_000, elsewhere=True))[-1] is PoolFate.LOST


def test_a_clock_that_goes_back_is_a_gap():
    assert fates(look(20_000), look(0), *every_second(1_000, 59_000))[-1] is PoolFate.PATIENCE


class World:
    """One pool, its workers and an orchestrator that watches them, as they really are, second by second."""

    def __init__(self):
        self.now = 0
        self.last_life = 0
        """When a worker last lived that draws."""
        self.blind_until = self.redis_away_until = 0
        """When the last time ended in which the orchestrator could not watch for long, and Redis was away."""
        self.last_look = 0
        self.lost_at = []

    def run(self, spans, judge):
        """Each of ``spans`` is (what happens, for how many seconds)."""
        watch = PoolWatch()
        for what, seconds in spans:
            for _ in range(seconds):
                self.now += 1_000
                lives = what in ("serves", "serves unheard")
                if lives:
                    self.last_life = self.now
                if what in ("orchestrator away", "redis away", "blind"):
                    if what != "orchestrator away":
                        self.blind_until = self.now
                    if what == "redis away":
                        self.redis_away_until = self.now
                    if what == "blind":
                        watch = judge.watch_on(watch, None)
                    continue
                if self.now - self.last_look > MAX_GAP_MS:
                    self.blind_until = self.now - 1_000
                self.last_look = self.now
                elsewhere = what == "elsewhere"
                seen_ms = (self.now - self.last_life) // 5_000 * 5_000 if self.last_life else None
                watch = judge.watch_on(
                    watch,
                    look(
                        self.now,
                        int(what == "serves"),
                        seen_ms=seen_ms,
                        elsewhere=elsewhere,
                        steady_ms=self.now - self.redis_away_until,
                    ),
                )
                if judge.fate_of(POOL, watch, PATIENCE) is PoolFate.LOST:
                    self.lost_at.append(self.now)
                    quiet = self.now - max(self.last_life, self.blind_until)
                    needed = PATIENCE.elsewhere_ms if elsewhere else PATIENCE.nowhere_ms
                    assert not lives, "a pool is lost while a worker draws from it"
                    assert quiet >= needed - 1_000, "a pool is lost within its grace"
        return self


SPANS = st.lists(
    st.tuples(
        st.sampled_from(
            ["serves", "serves unheard", "gone", "elsewhere", "orchestrator away", "redis away", "blind"]
        ),
        st.integers(1, 40),
    ),
    max_size=12,
)


class Judge:
    """The decision, of which a test may plant a bug."""

    watch_on = staticmethod(watch_on)
    fate_of = staticmethod(fate_of)


@given(SPANS)
@settings(max_examples=50, deadline=None)
def test_no_pool_is_lost_that_a_worker_draws_from_and_none_is_kept_for_ever(spans):
    world = World().run([*spans, ("gone", 62)], Judge)
    assert world.lost_at, "a pool without workers is never lost"


def _without(**changes):
    """The looks are read with these changes."""

    class Planted(Judge):
        @staticmethod
        def watch_on(former, seen):
            if seen is None:
                return watch_on(former, None)
            pool = seen.pools[POOL]
            given = {name: value for name, value in changes.items() if name != "steady_ms"}
            pools = {POOL: PoolLook(**{**vars(pool), **given})}
            steady = changes.get("steady_ms", seen.steady_ms)
            return watch_on(former, FleetLook(at=seen.at, steady_ms=steady, pools=pools))

    return Planted


class _ForgetsNoGap(Judge):
    @staticmethod
    def watch_on(former, seen):
        return former if seen is None else watch_on(former, seen)


BUGS = {
    "announcements alone": _without(seen_ms=None),
    "always the short grace": _without(is_served_elsewhere=True),
    "pauses of Redis count": _without(steady_ms=STEADY),
    "being blind counts": _ForgetsNoGap,
}


@pytest.mark.mutants
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_in_the_decision_is_found(bug, monkeypatch):
    if bug in ("pauses of Redis count", "being blind counts"):
        # Each of the two would see it alone.
        monkeypatch.setattr(lost_pools, "MAX_GAP_MS", STEADY)
    chance = random.Random(1)
    kinds = ["serves", "serves unheard", "gone", "elsewhere", "orchestrator away", "redis away", "blind"]

    def run_many():
        for _ in range(2_000):
            World().run([(chance.choice(kinds), chance.randint(1, 40)) for _ in range(12)], BUGS[bug])

    with pytest.raises(AssertionError, match="a pool is"):
        run_many()


def test_a_job_is_parked_the_longer_the_oftener_it_was_handed_over_in_vain():
    assert [pause_after(count) for count in range(9)] == [
        *(0, 0, 0, 5_000, 10_000, 20_000, 40_000, MAX_PAUSE_MS, MAX_PAUSE_MS)
    ]
    assert pause_after(10**6) == MAX_PAUSE_MS
