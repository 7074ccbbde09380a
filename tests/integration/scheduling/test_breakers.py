"""Breakers among real workers: a model that fails or is slow in one region, and what becomes of its jobs."""

from dataclasses import replace

import pytest

from support.moody_engine import Mood
from support.placed_fleet import PlacedFleet, place_of
from support.waiting import PATIENCE_SECONDS, eventually
from tether.errors import BreakerOpen
from tether.jobs import JobRequest, Priority, Sampling
from tether.scheduling.breaker import BreakerState

CONFIG = """
[breaker]
window = "20s"
min_samples = 4
open_time = "1s"
max_open_time = "1s"
[jobs]
retry_base = 10
retry_cap = 100
[retries]
worker_failures = 100
"""
OPTIONS = {"depth": 0, "warm": 0, "home": "eu"}
"""Only the region counts: all jobs prefer `eu`."""


@pytest.fixture
def fleet(monkeypatch):
    opened = PlacedFleet(monkeypatch, rate=0, config=CONFIG)
    yield opened
    opened.close()


def submit(client, **more):
    options = {"max_tokens": 8, "max_attempts": 100, "retry_base": 1, **more}
    return client.submit("m", "p", **options)


def state_of(client):
    plane = client._backend._plane
    found = {name.region: breaker for name, breaker in plane.breakers.told().items()}
    return found["eu"].state(plane.clock.now_ms()) if "eu" in found else BreakerState.CLOSED


def wait_until_shut(client):
    shut = client._backend._plane.known_breakers.shut
    eventually(shut, PATIENCE_SECONDS, "the breaker is open")


def wait_until_closed(client):
    plane = client._backend._plane
    eventually(lambda: not plane.breakers.told(), PATIENCE_SECONDS, "the breaker is closed")
    eventually(lambda: not plane.known_breakers.shut(), PATIENCE_SECONDS, "everybody knows it")


def done(jobs):
    return [len(job.result(PATIENCE_SECONDS).token_ids) for job in jobs]


def test_where_a_model_fails_jobs_go_to_another_region_until_it_works_again(fleet):
    mood = Mood()
    fleet.start("eu", engine=mood.engine, threads=4)
    fleet.start("us", engine=Mood().engine, threads=4)
    client = fleet.client(2, **OPTIONS)
    assert place_of(submit(client))[1] == "eu"
    mood.fails = True
    first = [submit(client) for _ in range(8)]
    wait_until_shut(client)
    assert done(first) == [8] * 8
    later = [submit(client) for _ in range(4)]
    assert done(later) == [8] * 4
    excluded = {one.pool.split(".")[2]: one.excluded for one in client.explain("m", "p").pools}
    assert excluded["us"] is None
    mood.fails = False

    def tries():
        submit(client).result(PATIENCE_SECONDS)
        return not client._backend._plane.breakers.told()

    eventually(tries, PATIENCE_SECONDS, "a job has tried, and closed it")
    wait_until_closed(client)
    assert place_of(submit(client))[1] == "eu"


def test_where_nobody_else_can_serve_them_jobs_wait_and_one_at_a_time_tries(fleet):
    mood = Mood()
    fleet.start("eu", engine=mood.engine, threads=4)
    client = fleet.client(1, **OPTIONS)
    mood.fails = True
    jobs = [submit(client) for _ in range(8)]
    wait_until_shut(client)
    late = submit(client)
    eventually(lambda: late.status().state == "parked", PATIENCE_SECONDS, "it waits in the database")
    words = "circuit breaker of m@1 in region eu is"
    eventually(lambda: words in late.status().waits_for, PATIENCE_SECONDS, "it says why it waits")

    def trips():
        return max((breaker.trips for breaker in client._backend._plane.breakers.told().values()), default=0)

    # Once one has tried, everybody knows that it is open, and what had begun before has ended.
    eventually(lambda: trips() > 1, PATIENCE_SECONDS, "one has tried")
    tripped, before = trips(), mood.started
    eventually(lambda: trips() > tripped + 2, PATIENCE_SECONDS, "some have tried")
    assert mood.started - before <= trips() - tripped + 1, "no more than one job each time"
    mood.fails = False
    assert done([*jobs, late]) == [8] * 9
    wait_until_closed(client)


def test_what_does_not_wait_is_refused_while_it_is_open(fleet):
    mood = Mood()
    fleet.start("eu", engine=mood.engine, threads=4)
    client = fleet.client(1, **OPTIONS)
    mood.fails = True
    jobs = [submit(client) for _ in range(8)]
    wait_until_shut(client)

    def refused():
        try:
            submit(client, priority="interactive")
        except BreakerOpen as error:
            return error
        return None

    error = eventually(refused, PATIENCE_SECONDS, "an interactive job is refused")
    assert (error.code, error.http_status) == ("breaker_open", 503)
    assert 1 <= error.retry_after <= 2
    # Nobody would hear of a refusal of what a task submitted.
    scheduler, broker = client._backend._plane.scheduler, client.broker
    promised = JobRequest(
        model="m",
        prompt="p",
        sampling=Sampling(max_tokens=8),
        max_attempts=100,
        priority=Priority.INTERACTIVE,
    )
    sent = broker.enqueue(replace(scheduler.envelope(promised), is_promised=True))
    mood.fails = False
    assert done([*jobs, client.job(sent.message_id)]) == [8] * 9


def test_where_a_model_is_slow_jobs_go_elsewhere_and_stay_where_there_is_nothing_else(fleet):
    mood = Mood(rate=400)
    fleet.start("eu", engine=mood.engine, threads=4)
    client = fleet.client(1, **OPTIONS)
    plane = client._backend._plane

    def has_baseline():
        submit(client, max_tokens=40).result(PATIENCE_SECONDS)
        return any(read.breaker.baseline for read in plane.breakers.read_all(0))

    eventually(has_baseline, PATIENCE_SECONDS, "the normal speed is known")
    mood.rate = 20

    def is_open():
        [job.result(PATIENCE_SECONDS) for job in [submit(client, max_tokens=8) for _ in range(8)]]
        return plane.breakers.told()

    eventually(is_open, PATIENCE_SECONDS, "it is slow")
    wait_until_shut(client)
    alone = submit(client)
    assert place_of(alone)[1] == "eu"
    fleet.start("us", engine=Mood().engine, threads=4)
    eventually(lambda: place_of(submit(client))[1] == "us", PATIENCE_SECONDS, "jobs go to the other region")
    assert done([alone, submit(client, region="eu")]) == [8, 8]
