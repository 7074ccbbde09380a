"""The programs in `examples/`, as they are, against a `tether up`."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.local_tether import LocalTether
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import WorkerProcess

EXAMPLES = ROOT / "examples"
TOKENS = 12
CAPITALS = {"name": "capitals", "version": "3.1", "context": 4096}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    models = [
        {"name": "demo", "engine": "null", "options": {"output_tokens": TOKENS}},
        # Nobody but the client of another make is of this class.
        {**CAPITALS, "engine": "null", "gpu_class": "other-make"},
    ]
    opened = LocalTether(tmp_path_factory.mktemp("up"), models)
    opened.up()
    yield opened
    opened.close()


def run(local, name, *arguments, **environ):
    """An example to its end. Answers what it printed."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=local.environ | environ,
        cwd=local.home,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_a_job_is_submitted_streamed_and_read_again(local):
    text, told, *again = run(local, "submit_and_stream.py", "one two").splitlines()
    assert len(text.split()) == TOKENS
    job_id = re.fullmatch(rf"job (\S+): {TOKENS} tokens, ended by stop", told)[1]
    assert local.run("jobs", "show", job_id)[0] == 0
    second_half = "".join(re.fullmatch(r"tokens up to \d+: (.*)", line)[1] for line in again)
    assert second_half.split() == text.split()[TOKENS // 2 :]


def test_a_dramatiq_program_runs_on_the_redis_of_tether_up(local):
    url = f"unix://{local.folder}/run/redis.sock"
    command = local.command("worker", "dramatiq_program", "--path", str(EXAMPLES))
    worker = WorkerProcess(command, local.environ | {"TETHER_REDIS__URL": url})
    try:
        worker.wait_for_line("A child is ready", within=PATIENCE_SECONDS)
        lines = run(local, "dramatiq_program.py", TETHER_REDIS__URL=url).splitlines()
        assert worker.stop() == 0
    finally:
        worker.close()
    assert lines == ["longest words: nobody, tokens", "attempts: 3"]


def test_a_batch_that_is_started_twice_is_answered_once(local):
    endpoint = local.endpoint()
    environ = {"OPENAI_BASE_URL": f"{endpoint['url']}/v1", "OPENAI_API_KEY": endpoint["api_key"]}
    first = answers(run(local, "openai_batch.py", "one", "two", **environ))
    again = answers(run(local, "openai_batch.py", "one", "three", **environ))
    assert [set(first), set(again)] == [{"one", "two"}, {"one", "three"}]
    assert first["one"] == again["one"]
    assert len({job_id for job_id, _ in (first | again).values()}) == 3


@contextlib.contextmanager
def foreign_worker(local, name, pause):
    """A worker that imports nothing of Tether, trusted."""
    command = [sys.executable, str(EXAMPLES / "worker_client.py"), f"unix://{local.folder}/run/redis.sock"]
    command += [
        str(local.home / name),
        json.dumps(CAPITALS),
        "--gpu_class",
        "other-make",
        "--pause",
        str(pause),
    ]
    process = WorkerProcess(command, local.environ)
    try:
        process.wait_for_line("key ", within=PATIENCE_SECONDS)
        key = re.search("key ([0-9a-f]{64})", "".join(process.lines))[1]
        assert local.run("fleet", "trust", key, "--name", name)[0] == 0
        yield process
    finally:
        process.close()


def test_a_worker_that_has_nothing_of_tether_serves_jobs(local):
    with local.client() as client, foreign_worker(local, "foreign", 0):
        jobs = [client.submit("capitals", f"question {number}", max_tokens=100) for number in range(20)]
        results = [job.result(PATIENCE_SECONDS) for job in jobs]
        assert [result.text for result in results] == [f"QUESTION {number}" for number in range(20)]
        assert {result.finish_reason for result in results} == {"stop"}
        short = client.submit("capitals", "a question", max_tokens=3, labels={"a": "b"}).result(
            PATIENCE_SECONDS
        )
        assert (short.text, short.finish_reason, short.input_tokens) == ("A Q", "length", 10)


def test_jobs_of_a_foreign_worker_are_cancelled_and_handed_over(local):
    prompt = "to be or not to be, " * 100
    with local.client() as client:
        with foreign_worker(local, "first", 0.2) as first:
            cancelled, *handed_over = (client.submit("capitals", prompt, max_tokens=4_000) for _ in range(3))
            for job in (cancelled, *handed_over):
                eventually(lambda job=job: job.status().offset, PATIENCE_SECONDS, "the job runs")
            cancelled.cancel()
            eventually(lambda: cancelled.status().state == "cancelled", PATIENCE_SECONDS, "it is cancelled")
            assert first.stop() == 0
        with foreign_worker(local, "second", 0):
            for job in handed_over:
                assert job.result(PATIENCE_SECONDS).text == prompt.upper()


def answers(text):
    """The job and the answer of each question."""
    return {
        question: (job_id, answer)
        for job_id, question, answer in re.findall(r"^(\S+)  (\w+)\n    (.+)$", text, re.M)
    }


def test_every_example_is_run_here_and_named_in_the_index():
    here = Path(__file__).read_text("utf-8")
    index = (EXAMPLES / "README.md").read_text("utf-8")
    for program in EXAMPLES.glob("*.py"):
        assert f'"{program.name}"' in here
        assert f"]({program.name})" in index
