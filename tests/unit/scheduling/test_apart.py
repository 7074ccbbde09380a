"""Which tenants are set apart, and for how long."""

from dataclasses import replace

import pytest

from tether.scheduling.apart import (
    FIRST_NEEDED,
    MAX_NEEDED,
    MAX_WATCHED,
    RESTART_MS,
    DeadJobs,
    Turn,
    WatchedTenant,
    watched_after_death_apart,
    watched_after_open_death,
    watched_after_proofs,
)


def test_the_second_death_in_the_open_sets_the_likeliest_apart():
    died = {"few": DeadJobs(1, 200), "many": DeadJobs(3, 100), "none": DeadJobs(0, 50)}
    once = watched_after_open_death({}, died, 10)
    assert once == {"few": WatchedTenant(10, 1, 1, ran_ms=200), "many": WatchedTenant(10, 1, 3, ran_ms=100)}
    twice = watched_after_open_death(once, died, 20)
    assert (twice["many"].is_apart, twice["few"].is_apart) == (True, False)
    assert (twice["many"].since_ms, twice["many"].jobs) == (20, 6)


def test_equally_likely_tenants_are_both_set_apart():
    died = {"a": DeadJobs(2, 100), "b": DeadJobs(2, 100)}
    after = watched_after_open_death(watched_after_open_death({}, died, 10), died, 20)
    assert all(each.is_apart for each in after.values())


def test_who_was_part_of_more_deaths_is_likelier_than_who_had_more_jobs():
    watched = {"often": WatchedTenant(1, 2, 2), "much": WatchedTenant(1, 1, 9)}
    after = watched_after_open_death(watched, {"often": DeadJobs(1, 100), "much": DeadJobs(3, 100)}, 20)
    assert (after["often"].is_apart, after["much"].is_apart) == (True, False)


def test_of_too_many_the_one_is_forgotten_whose_death_was_first_unless_it_is_apart():
    watched = {f"t{number:02}": WatchedTenant(number) for number in range(MAX_WATCHED)}
    watched["t00"] = replace(watched["t00"], since_ms=1)
    after = watched_after_open_death(watched, {"new": DeadJobs(1, 100)}, 100)
    assert len(after) == MAX_WATCHED
    assert set(watched) - set(after) == {"t01"}


def test_after_a_death_apart_one_job_begins_and_more_with_each_that_does_no_harm():
    record = WatchedTenant(1, 2, 4, since_ms=1, ran_ms=100, needed=8)
    assert [record.room_beside(running) for running in (0, 1)] == [1, 0]
    proved = watched_after_proofs(watched_after_proofs(record, 1), 2)
    assert (proved.room_beside(0), proved.room_beside(3)) == (4, 1)
    died = watched_after_death_apart(proved, 400, 50)
    assert (died.seen_ms, died.room_beside(0), died.ran_ms, died.proof_ms) == (50, 1, 400, 3_800)
    assert watched_after_death_apart(died, 100_000, 60).proof_ms == 30_000


def test_each_time_it_takes_more_to_be_set_free():
    record, needed = WatchedTenant(1, 2, 4, since_ms=1), []
    for _ in range(6):
        needed.append(record.needed)
        assert watched_after_proofs(record, record.needed - 1).is_apart
        free = watched_after_proofs(record, record.needed)
        assert (free.is_apart, free.deaths, free.jobs, free.proofs) == (False, 0, 0, 0)
        record = replace(free, since_ms=1)
    assert needed == [FIRST_NEEDED, 8, 16, 32, MAX_NEEDED, MAX_NEEDED]


@pytest.mark.parametrize(
    ("turn", "asked_by", "is_running", "is_over"),
    [
        (Turn("w.1", 0, 90_000), "other", True, False),
        (Turn("w.1", 0, 90_000), "other", False, True),
        (Turn("w.1", 0, 80_000), "other", True, True),
        (Turn("w.1", 0, 10**9), "other", True, True),
        (Turn("w.1", 0, 90_000, 70_000), "other", False, False),
        (Turn("w.1", 0, 90_000, 70_000), "w", False, True),
        (Turn("w.1", 0, 90_000, 20_000), "other", False, True),
        (Turn("w.1", 0, 90_000, 10**9), "other", False, True),
    ],
)
def test_a_turn_lasts_until_its_jobs_are_proved_or_its_worker_is_back(turn, asked_by, is_running, is_over):
    assert turn.is_over(asked_by, is_running, 80_000) is is_over


def test_others_come_first_for_as_long_as_a_turn_took():
    turn = Turn("w.1", 1_000, 600_000)
    assert [turn.rest_ms(now) for now in (1_300, 21_000, 10**9)] == [2_000, 20_000, 300_000]


def test_a_turn_that_nobody_asked_about_took_no_longer_for_that():
    assert Turn("w.1", 1_000, 7_000).rest_ms(10**9) == 6_000
    assert Turn("w.1", 1_000, 7_000, ended_ms=3_000).rest_ms(10**9) == 2_000 + RESTART_MS
