"""Pools that take no more jobs, among real workers: the next one gets them, or they wait; all are done."""

import pytest

from support.databases import fresh_postgres
from support.placed_fleet import PlacedFleet, place_of
from support.waiting import PATIENCE_SECONDS, eventually

LONG = 3_000
"""Tokens of a job that does not end while a test looks."""

FEW = "[scheduling]\npool_jobs = 2\npool_horizon = 1\n"
"""With one slot a pool takes three jobs: two standard ones."""


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    if request.param == "sqlite":
        yield {}
    else:
        with fresh_postgres(request.getfixturevalue("postgres_url")) as url:
            yield {"database": url}


@pytest.fixture
def fleet(monkeypatch, database):
    opened = PlacedFleet(monkeypatch, rate=200, config=FEW, **database)
    yield opened
    opened.close()


def test_a_full_pool_sends_jobs_to_the_next_and_then_into_the_database(fleet):
    fleet.start("ap")
    fleet.start("us")
    # Both choose by what they knew a moment ago: that is what the claim is for.
    one, two = fleet.client(2, depth=0), fleet.client(2, depth=0)
    jobs = [client.submit("m", "x", max_tokens=LONG) for client in (one, two, one, two)]
    assert sorted(place_of(job)[1] for job in jobs) == ["ap", "ap", "us", "us"]
    waiting = two.submit("m", "x", max_tokens=2)
    assert waiting.status().state == "parked"
    assert "take no more jobs now: pool gpu.cpu." in waiting.status().waits_for
    urgent = one.submit("m", "x", max_tokens=2, priority="interactive")
    assert urgent.status().pool is not None
    jobs[0].cancel()
    jobs[1].cancel()
    assert len(waiting.result(PATIENCE_SECONDS).token_ids) == 2
    assert len(urgent.result(PATIENCE_SECONDS).token_ids) == 2


def test_many_more_jobs_than_the_pools_take_are_all_done(fleet):
    fleet.start("ap", threads=2)
    fleet.start("us")
    clients = [fleet.client(2) for _ in range(2)]
    jobs = [clients[number % 2].submit("m", "x", max_tokens=2) for number in range(40)]
    for job in jobs:
        assert len(job.result(PATIENCE_SECONDS).token_ids) == 2
    assert {place_of(job)[1] for job in jobs} == {"ap", "us"}


def test_a_delayed_job_keeps_nobody_out(fleet):
    fleet.start("ap")
    client = fleet.client(1)
    later = [client.submit("m", "x", max_tokens=2, delay=3_600) for _ in range(5)]
    assert {job.status().state for job in later} == {"parked"}
    assert later[0].status().waits_for.startswith("it may not start before 20")
    assert len(client.submit("m", "x", max_tokens=2).result(PATIENCE_SECONDS).token_ids) == 2


@pytest.mark.parametrize("share", ["0.5", "0"])
def test_a_standard_job_waits_for_all_interactive_ones_only_if_it_has_no_share(monkeypatch, database, share):
    config = FEW + f'standard_age = "1s"\nstandard_share = {share}\n'
    fleet = PlacedFleet(monkeypatch, rate=200, config=config, **database)
    try:
        fleet.start("ap")
        client = fleet.client(1)
        # What may start later is not refused, but waits for room.
        later = {"priority": "interactive", "delay": 0.2}
        urgent = [client.submit("m", "x", max_tokens=40, **later) for _ in range(40)]

        def is_full():
            return sum(job.status().pool is not None for job in urgent) >= 3

        eventually(is_full, PATIENCE_SECONDS, "they fill the pool")
        waiting = client.submit("m", "x", max_tokens=2)
        assert waiting.status().state == "parked"
        waiting.result(PATIENCE_SECONDS)
        ended = [job.status().state == "succeeded" for job in urgent]
        assert all(ended) == (share == "0")
    finally:
        fleet.close()
