"""A pool whose worker fails to load the model, among real workers: jobs go elsewhere until it can."""

import json

import pytest

from support.placed_fleet import PlacedFleet, place_of
from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.over_redis.load_failures import read_without_hope, write_load_failures
from tether.ids import WorkerId
from tether_workers import loading
from tether_workers.load_failures import TRIES_BEFORE_TELLING

OPTIONS = {"depth": 0, "warm": 0, "home": "ap"}
"""Only the region counts: all jobs prefer that of the pool whose worker fails."""


@pytest.fixture
def fleet(monkeypatch):
    opened = PlacedFleet(monkeypatch, rate=2_000)
    yield opened
    opened.close()


def pool_in(client, region):
    (view,) = (one for one in client._backend._plane.fleet.pools() if one.region == region)
    return view


def submit(client):
    return client.submit("m", "p", max_tokens=2, max_attempts=100, retry_base=0)


def fail_in_ap(fleet):
    """A client of two pools, whose better one has failed again and again, and what lets it load again."""
    broken = [True]
    fleet.start("ap", fails=lambda: bool(broken))
    fleet.start("us")
    client = fleet.client(2, loaded=1, **OPTIONS)
    first = submit(client)
    eventually(lambda: pool_in(client, "ap").unloadable == 1, PATIENCE_SECONDS, "the failures are seen")
    assert len(first.result(PATIENCE_SECONDS).token_ids) == 2
    assert place_of(first)[1] == "us"
    return client, broken


def test_what_another_pool_can_serve_does_not_go_where_the_model_cannot_be_loaded(fleet, monkeypatch):
    pauses = dict.fromkeys(range(TRIES_BEFORE_TELLING), 0.1)
    monkeypatch.setattr(loading, "load_pause", lambda tries: pauses.get(tries, 1_000.0))
    client, _ = fail_in_ap(fleet)
    assert not pool_in(client, "ap").may_try
    for _ in range(5):
        job = submit(client)
        assert len(job.result(PATIENCE_SECONDS).token_ids) == 2
        assert (place_of(job)[1], job.status().dispatch) == ("us", 1)
    excluded = {one.pool: one.excluded for one in client.explain("m", "p").pools}
    assert excluded == {pool_in(client, "us").name: None, pool_in(client, "ap").name: "unloadable"}


def test_one_job_shows_that_it_can_be_loaded_again_and_then_all_go_there(fleet, monkeypatch):
    monkeypatch.setattr(loading, "load_pause", lambda tries: 0.1)
    client, broken = fail_in_ap(fleet)
    broken.clear()
    jobs = []

    def is_loaded():
        jobs.append(submit(client))
        return pool_in(client, "ap").warm and not pool_in(client, "ap").unloadable

    eventually(is_loaded, PATIENCE_SECONDS, "a job showed that it can be loaded")
    last = submit(client)
    assert place_of(last)[1] == "ap"
    for job in (*jobs, last):
        assert len(job.result(PATIENCE_SECONDS).token_ids) == 2


def test_a_job_that_only_this_pool_may_have_stays_there(fleet):
    client, broken = fail_in_ap(fleet)
    job = client.submit("m", "p", region="ap", max_tokens=2, max_attempts=100, retry_base=0)
    assert place_of(job)[1] == "ap"
    broken.clear()
    assert len(job.result(PATIENCE_SECONDS).token_ids) == 2


def test_what_cannot_be_read_is_no_failure(fleet):
    redis, keys = fleet.cluster.redis, fleet.cluster.keys
    workers = [WorkerId(name) for name in ("good", "older", "torn", "false")]
    write_load_failures(redis, keys, workers[0], {"m@1": "no room"}, {"m@1": True})
    texts = [json.dumps({"m@1": "no room"}), "{", json.dumps({"": {"m@1": "yes"}})]
    for worker, text in zip(workers[1:], texts, strict=True):
        redis.set(keys.fleet_failing(worker), text)
    assert read_without_hope(redis, keys, workers) == {"good": {"m@1": True}}
    assert redis.zrange(keys.failing_workers, 0, -1) == [b"good"]
    write_load_failures(redis, keys, workers[0], {})
    assert read_without_hope(redis, keys, workers) == {}
    assert redis.zrange(keys.failing_workers, 0, -1) == []
