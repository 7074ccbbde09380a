"""A warm and a cold worker, in two regions: placement expects of the cold one what the warm one measured, and
both work."""

import contextlib
import json

import pytest

from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.jobs import JobRequest, Sampling

LOAD_MS = 300
TOKENS, RATE = 40, 40


def models(*, is_pinned):
    options = {"tokens_per_second": RATE, "load_time": LOAD_MS}
    # A worker with a single model loads it at once.
    return json.dumps(
        [
            {"name": "m", "engine": "null", "pinned": is_pinned, "options": options},
            {"name": "other", "engine": "null"},
        ]
    )


@pytest.fixture
def stage():
    with Cluster() as cluster:
        cluster.orchestrator()
        for region, is_pinned in (("eu", True), ("us", False)):
            places = {"TETHER_WORKER__REGION": region, "TETHER_MODELS": models(is_pinned=is_pinned)}
            cluster.start_worker(threads=2, **places)
        settings = cluster.settings.model_validate(
            {**cluster.settings.model_dump(), "models": json.loads(models(is_pinned=False))}
        )
        with contextlib.closing(Tether.direct(settings)) as client:
            yield client, client._backend._plane.fleet


def pools_of(fleet):
    return {view.region: view for view in fleet.pools() if view.model == "m" and view.workers}


def test_both_work_and_the_cold_one_loads_for_it(stage):
    client, fleet = stage

    def is_seen():
        found = pools_of(fleet)
        return {region: pool.warm for region, pool in found.items()} == {"eu": True, "us": False} and (
            found["eu"].load_seconds
        )

    eventually(is_seen, PATIENCE_SECONDS, "one is warm and has told what that took, the other is cold")
    before = pools_of(fleet)
    assert before["us"].load_seconds == before["eu"].load_seconds >= LOAD_MS / 1000
    request = JobRequest(model="m", prompt="x", sampling=Sampling(max_tokens=TOKENS))
    jobs = client.submit_many([request] * 12)
    for job in jobs:
        assert len(job.result(PATIENCE_SECONDS).token_ids) == TOKENS
    assert {job.status().pool.split(".")[2] for job in jobs} == {"eu", "us"}
    eventually(lambda: pools_of(fleet)["us"].warm, PATIENCE_SECONDS, "the cold one tells that it is warm")
