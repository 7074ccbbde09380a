"""`tether jobs` with `--where`, over a fake."""

import json

import pytest

from support.command_line import CommandLine
from tether.client.api import Tether
from tether.testing import FakeBackend


@pytest.fixture
def command():
    return CommandLine(FakeBackend(autorun=False))


def submit(command, tenant="default", **options):
    return Tether(backend=command.fake.for_tenant(tenant)).submit("echo", "x", **options).job_id


def states(command, tenant="default"):
    return {job.job_id: job.state.value for job in command.fake.for_tenant(tenant).jobs()}


def test_all_that_match_are_cancelled(command):
    mine, other = [submit(command, labels={"run": "7"}) for _ in range(3)], submit(command)
    result = command.run("jobs", "cancel", "--where", "label=run=7", "--where", "state=accepted", "--yes")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{job_id} cancelled" for job_id in mine[::-1]]
    assert result.stderr == "3 cancelled, 0 not\n"
    assert states(command)[other] == "accepted"
    (line,) = command.run("jobs", "cancel", "--where", "all", "--yes", "--json").stdout.splitlines()
    assert json.loads(line) == {
        "job_id": other,
        "tenant_id": "default",
        "state": "cancelled",
        "error": None,
    }


def test_it_counts_first_and_asks(command):
    assert "no job matches" in command.run("jobs", "cancel", "--where", "all").stderr
    job_id = submit(command)
    asked = command.run("jobs", "cancel", "--where", "all")
    assert (asked.exit_code, "1 jobs match" in asked.stderr) == (2, True)
    dry = command.run("jobs", "cancel", "--where", "all", "--dry-run")
    assert dry.stdout == f"{job_id} would be cancelled: accepted\n"
    assert states(command) == {job_id: "accepted"}


@pytest.mark.parametrize("words", [["all", "model=echo"], ["model=echo", "all"], ["all", "all"]])
def test_every_one_is_not_meant_beside_a_filter(command, words):
    given = [part for word in words for part in ("--where", word)]
    refused = command.run("jobs", "cancel", *given, "--yes")
    assert (refused.exit_code, "`all` stands alone" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ID", "--where", "all"],
        ["ID", "--yes"],
        ["ID", "--dry-run"],
        ["--where", "color=red", "--yes"],
        ["--where", "state=gone", "--yes"],
        ["--where", "state=dead", "--yes"],
        ["--where", "label=run", "--yes"],
        ["--where", "model=a", "--where", "model=b", "--yes"],
    ],
)
def test_what_is_not_said_well_is_a_usage_error(command, words):
    job_id = submit(command)
    assert command.run("jobs", "cancel", *words).exit_code == 2
    assert states(command) == {job_id: "accepted"}


def test_an_operator_reaches_jobs_of_all_tenants(command):
    job_id = submit(command, "research")
    assert command.run("jobs", "cancel", "--where", "all", "--yes").stdout == ""
    found = command.run("jobs", "cancel", "--where", "tenant=research", "--dry-run").stdout
    assert found.startswith(job_id)
    assert command.run("jobs", "cancel", "--where", "all", "--all-tenants", "--yes").exit_code == 0
    assert states(command, "research") == {job_id: "cancelled"}


def priorities(command, tenant="default"):
    return {job.job_id: job.priority.value for job in command.fake.for_tenant(tenant).jobs()}


def test_all_that_match_get_another_priority(command):
    mine, other = [submit(command, labels={"run": "7"}) for _ in range(2)], submit(command)
    words = ("jobs", "reprioritise", "--priority", "batch", "--where", "label=run=7")
    dry = command.run(*words, "--dry-run")
    assert dry.stdout.splitlines() == [f"{job_id} would be reprioritised: accepted" for job_id in mine[::-1]]
    assert set(priorities(command).values()) == {"standard"}
    assert "2 jobs match" in command.run(*words).stderr
    result = command.run(*words, "--yes")
    assert (result.exit_code, result.stderr) == (0, "2 reprioritised, 0 not\n")
    assert result.stdout.splitlines() == [f"{job_id} reprioritised" for job_id in mine[::-1]]
    assert priorities(command) == {**dict.fromkeys(mine, "batch"), other: "standard"}
    theirs = submit(command, "research")
    all_tenants = ("--where", "tenant=research", "--yes", "--json")
    (line,) = command.run("jobs", "reprioritise", "--priority", "batch", *all_tenants).stdout.splitlines()
    assert json.loads(line) == {"job_id": theirs, "tenant_id": "research", "state": "accepted", "error": None}
    assert priorities(command, "research") == {theirs: "batch"}


def test_jobs_get_another_priority_by_their_ids_each_by_itself(command):
    waiting, ended = submit(command), submit(command)
    command.run("jobs", "cancel", ended)
    unknown = "01890000-0000-7000-8000-000000000000"
    words = ("jobs", "reprioritise", unknown, ended, waiting, "--priority", "interactive")
    result = command.run(*words)
    assert (result.exit_code, result.stdout) == (2, f"{waiting} interactive: accepted\n")
    assert "there is no job" in result.stderr
    assert "has ended" in result.stderr
    answers = json.loads(command.run(*words, "--json").stdout)
    assert [each.get("error", {}).get("code") for each in answers] == ["job_unknown", "job_ended", None]
    assert answers[2] == {"object": "job.state", "job_id": waiting, "state": "accepted"}
    assert priorities(command)[waiting] == "interactive"


@pytest.mark.parametrize(
    "words",
    [
        ["ID"],
        ["--where", "all", "--yes"],
        ["--priority", "batch"],
        ["--priority", "urgent", "--where", "all", "--yes"],
        ["--priority", "batch", "ID", "--where", "all"],
        ["--priority", "batch", "--where", "state=dead", "--yes"],
    ],
)
def test_what_is_not_said_well_gives_no_job_another_priority(command, words):
    job_id = submit(command)
    assert command.run("jobs", "reprioritise", *words).exit_code == 2
    assert priorities(command) == {job_id: "standard"}
