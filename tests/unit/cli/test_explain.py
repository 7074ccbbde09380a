"""`tether explain`, over a fake."""

from dataclasses import replace

import pytest

from support.command_line import CommandLine
from tether.explanations import Explanation, JobPlacements, PlacementOrigin, PlacementRecord, PoolExplanation
from tether.jobs import JobState, new_job_id
from tether.testing import FakeBackend
from tether.testing.ports import FakeJobPort

NO_JOB = new_job_id(5, bytes(10))
NEAR = PoolExplanation(
    pool="gpu.cpu.eu.m-1",
    cost_seconds=-4.25,
    wait_seconds=12.5,
    total_seconds=20.0,
    ahead=3.5,
    slots=2,
    tokens_per_second=40.0,
    is_measured=True,
    load_seconds=10.0,
    terms={"warm": 0.0, "region": 1.0},
)
FAR = PoolExplanation(pool="gpu.cpu.us.m-1", excluded="region", words="is in region us, not eu")
TOLD = Explanation(
    pool=NEAR.pool, why="it is near", pools=(NEAR, FAR), omitted=2, worth={"warm": 1.0, "region": 5.0}
)


@pytest.fixture
def line():
    return CommandLine(FakeBackend({"m": lambda prompt: "1 2"}, autorun=False))


@pytest.fixture
def asked(monkeypatch):
    """The requests that were explained."""
    found = []
    monkeypatch.setattr(FakeJobPort, "explain", lambda port, request: found.append(request) or TOLD)
    return found


def test_the_pick_and_why_and_each_pool_are_printed(line, asked):
    result = line.run("explain", "-m", "m")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        "pool    gpu.cpu.eu.m-1",
        "why     it is near",
        "wait    12.5 s expected until it begins, 10 s of it to load the model",
        "total   20 s until its last token, if it uses --max-tokens",
    ]
    rows = [each.split("\t") for each in lines[5:]]
    assert rows == [
        ["POOL", "COST", "WAIT", "TOTAL", "AHEAD", "SLOTS", "TOKENS/S", "warm", "region", "EXCLUDED"],
        ["gpu.cpu.eu.m-1", "-4.25 s", "12.50 s", "20.00 s", "3.5", "2", "40", "0", "1", ""],
        ["gpu.cpu.us.m-1", *["-"] * 8, "region: is in region us, not eu"],
    ]
    assert result.stderr.splitlines() == [
        "cost = 1 * total - (1 * warm + 5 * region), in seconds: the least is chosen.",
        "2 further pools are not told.",
    ]


def test_a_rate_that_nobody_measured_is_told_as_assumed(line, monkeypatch):
    told = replace(TOLD, pools=(replace(NEAR, is_measured=False),))
    monkeypatch.setattr(FakeJobPort, "explain", lambda port, request: told)
    assert "40 assumed" in line.run("explain", "-m", "m").stdout


def test_it_takes_the_options_of_submit_and_checks_them_as_submit_does(line, asked):
    options = (
        "--region",
        "eu",
        "--min-vram",
        "8GB",
        "--any-version",
        "--prefer",
        "region",
        "--max-tokens",
        "9",
    )
    assert line.run("explain", "four", "-m", "m", *options).exit_code == 0
    [request] = asked
    assert (request.prompt, request.region, request.any_version) == ("four", "eu", True)
    assert (request.min_vram, request.prefer, request.sampling.max_tokens) == (8 * 10**9, ("region",), 9)
    for refused in (("--min-vram", "much"), ("--max-tokens", "0"), ("--prefer", "region")):
        mine, submits = (line.run(verb, "four", "-m", "m", *refused) for verb in ("explain", "submit"))
        assert mine.exit_code == submits.exit_code != 0
        assert (
            mine.stderr.splitlines()[-1].partition(":")[2]
            == submits.stderr.splitlines()[-1].partition(":")[2]
        )
    assert len(asked) == 1


def test_without_a_prompt_one_of_a_token_is_placed_and_no_job_is_made(line):
    document = line.document("explain", "--json")
    assert (document["object"], document["pool"]) == ("explanation", "gpu.fake.local.m")
    assert line.fake.jobs() == []
    assert line.run("explain", "-m", "nothere").exit_code != 0


def test_of_a_job_its_hand_overs_and_the_newest_choice_are_printed(line, monkeypatch):
    job_id = line.run("submit", "x", "-m", "m", "--no-wait").stdout.strip()
    placements = (
        PlacementRecord(
            dispatch=1,
            origin=PlacementOrigin.CHOSEN,
            decided_at=1_800_000_000_000,
            pool=NEAR.pool,
            explanation=TOLD,
            wait_seconds=12.5,
            total_seconds=20.0,
            begun_at=1_800_000_012_000,
            waited_seconds=12.0,
        ),
        PlacementRecord(dispatch=2, origin=PlacementOrigin.REPEATED, pool=NEAR.pool),
    )
    found = JobPlacements(job_id=job_id, state=JobState.PLACED, placements=placements)
    monkeypatch.setattr(FakeJobPort, "placements", lambda port, job_id: found)
    result = line.run("explain", "--job", job_id)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[3:6] == [
        "DISPATCH\tDECIDED\tPOOL\tWAIT EXPECTED\tWAITED\tHOW",
        "1\t2027-01-15T08:00:00Z\tgpu.cpu.eu.m-1\t12.50 s\t12.00 s\tchosen",
        "2\t-\tgpu.cpu.eu.m-1\t-\t-\tits pool again, since Redis was built anew",
    ]
    assert lines[7] == "dispatch 1, as it was decided at 2027-01-15T08:00:00Z"
    assert "why     it is near" in lines
    second = line.run("explain", "--job", job_id, "--dispatch", "2")
    assert "why" not in second.stdout
    assert second.stderr == "Of hand-over 2: its pool again, since Redis was built anew.\n"
    third = line.run("explain", "--job", job_id, "--dispatch", "3")
    assert third.exit_code != 0
    assert "there are: 1, 2" in third.stderr
    document = line.document("explain", "--job", job_id, "--json")
    assert [each["origin"] for each in document["placements"]] == ["chosen", "repeated"]


def test_a_job_that_is_none_is_an_error(line):
    assert line.run("explain", "--job", NO_JOB).exit_code != 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--job", NO_JOB, "--region", "eu"), "--job cannot be combined with --region"),
        (("--job", NO_JOB, "prompt"), "--job cannot be combined with a prompt"),
        (("--dispatch", "1"), "--dispatch goes with --job"),
        (("--all-tenants",), "--all-tenants goes with --job"),
    ],
)
def test_options_that_do_not_go_together_are_refused(line, arguments, words):
    result = line.run("explain", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_who_looks_at_a_job_that_waits_is_told_of_it(line):
    job_id = line.run("submit", "x", "-m", "m", "--no-wait").stdout.strip()
    assert f"tether explain --job {job_id}" in line.run("jobs", "show", job_id).stdout
    line.fake.run_all()
    assert "tether explain" not in line.run("jobs", "show", job_id).stdout
