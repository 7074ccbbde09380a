"""Which workers draw from the pools that they announce, by what Redis saw them do."""

from dataclasses import replace

import pytest

from support.presences import DIGEST, KEY, MODEL, OTHER_KEY, apply, presence
from tether.discovery.announcements.presence import ModelState, Supported, WorkerState
from tether.discovery.fleet.fleet import Fleet, judged, silent_in
from tether.discovery.fleet.liveness import (
    GRACE_MS,
    MAX_SILENCE_MS,
    RUNG_PATIENCE_MS,
    Appearance,
    Draws,
    Evidence,
    last_asked,
    last_seen_in,
    may_only_load,
    silent_pools,
)
from tether.discovery.fleet.pool_views import pools
from tether.models.registry import pool_name

POOL = pool_name("cpu", "local", MODEL)
WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id
NOW = 1_000_000
LONG_KNOWN = {WORKER: Appearance(0, 0, 0)}
READER_NOW = 10**9
"""The reader's clock has nothing to do with Redis's."""


def seen(**changes):
    values = {"now": NOW, "known": LONG_KNOWN, **changes}
    return Evidence(**values)


def asked(ago):
    return {Draws(WORKER, POOL): NOW - ago}


def is_silent(evidence, reader_now=READER_NOW, **announced):
    fleet = apply(Fleet(), presence(**announced), 0)
    silent = silent_pools(fleet.members.values(), evidence, reader_now)
    assert silent in ({}, {WORKER: {POOL}})
    return WORKER in silent


def test_a_worker_that_asks_for_jobs_is_believed_and_one_that_stops_asking_is_not():
    assert not is_silent(seen(asked=asked(0)))
    assert not is_silent(seen(asked=asked(MAX_SILENCE_MS - 1)))
    assert is_silent(seen(asked=asked(MAX_SILENCE_MS)))
    assert not is_silent(seen(asked=asked(0))), "it counts again by itself"


def test_a_worker_that_asks_another_pool_only_does_not_draw_from_the_one_that_it_announces():
    assert is_silent(seen(asked={Draws(WORKER, "another"): NOW, Draws(OTHER, POOL): NOW}))


def test_a_worker_that_was_woken_and_did_not_come_is_believed_for_a_moment_only_where_another_one_draws():
    fleet = apply(apply(Fleet(), presence(), 0), presence(OTHER_KEY), 0)

    def silent(missed_ago, asked_ago=RUNG_PATIENCE_MS + 500, other_asked_ago=0):
        evidence = seen(
            known={WORKER: Appearance(0, 0, 0), OTHER: Appearance(0, 0, 0)},
            asked=asked(asked_ago) | {Draws(OTHER, POOL): NOW - other_asked_ago},
            missed={Draws(WORKER, POOL): NOW - missed_ago},
        )
        return set(silent_pools(fleet.members.values(), evidence, READER_NOW))

    assert silent(RUNG_PATIENCE_MS) == {WORKER}
    assert silent(RUNG_PATIENCE_MS, asked_ago=0) == set(), "it came late"
    assert silent(RUNG_PATIENCE_MS - 1) == set()
    assert silent(RUNG_PATIENCE_MS, other_asked_ago=MAX_SILENCE_MS) == {OTHER}, "nobody could come before it"
    assert silent(RUNG_PATIENCE_MS, asked_ago=MAX_SILENCE_MS) == {WORKER}


def test_the_only_worker_of_a_pool_may_be_slow_to_come():
    missed = {Draws(WORKER, POOL): NOW - RUNG_PATIENCE_MS}
    assert not is_silent(seen(asked=asked(RUNG_PATIENCE_MS + 500), missed=missed))
    assert is_silent(seen(asked=asked(MAX_SILENCE_MS), missed=missed))


def test_a_worker_without_a_free_slot_lives_by_what_it_runs():
    at_work = seen(asked=asked(100_000), renewed={WORKER: NOW - MAX_SILENCE_MS + 1})
    assert not is_silent(at_work, free=0)
    assert is_silent(at_work, free=1), "it says that it could take another, and does not ask"
    assert is_silent(replace(at_work, renewed={WORKER: NOW - MAX_SILENCE_MS}), free=0)
    assert is_silent(seen(), free=0), "it says that it is full, and runs nothing"


