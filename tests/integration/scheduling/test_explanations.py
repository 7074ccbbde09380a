"""Why a job is placed where it is, told before it is submitted and after, among real workers."""

import pytest
from sqlalchemy import update

from support.placed_fleet import PlacedFleet
from support.waiting import PATIENCE_SECONDS, eventually
from tether.explanations import PlacementOrigin
from tether.store.schema import decisions
from tether.telemetry import metrics

LONG = 3_000
"""Tokens of a job that does not end while a test looks."""


@pytest.fixture
def fleet(monkeypatch, database_url):
    opened = PlacedFleet(monkeypatch, database=database_url)
    yield opened
    opened.close()


def choice_of(job):
    """A later hand-over may repeat it: Redis was empty when the orchestrator began."""
    return job.placements().placements[0]


def compared(explanation):
    """What is told of each pool but how busy it is, by pool."""
    return {
        each.pool: (each.excluded, each.words, dict(each.terms), each.slots) for each in explanation.pools
    }


def test_what_is_told_before_is_what_is_kept_and_does_not_change_with_the_fleet(fleet):
    fleet.start("eu")
    fleet.start("us", "h100")
    client = fleet.client(2)
    before = client.explain("m", "x", region="eu", max_tokens=4)
    assert before.pool.startswith("gpu.cpu.eu.")
    assert before.why == f"{before.pool} is the only pool that can serve it, 1 cannot"
    job = client.submit("m", "x", region="eu", max_tokens=4)
    kept = choice_of(job)
    assert (kept.origin, kept.pool, kept.explanation.pool) == (
        PlacementOrigin.CHOSEN,
        before.pool,
        before.pool,
    )
    assert compared(kept.explanation) == compared(before)
    [(excluded, words, terms, _)] = [told for pool, told in compared(before).items() if ".us." in pool]
    assert (excluded, words, terms) == ("region", "is in region us, not eu", {})
    job.result(PATIENCE_SECONDS)

    fleet.start("eu", "h100")
    other = fleet.client(3)
    assert len(other.explain("m", "x", region="eu", max_tokens=4).pools) == 3
    after = choice_of(other.job(job.job_id))
    assert after.explanation == kept.explanation
    assert (after.wait_seconds, after.total_seconds) == (kept.wait_seconds, kept.total_seconds)


def test_a_job_that_waits_behind_another_was_expected_to_and_its_error_is_measured(fleet):
    fleet.start("eu")
    client = fleet.client(1)
    client.submit("m", "x", max_tokens=2).result(PATIENCE_SECONDS)
    counts = {
        direction: metrics.PLACEMENT_WAIT_ERROR.labels(direction=direction)
        for direction in ("longer", "shorter")
    }

    def observed():
        return sum(
            reading.value
            for each in counts.values()
            for reading in each.readings()
            if reading.suffix == "_count"
        )

    # From now on nothing is handed over again. The worker has one slot.
    told = observed()
    running = client.submit("m", "x", max_tokens=LONG)
    next(running.events())
    behind = client.submit("m", "x", max_tokens=40)
    expected = choice_of(behind)
    assert expected.wait_seconds >= 1.0
    assert expected.waited_seconds is None
    [pool] = expected.explanation.pools
    # One that has just ended counts until its end is recorded.
    assert pool.ahead >= 1
    assert pool.slots == 1
    running.cancel()
    behind.result(PATIENCE_SECONDS)
    eventually(lambda: observed() >= told + 2, PATIENCE_SECONDS, "both waits are measured")
    assert choice_of(behind).waited_seconds is not None


def test_a_parked_job_says_why_until_a_pool_can_serve_it(fleet):
    fleet.start("us")
    client = fleet.client(1)
    job = client.submit("m", "x", region="eu", max_tokens=2)
    parked = choice_of(job)
    assert (parked.origin, parked.pool, parked.dispatch) == (PlacementOrigin.UNSERVED, None, 1)
    [pool] = parked.explanation.pools
    assert parked.explanation.why == f"no pool can serve it: {pool.pool} is in region us, not eu"
    assert client.explain("m", "x", region="eu").why == parked.explanation.why
    fleet.start("eu")
    job.result(PATIENCE_SECONDS)
    placed = job.placements().placements[0]
    assert (placed.dispatch, placed.origin) == (1, PlacementOrigin.CHOSEN)
    assert placed.pool.startswith("gpu.cpu.eu.")


def test_a_choice_that_cannot_be_read_costs_its_own_explanation_and_no_job(fleet):
    fleet.start("eu")
    client = fleet.client(1)
    client.submit("m", "x", max_tokens=1).result(PATIENCE_SECONDS)
    running = client.submit("m", "x", max_tokens=LONG)
    next(running.events())
    first, second = (client.submit("m", "x", max_tokens=2) for _ in range(2))
    store = client._backend._plane.store

    def damage(connection):
        is_first = decisions.c.job_id == first.job_id
        connection.execute(update(decisions).where(is_first).values(choice="{", wait_ms=None))

    store.write_alone(damage).result(PATIENCE_SECONDS)
    running.cancel()
    assert (
        len(first.result(PATIENCE_SECONDS).token_ids) == len(second.result(PATIENCE_SECONDS).token_ids) == 2
    )
    unreadable = choice_of(first)
    assert (unreadable.origin, unreadable.explanation) == (PlacementOrigin.UNREADABLE, None)
    assert unreadable.pool == choice_of(second).pool
    assert choice_of(second).explanation is not None
