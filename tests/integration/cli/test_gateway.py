"""The `tether` command as a process, over a gateway with everything behind it."""

import json
import os
import signal
import socket
import subprocess
import sys
from uuid import uuid4

import pytest

from support.clients import OTHER_TENANT, TOKENS
from support.waiting import PATIENCE_SECONDS, eventually
from tether.gateway.keys.api_keys import Scope
from tether.jobs import JobState


@pytest.fixture(scope="module")
def client(service):
    return service.client(on_loop=False)


@pytest.fixture
def start(service, tmp_path):
    def start_one(*arguments, key=None, url=None):
        others = ("TETHER_", "PYTHONUNBUFFERED")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        environ |= {
            "TETHER_URL": url or service.gateway.url,
            "TETHER_API_KEY": key or service.gateway.key(),
            "HOME": str(tmp_path),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "tether_cli", *arguments],
            env=environ,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start_one


@pytest.fixture
def run(start):
    """Exit status, standard output, standard error."""

    def run_one(*arguments, **options):
        with start(*arguments, **options) as process:
            output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, output, errors

    return run_one


def test_a_job_is_submitted_and_its_text_is_the_stored_one(run, client):
    status, output, errors = run("submit", "one two", "--model", "counter", "--label", "by=cli", "--json")
    assert (status, errors) == (0, "")
    told = json.loads(output)
    assert (told["state"], told["output_tokens"], told["finish_reason"]) == ("succeeded", TOKENS, "stop")
    result = client.job(told["job_id"]).result()
    assert (told["text"], told["input_tokens"]) == (result.text, result.input_tokens)
    assert run("submit", "one two", "--model", "counter") == (0, result.text, "")
    assert run("jobs", "watch", told["job_id"]) == (0, result.text, "")
    status, output, _ = run("jobs", "list", "--label", "by=cli", "--json")
    assert [job["job_id"] for job in json.loads(output)] == [told["job_id"]]


def test_the_status_names_models_and_their_workers(run):
    status, output, errors = run("status")
    assert (status, errors) == (0, "")
    assert "model    counter  1 worker\n" in output


def test_a_job_is_left_by_ctrl_c_and_cancelled_later(start, run, client):
    process = start("submit", "x", "--model", "slow", "--max-tokens", "4000")
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    job_id = errors.partition("job ")[2].partition(" continues")[0]
    assert client.job(job_id).status().state is JobState.RUNNING
    assert run("jobs", "cancel", job_id)[0] == 0
    status, _, errors = run("jobs", "watch", job_id)
    assert (status, errors) == (8, f"tether: job {job_id} was cancelled\n")


def test_a_gateway_that_restarts_in_mid_stream_changes_no_byte(start, service, client):
    token = uuid4().hex
    with start("submit", "x", "--model", "slow", "--max-tokens", "60", "--retry-token", token) as process:
        text = process.stdout.read(1)
        service.gateway.restart()
        text += process.stdout.read()
        notes = process.stderr.read().splitlines()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert notes[0].startswith("A stream was interrupted. Reconnecting. (")
    assert notes[-1] == "The stream goes on."
    job = next(job for job in client.jobs() if job.retry_token == token)
    assert text == client.job(job.job_id).result().text
    assert job.output_tokens == 60


def test_a_reader_that_goes_away_leaves_the_job(start, client):
    with start("submit", "x", "--model", "slow", "--retry-token", (token := uuid4().hex)) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert (process.wait(PATIENCE_SECONDS), process.stderr.read()) == (141, "")
    job = next(job for job in client.jobs() if job.retry_token == token)
    assert job.state is JobState.RUNNING
    client.job(job.job_id).cancel()


def test_an_expired_job_is_its_own_exit_status(run):
    status, _, errors = run("submit", "x", "--model", "slow", "--time-limit", "500ms")
    assert status == 9
    assert "did not finish by its deadline" in errors


def test_a_job_that_fails_for_good_says_why(run):
    status, _, errors = run("submit", "x", "--model", "refusing")
    assert status == 1
    assert "failed permanently" in errors
    assert "request_invalid" in errors


def test_what_the_gateway_refuses_is_one_line(run, service):
    only_read = service.gateway.key(scopes=(Scope.READ,))
    foreign = service.gateway.key(OTHER_TENANT)
    job_id = run("submit", "x", "--model", "counter", "--no-wait")[1].strip()
    for status, words, arguments, key in (
        (2, "countr", ("submit", "x", "--model", "countr"), None),
        (2, "max_tokens", ("submit", "x", "--model", "counter", "--max-tokens", "0"), None),
        (2, "there is no job", ("jobs", "show", job_id), foreign),
        (2, "there is no job", ("jobs", "cancel", job_id), foreign),
        (2, "there is no job", ("jobs", "watch", job_id), foreign),
        (6, "API key", ("jobs", "list"), "tk_nobody"),
        (6, "API key", ("status",), "tk_nobody"),
        (6, "submit", ("submit", "x", "--model", "counter"), only_read),
    ):
        found, output, errors = run(*arguments, key=key)
        assert (found, output, errors.count("\n")) == (status, "", 1), (arguments, errors)
        assert errors.startswith("tether: ")
        assert words in errors
        assert "tk_nobody" not in errors


def test_no_gateway_is_told_with_its_address(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        status, output, errors = run("status", url=url)
    assert status == 4
    assert output == f"gateway  {url}  not serving\n"
    assert errors.startswith("tether: ")
    assert errors.count("\n") == 1


def test_several_models_are_named(run):
    status, _, errors = run("submit", "x")
    assert status == 2
    assert "Available: counter, slow, broken, refusing" in errors


def test_a_script_that_starts_twice_makes_one_job(run, client):
    token = uuid4().hex
    for _ in range(2):
        assert run("submit", "x", "--model", "counter", "--retry-token", token)[0] == 0
    eventually(
        lambda: [job.state for job in client.jobs() if job.retry_token == token] == [JobState.SUCCEEDED],
        PATIENCE_SECONDS,
        "the job is one",
    )