def test_a_new_worker_is_believed_until_it_can_have_asked():
    def known_for(ms):
        return seen(known={WORKER: Appearance(NOW - ms, NOW - ms, NOW - ms)})

    assert not is_silent(known_for(GRACE_MS - 1))
    assert is_silent(known_for(GRACE_MS))
    assert not is_silent(known_for(GRACE_MS), state=WorkerState.DRAINING), "it announces no pool"


def test_a_worker_that_redis_does_not_know_yet_is_believed_as_long_after_the_reader_heard_of_it():
    assert not is_silent(seen(known={}), GRACE_MS - 1)
    assert is_silent(seen(known={}), GRACE_MS)


def test_a_redis_that_came_back_empty_counts_against_nobody_for_a_while():
    assert not is_silent(seen(known={}, resumed=NOW - GRACE_MS + 1))
    assert is_silent(seen(known={}, resumed=NOW - GRACE_MS))
    assert is_silent(seen(resumed=NOW)), "whom it knows it remembers"


def test_a_worker_that_is_started_again_gets_time_to_ask_once_its_last_life_drew():
    again = Appearance(first=0, former=NOW - 100_000, latest=NOW - GRACE_MS + 1)
    assert not is_silent(seen(asked=asked(99_999), known={WORKER: again}))
    assert not is_silent(seen(renewed={WORKER: NOW - 99_999}, known={WORKER: again}))
    assert is_silent(seen(asked=asked(100_001), known={WORKER: again})), "its last life never asked"
    assert is_silent(seen(known={WORKER: again})), "none of its lives ever did"
    assert is_silent(seen(asked=asked(99_999), known={WORKER: again._replace(latest=NOW - GRACE_MS)}))


def test_what_nobody_could_see_counts_against_nobody():
    pause = {"paused": NOW - 60_000, "resumed": NOW - 1_000}
    assert not is_silent(seen(asked=asked(60_000), **pause))
    assert not is_silent(seen(renewed={WORKER: NOW - 60_000}, **pause), free=0)
    assert not is_silent(seen(asked=asked(60_000 + MAX_SILENCE_MS), **pause))
    assert is_silent(seen(asked=asked(60_001 + MAX_SILENCE_MS), **pause)), "it was silent before that"
    over = {"paused": NOW - 80_000, "resumed": NOW - MAX_SILENCE_MS}
    assert is_silent(seen(asked=asked(80_000), **over))
    missed = {Draws(WORKER, POOL): NOW - 59_000}
    assert not is_silent(seen(asked=asked(60_000), missed=missed, **pause))


def test_a_worker_can_draw_from_one_pool_and_not_from_another():
    other_model = replace(MODEL, name="other", digest="cd" * 32)
    other_pool = pool_name("cpu", "local", other_model)
    both = presence(
        supported=(
            Supported("tiny", "1", DIGEST, ModelState.WARM),
            Supported("other", "1", other_model.digest, ModelState.WARM),
        ),
        pools=(POOL, other_pool),
    )
    fleet = apply(Fleet(), both, 0)
    silent = silent_pools(fleet.members.values(), seen(asked=asked(0)), READER_NOW)
    assert silent == {WORKER: {other_pool}}
    fleet = judged(fleet, silent)
    assert dict(fleet.served) == {POOL: 1}
    assert {view.name: (view.workers, view.silent) for view in pools(fleet, 0)} == {
        POOL: (1, 0),
        other_pool: (0, 1),
    }


