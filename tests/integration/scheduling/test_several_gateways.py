"""Several gateways, real workers in two regions and classes: each job goes where it must; all are done."""

import contextlib

import pytest

from support.databases import fresh_postgres
from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet, place_of
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether

PLACES = [("a100", "ap"), ("h100", "ap"), ("a100", "us"), ("h100", "us")]

FEW = "[scheduling]\npool_jobs = 3\npool_horizon = 1\n"
"""So few jobs to a pool that gateways meet at its bound."""


@pytest.fixture(params=["sqlite", "postgres"])
def fleet(monkeypatch, request):
    options = {"rate": 200, "config": FEW}
    if request.param == "sqlite":
        opened = PlacedFleet(monkeypatch, **options)
        yield opened
        opened.close()
        return
    with fresh_postgres(request.getfixturevalue("postgres_url")) as url:
        opened = PlacedFleet(monkeypatch, database=url, **options)
        yield opened
        opened.close()


@pytest.fixture
def clients(fleet):
    """Clients of three gateways: two of one region, one of the other."""
    for gpu_class, region in PLACES:
        fleet.start(region, gpu_class)
    with contextlib.ExitStack() as stack:
        opened = []
        for region in ("ap", "us", "us"):
            settings = fleet.cluster.settings
            worker = settings.worker.model_copy(update={"region": region})
            gateway = RunningGateway(settings.model_copy(update={"worker": worker}))
            stack.enter_context(gateway)
            opened.append(stack.enter_context(Tether(gateway.url, api_key=gateway.key())))

        def see_all():
            return all(sum(len(model.pools) for model in client.models()) == len(PLACES) for client in opened)

        eventually(see_all, PATIENCE_SECONDS, "each gateway sees all pools")
        yield opened


def test_each_job_goes_where_it_must_whatever_gateway_has_it_and_all_are_done(clients):
    asked = [
        {},
        {"region": "us"},
        {"gpu_class": "h100"},
        {"region": "ap", "gpu_class": "a100"},
        {"region": "us", "gpu_class": "h100", "prefer": ("region", "gpu_class")},
    ]
    jobs = [
        (wish, clients[number % 3].submit("m", "x", max_tokens=4, **wish))
        for number in range(12)
        for wish in asked
    ]
    places = []
    for wish, job in jobs:
        assert len(job.result(PATIENCE_SECONDS).token_ids) == 4
        status = job.status()
        gpu_class, region, _ = place_of(job)
        places.append((gpu_class, region))
        if "prefer" not in wish:
            assert wish.get("region", region) == region
            assert wish.get("gpu_class", gpu_class) == gpu_class
        assert status.attempts == 1
    assert set(places) == set(PLACES)
    # Where one pool was full, the next one that meets the needs had it, or it waited.
    for job in (job for _, job in jobs):
        kept = job.placements().placements[-1]
        assert kept.pool == job.status().pool
        assert kept.waited_seconds is not None
