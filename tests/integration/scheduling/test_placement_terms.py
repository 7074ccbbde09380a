"""Each term of the score, and each of its settings, changes where a real job goes among real workers."""

import pytest

from support.placed_fleet import PlacedFleet, place_of
from support.waiting import PATIENCE_SECONDS, eventually

LONG = 3_000
"""Tokens of a job that does not end while a test looks."""


@pytest.fixture
def fleet(monkeypatch):
    opened = PlacedFleet(monkeypatch, versions=("1", "2"))
    yield opened
    opened.close()


def region_of(client, **asked):
    return place_of(client.submit("m", "x", max_tokens=1, **asked))[1]


def test_model_match_sends_a_job_that_takes_any_version_to_its_own(fleet):
    fleet.start(version="1")
    fleet.start(version="2")
    client = fleet.client(2)
    places = [place_of(client.submit(f"m@{n}", "x", any_version=True, max_tokens=1)) for n in "12"]
    assert places[0] != places[1]
    assert places == [place_of(client.submit(f"m@{n}", "x", max_tokens=1)) for n in "12"]


def test_another_version_serves_a_job_whose_own_nobody_serves(fleet):
    fleet.start(version="2")
    client = fleet.client(1)
    job = client.submit("m@1", "x", any_version=True, max_tokens=3)
    assert len(job.result(PATIENCE_SECONDS).token_ids) == 3
    assert client.submit("m@1", "x").status().state == "parked"


def test_a_parked_job_that_takes_any_version_is_woken_by_a_worker_of_another(fleet):
    client = fleet.client(0)
    own, any_version = (client.submit("m@1", "x", any_version=each, max_tokens=3) for each in (False, True))
    assert any_version.status().state == "parked"
    fleet.start(version="2")
    assert len(any_version.result(PATIENCE_SECONDS).token_ids) == 3
    assert own.status().state == "parked"


@pytest.mark.parametrize(("hops", "nearer"), [({"ap": 12, "us": 1}, "us"), ({"ap": 1, "us": 12}, "ap")])
def test_region_proximity_sends_a_job_to_the_nearer_of_other_regions(fleet, hops, nearer):
    fleet.hops |= hops
    fleet.start("ap")
    fleet.start("us")
    assert region_of(fleet.client(2, depth=0)) == nearer


def test_region_proximity_sends_a_job_that_names_none_to_its_gateways_region(fleet):
    fleet.start("ap")
    fleet.start("us")
    assert [region_of(fleet.client(2, home=region)) for region in ("us", "ap")] == ["us", "ap"]
    assert region_of(fleet.client(2, home="us"), region="ap", prefer="region") == "ap"


def test_the_gpu_class_that_is_preferred_is_chosen(fleet):
    fleet.start(gpu_class="a100")
    fleet.start(gpu_class="h100")
    client = fleet.client(2)
    jobs = [
        client.submit("m", "x", gpu_class=name, prefer="gpu_class", max_tokens=1) for name in ("a100", "h100")
    ]
    assert [place_of(job)[0] for job in jobs] == ["a100", "h100"]


def test_inverse_depth_sends_a_second_job_elsewhere(fleet):
    fleet.start("ap")
    fleet.start("us")
    client = fleet.client(2)
    assert [place_of(client.submit("m", "x", max_tokens=LONG))[1] for _ in range(2)] == ["ap", "us"]


@pytest.mark.parametrize("cold", ["ap", "us"])
def test_a_warm_cache_draws_a_job(fleet, cold):
    for region in ("ap", "us"):
        fleet.start(region, is_warm=region != cold)
    assert region_of(fleet.client(2, loaded=1, depth=0)) == ({"ap", "us"} - {cold}).pop()


# The settings.


def test_the_weight_of_the_model_match_counts_against_a_warm_cache(fleet):
    fleet.start("ap", version="1", is_warm=False)
    fleet.start("us", version="2")
    for weight, region in ((0, "us"), (1, "us"), (3, "ap")):
        client = fleet.client(2, loaded=1, depth=0, warm=1, model_match=weight)
        assert place_of(client.submit("m@1", "x", any_version=True))[1] == region


def test_the_weight_of_the_region_and_the_step_of_a_hop_decide_whether_the_way_counts(fleet):
    fleet.hops |= {"ap": 12, "us": 1}
    fleet.start("ap")
    fleet.start("us")
    assert region_of(fleet.client(2, depth=0)) == "us"
    assert region_of(fleet.client(2, depth=0, region=0)) == "ap"
    assert region_of(fleet.client(2, depth=0, hop_step=0)) == "ap"


def test_the_proximity_of_other_regions_counts_against_a_warm_cache(fleet):
    fleet.start("ap", is_warm=False)
    fleet.start("us")
    for other, region in ((0.5, "ap"), (0.9, "us")):
        client = fleet.client(2, loaded=1, home="ap", depth=0, warm=0.3, other_region=other)
        assert region_of(client) == region


def test_the_weight_of_the_gpu_class_decides_whether_it_counts(fleet):
    fleet.start(gpu_class="a100")
    fleet.start(gpu_class="h100")
    for weight, gpu_class in ((1, "h100"), (0, "a100")):
        job = fleet.client(2, gpu_class=weight).submit(
            "m", "x", gpu_class="h100", prefer="gpu_class", max_tokens=1
        )
        assert place_of(job)[0] == gpu_class
        job.result(PATIENCE_SECONDS)


def test_the_weight_of_the_depth_and_the_scale_of_the_wait_decide_how_deep_a_pool_gets(fleet):
    fleet.start("ap")
    fleet.start("us")
    for changes, regions in (
        ({}, ["ap", "us"]),
        ({"depth": 0}, ["ap", "ap"]),
        ({"wait_scale": 10**7}, ["ap", "ap"]),
    ):
        # Its own region is half a point ahead.
        client = fleet.client(2, home="ap", **changes)
        jobs = [client.submit("m", "x", max_tokens=LONG) for _ in regions]
        assert [place_of(job)[1] for job in jobs] == regions
        for job in jobs:
            job.cancel()
        eventually(
            lambda jobs=jobs: all(job.status().state.is_final for job in jobs), PATIENCE_SECONDS, "ended"
        )


def test_the_weight_of_a_warm_cache_decides_whether_it_counts(fleet):
    fleet.start("ap", is_warm=False)
    fleet.start("us")
    for weight, region in ((1, "us"), (0, "ap")):
        assert region_of(fleet.client(2, loaded=1, depth=0, warm=weight)) == region