class TestTheFleet:
    def test_is_served_by_those_that_draw_and_the_others_are_counted_apart(self):
        fleet = apply(apply(Fleet(), presence(free=3), 0), presence(OTHER_KEY, free=5, latency_hops=7), 0)
        fleet = judged(fleet, {WORKER: frozenset({POOL})})
        (view,) = pools(fleet, 0)
        assert (view.workers, view.silent, view.free, view.latency_hops) == (1, 1, 5, 7)
        assert dict(fleet.served) == {POOL: 1}
        fleet = judged(fleet, {WORKER: frozenset({POOL}), OTHER: frozenset({POOL})})
        (view,) = pools(fleet, 0)
        assert (view.workers, view.silent, view.slots, view.warm) == (0, 2, 0, False)
        assert not fleet.served
        assert dict(judged(fleet, {}).served) == {POOL: 2}

    def test_stays_the_same_where_nobody_is_judged_otherwise(self):
        fleet = judged(apply(Fleet(), presence(), 0), {WORKER: frozenset({POOL})})
        assert judged(fleet, {WORKER: frozenset({POOL})}) is fleet
        later = apply(fleet, presence(sequence=2), 1)
        assert later.served is fleet.served
        assert pools(later, 1)[0].workers == 0, "an announcement is no proof"

    def test_places_nothing_with_a_worker_that_says_itself_that_it_is_cut_off(self):
        fleet = apply(Fleet(), presence(state=WorkerState.DISCONNECTED), 0)
        assert not fleet.served
        (view,) = pools(fleet, 0)
        assert (view.workers, view.silent) == (0, 1)
        assert silent_in(fleet.members[WORKER], fleet.silent) == {POOL}
        assert dict(apply(fleet, presence(sequence=2), 1).served) == {POOL: 1}


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_the_last_draw_of_a_worker_is_that_from_any_of_its_pools(key):
    evidence = seen(asked={Draws(WORKER, POOL): 5, Draws(WORKER, "another"): 7})
    assert last_asked(evidence, presence(key).worker_id) == (7 if key is KEY else None)


@pytest.mark.parametrize(
    ("asked_ago", "reported_ago", "expected"),
    [
        (0, 0, {POOL}),
        (0, None, set()),
        (0, MAX_SILENCE_MS, set()),
        (MAX_SILENCE_MS, 0, set()),
        (None, 0, set()),
    ],
)
def test_who_asks_and_tells_what_it_has_loaded_may_only_load(asked_ago, reported_ago, expected):
    evidence = seen(
        asked={} if asked_ago is None else asked(asked_ago),
        reported={} if reported_ago is None else {WORKER: NOW - reported_ago},
    )
    assert may_only_load({POOL}, apply(Fleet(), presence(), 0), evidence) == expected
    assert may_only_load({"another"}, apply(Fleet(), presence(), 0), evidence) == set()


def test_who_only_loads_counts_whether_it_is_announced_or_not_and_anybody_else_keeps_its_pool():
    both = asked(0) | {Draws(OTHER, POOL): NOW}
    told = {WORKER: NOW}
    assert may_only_load({POOL}, Fleet(), seen(asked=asked(0), reported=told)) == {POOL}
    assert may_only_load({POOL}, Fleet(), seen(asked=both, reported=told)) == set()
    assert may_only_load({POOL}, Fleet(), seen(asked=both, reported=told | {OTHER: NOW})) == {POOL}
    fleet = apply(apply(Fleet(), presence(), 0), presence(OTHER_KEY), 0)
    assert may_only_load({POOL}, fleet, seen(asked=asked(0), reported=told)) == set()
    silent = judged(fleet, {OTHER: frozenset([POOL])})
    assert may_only_load({POOL}, silent, seen(asked=asked(0), reported=told)) == {POOL}


def test_what_a_worker_does_after_a_change_of_its_class_counts_for_its_new_pool_alone():
    """Who announces itself says what it serves; who is heard of by nobody may still do what it drew."""
    evidence = seen(
        asked={Draws(WORKER, POOL): NOW - 40_000, Draws("another", POOL): NOW - 50_000},
        renewed={WORKER: NOW - 100},
    )
    assert last_seen_in([POOL], [WORKER], evidence) == {POOL: 40_000}
    assert last_seen_in([POOL], [], evidence) == {POOL: 100}
    assert last_seen_in(["gpu.big.local.demo-12345678"], [WORKER], evidence) == {}
