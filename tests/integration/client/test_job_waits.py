"""What a job's status says of its wait in a pool of real workers, through every door."""

import json
import subprocess
import sys

import pytest

from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.jobs import JobState
from tether.store import Store
from tether.store.placements import raise_dispatches

LONG = 3_000
"""Tokens of a job that does not end while a test looks."""


@pytest.fixture
def fleet(monkeypatch):
    opened = PlacedFleet(monkeypatch)
    yield opened
    opened.close()


def shown(fleet, gateway, *words):
    environ = {**fleet.cluster.environ, "TETHER_URL": gateway.url, "TETHER_API_KEY": gateway.key()}
    return subprocess.run(
        [sys.executable, "-m", "tether_cli", *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )


def says(job, words):
    eventually(lambda: job.status().waits_for == words, PATIENCE_SECONDS, f"{words!r} is said")


def expected_time(job):
    """When it is expected to begin. A slow Redis does not tell for a moment whether it has begun."""
    found = []

    def is_told():
        found.append(job.status().expected_at)
        return found[-1] is not None

    eventually(is_told, PATIENCE_SECONDS, "it is expected")
    return found[-1]


def test_a_job_says_how_many_are_before_it_and_when_it_is_expected_to_begin(fleet):
    fleet.start()
    direct = fleet.client(1)
    first = direct.submit("m", "p", max_tokens=LONG)
    eventually(lambda: first.status().state is JobState.RUNNING, PATIENCE_SECONDS, "the first runs")
    with (
        RunningGateway(fleet.cluster.settings) as gateway,
        Tether(gateway.url, api_key=gateway.key()) as client,
    ):
        eventually(lambda: any(model.workers for model in client.models()), PATIENCE_SECONDS, "it is seen")
        jobs = [client.submit("m", "p", max_tokens=LONG) for _ in range(2)]
        last = jobs[-1]
        words = f"pool {last.status().pool} has 3 jobs for 1 slot"
        says(last, words)
        says(direct.job(last.job_id), words)
        (placement,) = last.placements().placements
        expected_at = expected_time(last)
        assert expected_at == pytest.approx(placement.decided_at + placement.wait_seconds * 1000, abs=1)
        assert expected_at > last.status().created_at
        assert expected_time(direct.job(last.job_id)) == expected_at
        listed = {one.job_id: one for one in client.jobs()}
        assert (listed[last.job_id].waits_for, listed[last.job_id].expected_at) == ("", None)
        running = client.job(first.job_id).status()
        assert (running.waits_for, running.expected_at) == ("", None)

        def text():
            return shown(fleet, gateway, "jobs", "show", last.job_id).stdout

        assert words in text()
        eventually(lambda: "to begin at " in text(), PATIENCE_SECONDS, "it is shown when it begins")

        def told():
            return json.loads(shown(fleet, gateway, "jobs", "show", last.job_id, "--json").stdout)[
                "expected_at"
            ]

        eventually(lambda: told() == expected_at, PATIENCE_SECONDS, "the command tells it too")
        pool = last.status().pool
        shown(fleet, gateway, "pools", "pause", pool)
        says(last, f"pool {pool} is paused")
        assert last.status().expected_at is None
        assert "to begin at " not in shown(fleet, gateway, "jobs", "show", last.job_id).stdout
        for job in (*jobs, first):
            job.cancel()
        eventually(lambda: last.status().state.is_final, PATIENCE_SECONDS, "all end")
        assert (last.status().waits_for, last.status().expected_at) == ("", None)


def test_a_job_says_that_its_model_is_not_loaded(fleet):
    fleet.start(is_warm=False)
    job = fleet.client(1, loaded=0).submit("m", "p", max_tokens=2)
    says(job, f"no worker of pool {job.status().pool} has loaded model 'm' yet")
    expected_at = expected_time(job)
    with Store(fleet.cluster.settings.database.url) as store:
        (dispatch,) = store.write_alone(raise_dispatches, [job.job_id], 1).result()
    # A Redis that was built anew gets it once more, in the pool that was chosen.
    assert dispatch > 1
    assert expected_time(job) == expected_at


def test_a_job_says_why_its_model_cannot_be_loaded_and_begins_once_it_can(fleet):
    broken = [True]
    fleet.start(fails=lambda: bool(broken))
    job = fleet.client(1, loaded=0).submit("m", "p", max_tokens=2, max_attempts=100, retry_base=0)
    eventually(lambda: "and tries again by itself" in job.status().waits_for, PATIENCE_SECONDS, "it is said")
    assert "cannot load model 'm'" in job.status().waits_for
    assert job.status().waits_for.endswith(": no room for it")
    broken.clear()
    assert len(job.result(PATIENCE_SECONDS).token_ids) == 2
    assert job.status().waits_for == ""
