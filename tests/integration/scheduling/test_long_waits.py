"""Waiting jobs that another pool would do much sooner are placed again, among real workers."""

import pytest

from support.placed_fleet import PlacedFleet, place_of
from support.waiting import PATIENCE_SECONDS, eventually
from tether.explanations import PlacementOrigin

SOON = "[scheduling]\nmove_factor = 1.5\nmove_gain = 500\n"


@pytest.fixture
def fleet(monkeypatch):
    opened = PlacedFleet(monkeypatch, rate=100, config=SOON)
    yield opened
    opened.close()


def regions(jobs):
    return [place_of(job)[1] for job in jobs]


def choices(job):
    """How often a pool was chosen for it. A rebuild of Redis hands over to the same pool again."""
    return sum(each.origin is PlacementOrigin.CHOSEN for each in job.placements().placements)


def test_what_waits_behind_a_long_queue_is_done_by_a_worker_that_comes_later(fleet):
    fleet.start("ap")
    client = fleet.client(1)
    jobs = [client.submit("m", "x", max_tokens=250) for _ in range(8)]
    tied = [client.submit("m", "x", max_tokens=250, region="ap") for _ in range(4)]
    assert set(regions(jobs + tied)) == {"ap"}
    fleet.start("us")
    eventually(
        lambda: regions(jobs).count("us") >= 3, PATIENCE_SECONDS, "waiting jobs are placed in the other pool"
    )
    assert regions(tied) == ["ap"] * 4, "a job that must stay stays, and is not handed over again"
    assert [choices(job) for job in tied] == [1] * 4
    assert max(map(choices, jobs)) <= 3
    for job in jobs + tied:
        assert len(job.result(PATIENCE_SECONDS).token_ids) == 250
    assert max(map(choices, jobs)) <= 3
    assert [job.status().attempts for job in jobs] == [1] * 8, "nothing that ran was moved"
