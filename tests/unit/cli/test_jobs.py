"""`tether jobs` and `tether status`, over a fake."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from support.command_line import CommandLine, ToldBackend, delta, failed, finished
from tether.client.api import Tether
from tether.client.handles import JobHandle
from tether.errors import EngineFailed, GatewayUnavailable, StoreUnavailable, Unauthenticated
from tether.jobs import JobState, new_job_id
from tether.statuses import ModelInfo
from tether.streams.events import StreamEvent
from tether.testing import FakeBackend
from tether.testing.ports import FakeModelPort
from tether_cli.environment import CommandEnvironment
from tether_cli.jobs import age_text
from tether_cli.main import main
from tether_cli.status import told_url

NO_JOB = new_job_id(5, bytes(10))


@pytest.fixture
def line():
    fake = FakeBackend({"one": lambda prompt: "1", "two": lambda prompt: "2"}, autorun=False)
    line = CommandLine(fake)
    client = Tether(backend=fake)
    client.submit("one", "a", labels={"team": "red"})
    client.submit("two", "b", labels={"team": "blue", "x": "\x1b"})
    fake.run_all()
    client.submit("two", "c")
    return line


def listed(line, *options):
    return [(job["model"], job["state"]) for job in line.document("jobs", "list", "--json", *options)]


def test_jobs_are_listed_the_newest_first(line):
    assert listed(line) == [("two", "accepted"), ("two", "succeeded"), ("one", "succeeded")]
    assert listed(line, "--limit", "1") == [("two", "accepted")]


def test_jobs_are_listed_by_what_they_are(line):
    assert listed(line, "--state", "succeeded", "--model", "two") == [("two", "succeeded")]
    assert listed(line, "--label", "team=red") == [("one", "succeeded")]
    assert listed(line, "--state", "dead") == []
    assert len(listed(line, "--state", "succeeded", "--state", "accepted")) == 3
    assert len(listed(line, "--since", "1h")) == 3
    assert listed(line, "--until", "1h") == []


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("tow", "no model is called 'tow'; did you mean 'two'?\n"),
        ("nothere", "no model is called 'nothere'; configured: one, two\n"),
        ("idle", ""),
    ],
)
def test_an_empty_list_of_an_unknown_model_says_so_on_standard_error(model, hint):
    line = CommandLine(FakeBackend({"one": lambda _: "1", "two": lambda _: "2"}))
    if model == "idle":
        line = CommandLine(FakeBackend({"idle": lambda _: "1"}))
    result = line.run("jobs", "list", "--model", model)
    assert (result.exit_code, result.stderr) == (0, hint)
    assert len(result.stdout.splitlines()) == 1
    result = line.run("jobs", "list", "--model", model, "--json")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (0, [], "")


def test_a_list_in_a_pipe_is_lines_with_tabs_and_no_control_characters(line):
    rows = [row.split("\t") for row in line.run("jobs", "list").stdout.splitlines()]
    assert rows[0] == ["JOB", "STATE", "MODEL", "PRIORITY", "TOKENS", "AGE", "LABELS"]
    assert rows[1][1:5] == ["accepted", "two", "standard", "0"]
    assert rows[2][6] == "team=blue x=␛"
    assert len(rows) == 4


def test_a_job_is_shown(line):
    job = line.fake.jobs()[0]
    shown = line.run("jobs", "show", job.job_id).stdout
    assert f"job             {job.job_id}\n" in shown
    assert "state           succeeded\n" in shown
    assert "label team      red\n" in shown
    document = line.document("jobs", "show", job.job_id, "--json")
    assert (document["object"], document["state"], document["output_tokens"]) == ("job", "succeeded", 1)


def test_why_a_parked_job_waits_is_told_in_one_line(line, monkeypatch):
    job = line.fake.jobs()[2]
    status, history = JobHandle.status, JobHandle.history
    monkeypatch.setattr(JobHandle, "status", lambda self: replace(status(self), state=JobState.PARKED))
    monkeypatch.setattr(JobHandle, "history", lambda self: replace(history(self), state=JobState.PARKED))
    shown = line.run("jobs", "show", job.job_id).stdout.splitlines()
    names = [text.split("  ")[0] for text in shown]
    assert [name for name in names if name.startswith(("why", "waits"))] == ["why"]


def test_every_attempt_of_a_job_is_shown():
    failures = iter([True, False])

    def breaks(prompt):
        yield "one "
        if next(failures):
            raise EngineFailed("it broke")
        yield "two"

    fake = FakeBackend({"m": breaks})
    job = Tether(backend=fake.for_tenant("default")).submit("m", "x")
    line = CommandLine(fake)
    shown = line.run("jobs", "show", job.job_id).stdout
    head, _, table = shown.partition("\n\n")
    assert "dispatch        2\n" in head + "\n"
    rows = [row.split("\t") for row in table.splitlines()]
    assert rows[0] == ["ATTEMPT", "WORKER", "POOL", "BEGAN", "ENDED", "TOKENS", "WHY", "THEN"]
    assert [(row[0], row[1], *row[5:]) for row in rows[1:]] == [
        ("1.1", "fake.1", "0-1", "failed: engine_failed", "tried again"),
        ("2.1", "fake.1", "1-2", "succeeded", "-"),
    ]
    history = line.document("jobs", "show", job.job_id, "--json")["history"]
    assert [each["cause"] for each in history["attempts"]] == ["failed", "succeeded"]


@pytest.mark.parametrize("verb", ["show", "watch", "cancel"])
def test_a_job_is_found_by_the_id_of_its_chat_completion(line, verb):
    job_id = line.fake.jobs()[0].job_id
    assert line.run("jobs", verb, f"chatcmpl-{job_id}").exit_code == 0


@pytest.mark.parametrize(("has_begun", "said"), [(False, 1), (True, 0)])
def test_of_an_expired_job_it_is_shown_whether_a_worker_had_begun_it(has_begun, said):
    fake = FakeBackend(autorun=False)
    job = Tether(backend=fake.for_tenant("default")).submit("echo", "one two", time_limit=5)
    if has_begun:
        fake.step()
    fake.advance(10)
    fake.run_all()
    assert job.status().state is JobState.EXPIRED
    shown = CommandLine(fake).run("jobs", "show", job.job_id).stdout
    assert shown.count("why             no worker began it in time") == said


def test_why_a_job_failed_is_shown():
    def breaks(prompt):
        raise ValueError("it broke")

    fake = FakeBackend({"m": breaks})
    job = Tether(backend=fake.for_tenant("default")).submit("m", "x")
    shown = CommandLine(fake).run("jobs", "show", job.job_id).stdout
    assert "engine_failed: the model raised ValueError: it broke" in shown
    assert f"dead letter     tether dlq show {job.job_id}\n" in shown
    last = shown.splitlines()[-1].split("\t")
    assert (last[0], last[-1]) == ("8.1", "-")


@pytest.mark.parametrize("verb", ["show", "cancel", "watch"])
@pytest.mark.parametrize("job_id", [NO_JOB, "no-id", "\x1b"])
def test_a_job_that_is_not_there_is_told(line, verb, job_id):
    result = line.run("jobs", verb, "--", job_id)
    assert result.exit_code == 2
    assert result.stderr.startswith("tether: there is no job ")
    assert result.stderr.count("\n") == 1


def test_jobs_are_cancelled_and_may_be_again(line):
    job = line.fake.jobs()[2]
    for _ in range(2):
        assert line.run("jobs", "cancel", job.job_id).stdout == f"{job.job_id} cancelled\n"
    assert line.fake.job_port.status(job.job_id).state is JobState.CANCELLED


def test_a_running_job_is_said_to_be_cancelling():
    class SlowWorkers(FakeBackend):
        def for_tenant(self, tenant):
            other = super().for_tenant(tenant)
            other.job_port.cancel = lambda job_id: JobState.RUNNING
            return other

    result = CommandLine(SlowWorkers()).run("jobs", "cancel", NO_JOB)
    assert result.stdout == f"{NO_JOB} cancelling: running until its worker has received it\n"


def test_one_that_cannot_be_cancelled_keeps_no_other_from_it(line):
    job = line.fake.jobs()[2]
    result = line.run("jobs", "cancel", NO_JOB, job.job_id)
    assert (result.exit_code, result.stdout) == (2, f"{job.job_id} cancelled\n")
    assert NO_JOB in result.stderr
    result = line.run("jobs", "cancel", NO_JOB, job.job_id, "--json")
    assert result.exit_code == 2
    first, second = json.loads(result.stdout)
    assert (first["job_id"], first["error"]["code"]) == (NO_JOB, "job_unknown")
    assert second == {"object": "job.state", "job_id": job.job_id, "state": "cancelled"}


def test_an_ended_job_is_watched_from_its_start_or_from_a_token():
    line = CommandLine(FakeBackend({"m": lambda prompt: ["a ", "b ", "c"]}))
    job_id = line.document("submit", "x", "--json")["job_id"]
    assert line.run("jobs", "watch", job_id).stdout == "a b c"
    assert line.run("jobs", "watch", job_id, "--offset", "2").stdout == "c"
    for name in ("--json", "--events"):
        events = [json.loads(row) for row in line.run("jobs", "watch", job_id, name).stdout.splitlines()]
        assert [event["kind"] for event in events] == ["started", "delta", "delta", "delta", "finished"]


@pytest.mark.parametrize(
    ("state", "status"), [(JobState.DEAD, 1), (JobState.CANCELLED, 8), (JobState.EXPIRED, 9)]
)
def test_watching_ends_with_the_jobs_status(state, status):
    line = CommandLine(ToldBackend(delta(1, "a"), failed(1, state.value)))
    result = line.run("jobs", "watch", NO_JOB)
    assert (result.exit_code, result.stdout) == (status, "a")
    assert line.run("jobs", "watch", NO_JOB, "--json").exit_code == status


def test_text_before_the_offset_was_not_printed_and_is_not_called_void():
    restart = StreamEvent(kind="restarted", run=1, offset=0)

    events = (delta(3, "c"), restart, delta(3, "A", "B", "C"), finished(3))
    backend = ToldBackend(*events, heeds_offset=False)
    result = CommandLine(backend).run("jobs", "watch", NO_JOB, "--offset", "2")
    assert result.stdout == "cABC"
    assert "the last 1 token above are void" in result.stderr


def test_watching_can_end_before_the_job(line):
    job_id = line.fake.jobs()[2].job_id
    result = line.run("jobs", "watch", job_id, "--timeout", "10ms")
    assert result.exit_code == 4
    assert f"tether jobs watch {job_id}" in result.stderr


def test_the_status_tells_models_and_open_jobs(line):
    result = line.run("status", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 0
    assert result.stdout == (
        "gateway  http://127.0.0.1:1  serving\n"
        "model    one  1 worker\n"
        "model    two  1 worker\n"
        "jobs     1 accepted\n"
    )
    told = line.document("status", "--json")
    assert told["is_serving"] is True
    assert [model["id"] for model in told["models"]] == ["one", "two"]
    assert (told["open_jobs"], told["all_counted"]) == ({"accepted": 1}, True)


def test_the_status_names_pools_in_which_jobs_wait_without_a_worker(line, monkeypatch):
    models = [ModelInfo(name="one", version="1", context=100, workers=1, pools=("elsewhere",))]
    monkeypatch.setattr(FakeModelPort, "models", lambda port: models)
    (pool,) = line.document("status", "--json")["deserted_pools"]
    assert f"pool     {pool}  1 of these wait there, and no live worker" in line.run("status").stdout
    models[0] = replace(models[0], pools=(pool,))
    assert line.document("status", "--json")["deserted_pools"] == {}
    # An older gateway does not tell pools.
    models[0] = replace(models[0], pools=())
    assert line.document("status", "--json")["deserted_pools"] == {}


def test_a_count_that_is_not_of_all_says_so():
    fake = FakeBackend(autorun=False)
    client = Tether(backend=fake.for_tenant("default"))
    for _ in range(201):
        client.submit("echo", "x")
    result = CommandLine(fake).run("status")
    assert "200 accepted among the newest 200; there may be more" in result.stdout


def refusing(error):
    def open_client(url, api_key, *, within=None):
        raise error

    return open_client


@pytest.mark.parametrize("error", [GatewayUnavailable("not there"), StoreUnavailable("locked")], ids=str)
def test_a_gateway_that_does_not_serve_is_status_4(error, monkeypatch):
    monkeypatch.setenv("TETHER_URL", "http://127.0.0.1:9")
    result = CommandLine().run("status", open_client=refusing(error))
    assert result.exit_code == 4
    assert result.stdout == "gateway  http://127.0.0.1:9  not serving\n"
    assert result.stderr == f"tether: {error}\n"
    result = CommandLine().run("status", "--json", open_client=refusing(error))
    assert result.exit_code == 4
    told = json.loads(result.stdout)
    assert (told["is_serving"], told["error"]["code"]) == (False, error.code)


def test_a_key_that_is_refused_is_no_state_of_the_gateway():
    result = CommandLine().run("status", open_client=refusing(Unauthenticated("no such key")))
    assert (result.exit_code, result.stdout) == (6, "")


def test_an_address_is_shown_without_its_password():
    assert told_url("http://me:hunter2@gw:1/", {}) == "http://me:***@gw:1/"
    assert told_url(None, {"TETHER_URL": "http://gw"}) == "http://gw"
    assert told_url(None, {}) is None


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(-5, "0s"), (999, "0s"), (59_999, "59s"), (60_000, "1m"), (7_200_000, "2h"), (200_000_000, "2d")],
)
def test_an_age_is_told_in_its_greatest_unit(milliseconds, text):
    assert age_text(milliseconds) == text


def test_a_job_that_cannot_be_followed_is_not_said_to_go_on():
    line = CommandLine(ToldBackend(delta(1, "a"), GatewayUnavailable("the gateway is gone")))
    result = line.run("jobs", "watch", NO_JOB)
    assert (result.exit_code, result.stderr) == (4, "tether: the gateway is gone\n")


@pytest.mark.parametrize(
    ("health", "exit_code", "first", "model", "orchestrator"),
    [
        ({}, 0, "serving", "1 worker", None),
        ({"orchestrator": "ok"}, 0, "serving", "1 worker", "orchestrator ok\n"),
        ({"orchestrator": "unknown"}, 0, "serving", "1 worker", None),
        (
            {"orchestrator": "absent"},
            0,
            "serving",
            "1 worker",
            "orchestrator absent: jobs are accepted; those that wait are not placed, failed ones not "
            "retried, and ends not recorded, until one runs: `tether orchestrator` starts one\n",
        ),
        ({"database": "unavailable"}, 4, "accepts no jobs", "1 worker", None),
        (
            {"redis": "unavailable"},
            0,
            "serving",
            "unknown: workers are not heard of while Redis is away",
            None,
        ),
    ],
)
def test_the_status_of_a_gateway_without_what_it_stands_on(
    line, health, exit_code, first, model, orchestrator
):
    health = {"status": "any", "database": "ok", "redis": "ok", **health}
    opened = CommandEnvironment(
        open_impatient_client=lambda *_: Tether(backend=line.fake.for_tenant("default")),
        readiness=lambda url, within: health,
        find_running=lambda: None,
    )
    ran = CliRunner().invoke(main, ["status", "--url", "http://gw"], obj=opened)
    assert ran.exit_code == exit_code
    assert f"gateway  http://gw  {first}\n" in ran.stdout
    assert f"model    one  {model}" in ran.stdout
    assert orchestrator in ran.stdout if orchestrator else "orchestrator" not in ran.stdout
