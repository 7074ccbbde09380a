"""What a job asks of a pool, through every door: where no pool meets that it waits, and says why."""

import json
import subprocess
import sys

import openai
import pytest

from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet, place_of
from support.waiting import PATIENCE_SECONDS, eventually
from tether import JobRequest, JobState, Tether

ELSEWHERE = "is in region us, not eu"


@pytest.fixture
def fleet(monkeypatch):
    opened = PlacedFleet(monkeypatch, rate=0)
    yield opened
    opened.close()


@pytest.fixture
def gateway(fleet):
    fleet.start("us")
    fleet.client(1)
    with RunningGateway(fleet.cluster.settings) as running:
        yield running


@pytest.fixture
def client(gateway):
    with Tether(gateway.url, api_key=gateway.key()) as opened:
        eventually(lambda: any(model.workers for model in opened.models()), PATIENCE_SECONDS, "it is seen")
        yield opened


def by_command(fleet, gateway, *words):
    environ = {**fleet.cluster.environ, "TETHER_URL": gateway.url, "TETHER_API_KEY": gateway.key()}
    command = [sys.executable, "-m", "tether_cli", *words]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )


def test_a_job_waits_for_its_region_through_every_door_and_runs_once_there_is_one(fleet, gateway, client):
    direct = fleet.client(1)
    many = client.submit_many(
        [JobRequest(model="m", prompt="p", region="eu"), JobRequest(model="m", prompt="p")]
    )
    told = by_command(
        fleet, gateway, "submit", "--no-wait", "-m", "m", "--region", "eu", "--max-tokens", "3", "p"
    )
    sent = direct.infer.send(model="m", prompt="p", region="eu", max_tokens=3)
    jobs = [
        client.submit("m", "p", region="eu", max_tokens=3),
        direct.submit("m", "p", region="eu", max_tokens=3),
        client.job(told.stdout.strip()),
        client.job(sent.message_id),
        many[0],
    ]
    for job in jobs:
        assert job.status().state is JobState.PARKED
        assert job.status().waits_for.endswith(ELSEWHERE)
    assert many[1].result(PATIENCE_SECONDS).finish_reason == "length"
    shown = by_command(fleet, gateway, "jobs", "show", jobs[0].job_id).stdout
    assert f"no pool meets what the job asks for: pool {many[1].status().pool} {ELSEWHERE}" in shown
    assert json.loads(by_command(fleet, gateway, "jobs", "show", jobs[0].job_id, "--json").stdout)[
        "waits_for"
    ]
    fleet.start("eu")
    for job in jobs:
        job.result(PATIENCE_SECONDS)
        assert place_of(job)[1] == "eu"
        assert job.status().waits_for == ""


def test_a_chat_completion_for_a_region_that_nobody_serves_is_refused_with_the_reason(gateway, client):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as chat:
        asked = {"model": "m", "messages": [{"role": "user", "content": "p"}], "max_tokens": 3}
        with pytest.raises(openai.InternalServerError, match=ELSEWHERE):
            chat.chat.completions.create(**asked, extra_body={"region": "eu"})
        with pytest.raises(openai.BadRequestError, match="prefer names region, which is not given"):
            chat.chat.completions.create(**asked, extra_body={"prefer": "region"})
        done = chat.chat.completions.create(**asked, extra_body={"region": "eu", "prefer": ["region"]})
    assert done.choices[0].finish_reason == "length"


def test_a_job_waits_for_a_class_and_for_memory_and_the_least_of_a_pool_counts(fleet, client):
    fleet.vram["eu"] = 80 * 10**9
    classed = client.submit("m", "p", gpu_class="h100", max_tokens=3)
    sized = client.submit("m", "p", min_vram="80GB", max_tokens=3)
    larger = client.submit("m", "p", min_vram="80GiB", max_tokens=3)
    assert classed.status().waits_for.endswith("has GPU class cpu, not h100")
    assert sized.status().waits_for.endswith("has workers without known GPU memory, not 74.51 GiB")
    fleet.start("eu", "h100")
    assert [place_of(job)[:2] for job in (classed, sized) if job.result(PATIENCE_SECONDS)] == [
        ("h100", "eu")
    ] * 2
    assert larger.status().state is JobState.PARKED
    assert "has 74.51 GiB of GPU memory, not 80 GiB" in larger.status().waits_for
    larger.cancel()
