"""How the command starts and ends as a process: with what it uses alone, and with all that it owes."""

import os
import signal
import subprocess
import sys

import pytest

from support.scripted_gateway import ScriptedGateway, answer, hang, stream
from support.waiting import eventually
from tether.jobs import Piece, new_job_id
from tether.streams.events import StreamEvent

JOB = new_job_id(1, bytes(10))
SUBMITTED = answer(
    202,
    {
        "object": "job.submitted",
        "job_id": JOB,
        "correlation_id": "c",
        "retry_token": "t",
        "state": "accepted",
        "is_new": True,
    },
)
TEXT = StreamEvent(kind="delta", offset=2, pieces=(Piece(1, "a "), Piece(2, "b")))
FINISHED = StreamEvent(kind="finished", offset=2, details={"reason": "stop", "input_tokens": 1})
STREAM = stream(TEXT, FINISHED)
HEAVY = {
    *("aiohttp", "asyncio", "concurrent", "dramatiq", "email", "http", "msgspec", "multiprocessing"),
    *("pydantic", "redis", "rich", "sqlalchemy", "ssl", "structlog", "subprocess", "tempfile"),
}
OF_OTHERS = {
    *("difflib", "tether.attempts", "tether.client.documents", "tether.client.job_port", "tether.deaths"),
    *("tether.client.model_port", "tether.client.operations", "tether.durations", "tether.histories"),
    *("tether.job_filters", "tether.outcomes", "tether.statuses", "tether_cli.exit_status"),
}
"""Modules of Tether's own, and what they alone load, that neither submit a job nor follow it."""
FOLLOWING = {"tether.client.http.server_sent_events", "tether.client.http.streams", "tether.streams.reader"}
"""What follows a job, and is loaded while that runs."""
TELLING = (
    "import atexit, sys\n"
    "atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr))\n"
    "from tether_cli.main import run\n"
    "run()\n"
)
BY_MAIN = "from tether_cli.main import main\nmain()\n"
BY_RUN = "from tether_cli.main import run\nrun()\n"


def environment(gateway=None):
    told = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    if gateway is not None:
        told |= {"TETHER_URL": gateway.url, "TETHER_API_KEY": "tk_key"}
    return told


def run(program, *arguments, gateway=None, **options):
    command = [sys.executable, "-c", program, *arguments]
    options = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(
        command, stderr=subprocess.PIPE, env=environment(gateway), timeout=60, check=False, **options
    )


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (("submit", "--model", "m", "hi"), (SUBMITTED, STREAM)),
        (("submit", "--model", "m", "--no-wait", "hi"), (SUBMITTED,)),
        (("jobs", "watch", JOB), (STREAM,)),
    ],
    ids=["submit", "submit --no-wait", "jobs watch"],
)
def test_a_job_is_submitted_and_followed_without_loading_what_that_does_not_need(arguments, steps):
    with ScriptedGateway(*steps) as gateway:
        done = run(TELLING, *arguments, gateway=gateway)
    assert (done.returncode, done.stdout) == (0, f"{JOB}\n".encode() if "--no-wait" in arguments else b"a b")
    loaded = done.stderr.decode().partition("loaded ")[2].split()
    assert loaded
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
    assert not OF_OTHERS & set(loaded)
    assert (set(loaded) >= FOLLOWING) if STREAM in steps else not FOLLOWING & set(loaded)


@pytest.mark.parametrize(
    "arguments", [("--version",), ("submit",), ("jobs", "list", "--bogus"), ("jobs", "show", "x")]
)
def test_the_command_s_own_end_is_that_of_the_interpreter(arguments):
    quick, whole = run(BY_RUN, *arguments), run(BY_MAIN, *arguments)
    assert (quick.returncode, quick.stdout, quick.stderr) == (whole.returncode, whole.stdout, whole.stderr)


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("submit", "--model", "m", "hi")])
def test_output_that_cannot_be_written_is_told_as_the_interpreter_tells_it(arguments):
    ends = []
    for program in (BY_RUN, BY_MAIN):
        with open("/dev/full", "wb") as full, ScriptedGateway(SUBMITTED, STREAM) as gateway:
            done = run(program, *arguments, gateway=gateway, stdout=full)
        assert done.returncode != 0
        assert b"No space left" in done.stderr
        # Tracebacks have the lines of the programs.
        ends.append((done.returncode, done.stderr.splitlines()[-1]))
    assert ends[0] == ends[1]


def test_output_that_nobody_reads_any_more_ends_the_command_as_a_pipe_does():
    ends = []
    for program in (BY_RUN, BY_MAIN):
        read, write = os.pipe()
        os.close(read)
        with ScriptedGateway(SUBMITTED, STREAM) as gateway:
            done = run(program, "submit", "--model", "m", "hi", gateway=gateway, stdout=write)
        os.close(write)
        ends.append((done.returncode, done.stderr.replace(b"\n", b"")))
    assert ends[0] == ends[1]
    assert ends[0][0] == 141


def test_what_is_to_be_done_at_the_end_of_the_process_is_done():
    program = (
        "import atexit, sys, threading\n"
        "from tether_cli.main import run\n"
        "atexit.register(lambda: print('at exit'))\n"
        "def last():\n"
        "    threading.main_thread().join()\n"
        "    print('thread')\n"
        "if sys.argv.pop() == 'thread': threading.Thread(target=last).start()\n"
        "run()\n"
    )
    assert run(program, "--version", "none").stdout.endswith(b"\nat exit\n")
    assert run(program, "--version", "thread").stdout.endswith(b"\nthread\nat exit\n")


def test_a_status_is_handed_on():
    assert run(BY_RUN, "submit", "--bogus").returncode == 2
    assert run(BY_RUN, "submit", "--model", "m", "hi").returncode == 3


@pytest.mark.parametrize("steps", [(hang,), (SUBMITTED, hang), (SUBMITTED, stream(TEXT, then="hold"))])
def test_ctrl_c_ends_a_submission_wherever_it_is(steps):
    with ScriptedGateway(*steps) as gateway:
        with subprocess.Popen(
            [sys.executable, "-c", BY_RUN, "submit", "--model", "m", "hi"],
            env=environment(gateway),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            eventually(lambda: len(gateway.requests) == len(steps), 60, "it waits")
            if steps[-1] is not hang:
                assert process.stdout.read(3) == b"a b"
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        assert process.returncode == 130
