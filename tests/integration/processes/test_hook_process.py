"""A hook in a process of its own: what it does to that costs nobody else."""

import os
import signal
import subprocess
import sys
import threading
from uuid import uuid4

import psutil
import pytest

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.dead_letters import DeadLetter
from tether.errors import ConfigError
from tether.histories import AttemptRecord
from tether.jobs import JobError
from tether.local.doctor import CheckStatus
from tether.local.hook_check import check_death_hook
from tether.processes.hook_process import HookFailed, HookOverdue, HookProcess, try_death_hook

HOOK = """
import os, subprocess, sys, time

def page(letter):
    with open({said!r}, "a") as file:
        print(os.getpid(), repr(letter), file=file)
    print("hello")
    os.write(1, b"hello")
    assert sys.stdin.read() == ""
    exec(letter.reason)
"""
LETTER = DeadLetter(
    job_id="job-1",
    tenant_id="default",
    model="tiny",
    error=JobError("engine_failed", "it broke \ud800"),
    evidence={"count": 2},
    attempts=(AttemptRecord(dispatch=1, attempt=1, worker="worker", ended_at=7, offset=3),),
)


@pytest.fixture
def said(tmp_path):
    return tmp_path / "said"


@pytest.fixture
def name(tmp_path, said, monkeypatch):
    module = f"pager_{uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(HOOK.format(said=str(said)))
    monkeypatch.syspath_prepend(tmp_path)
    return f"{module}:page"


@pytest.fixture
def opened(name):
    hooks = []

    def open_one(*, call_seconds=PATIENCE_SECONDS):
        hooks.append(HookProcess(name, call_seconds=call_seconds))
        return hooks[-1]

    yield open_one
    for hook in hooks:
        hook.close()


def that(code):
    return DeadLetter(job_id="job-2", tenant_id="default", reason=code)


def pids(said):
    return [int(line.split()[0]) for line in said.read_text().splitlines()]


def test_it_is_called_with_the_letter_again_and_again_whatever_it_prints_and_raises(opened, said):
    hook = opened()
    hook(LETTER)
    for code, told in (
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("sys.exit('no')", "SystemExit: no"),
    ):
        with pytest.raises(HookFailed, match=told):
            hook(that(code))
    with pytest.raises(HookFailed, match=f"ValueError: {'x' * 900}"):
        hook(that("raise ValueError('x' * 1_000_000)"))
    hook(LETTER)
    assert len(set(pids(said))) == 1
    assert pids(said)[0] != os.getpid()
    assert said.read_text().splitlines()[0].partition(" ")[2] == repr(LETTER)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("os._exit(7)", "exit 7"),
        ("os.kill(os.getpid(), 11)", "signal 11"),
        ("os.close(4)", "meanwhile"),
    ],
)
def test_one_that_ends_its_process_gets_another_for_the_next_letter(opened, said, code, told):
    hook = opened()
    with pytest.raises(HookFailed, match=told):
        hook(that(code))
    hook(LETTER)
    hook(LETTER)
    assert [each == pids(said)[0] for each in pids(said)] == [True, False, False]


def test_a_process_that_was_ended_while_it_waited_costs_no_call(opened, said):
    hook = opened()
    hook(LETTER)
    os.kill(pids(said)[0], signal.SIGKILL)
    eventually(lambda: is_over(pids(said)[0]), PATIENCE_SECONDS, "it has ended")
    hook(LETTER)
    assert len(set(pids(said))) == 2


@pytest.mark.parametrize("code", ["time.sleep(600)", "os.kill(os.getpid(), 19)"])
def test_one_that_hangs_is_ended_with_all_that_it_has_started(opened, said, code):
    hook = opened(call_seconds=1)
    started = "child = subprocess.Popen(['sleep', '600']); print(child.pid, file=open(FILE, 'a'))"
    with pytest.raises(HookOverdue, match="took longer than 1 s"):
        hook(that(f"{started.replace('FILE', repr(str(said)))}; {code}"))
    hook_pid, child = pids(said)
    eventually(lambda: is_over(hook_pid) and is_over(child), PATIENCE_SECONDS, "both are gone")


def test_a_copy_that_the_hook_forks_has_no_part_in_what_is_answered(opened, said):
    hook = opened()
    hook(that(f"copy = os.fork(); copy and print(copy, file=open({str(said)!r}, 'a'))"))
    eventually(lambda: is_over(pids(said)[-1]), PATIENCE_SECONDS, "the copy has returned")
    for number in range(4):
        with pytest.raises(HookFailed, match=f"ValueError: {number}"):
            hook(that(f"raise ValueError({number})"))


def is_over(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_closing_ends_a_call_under_way(opened, said):
    hook, errors = opened(), []

    def call():
        try:
            hook(that("time.sleep(600)"))
        except HookFailed as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    eventually(said.exists, PATIENCE_SECONDS, "the call is under way")
    hook.close()
    join(thread)
    assert len(errors) == 1
    with pytest.raises(HookFailed, match="is ending"):
        hook(LETTER)


def test_closing_leaves_time_for_what_ends_with_the_program(opened, said):
    hook = opened()
    hook(that(f"import atexit; atexit.register(lambda: print(0, 'sent', file=open({str(said)!r}, 'a')))"))
    hook.close()
    assert "0 sent" in said.read_text()


def test_it_ends_with_the_process_that_started_it_however_that_ends(name, said, tmp_path):
    program = (
        "import sys; from tether.dead_letters import DeadLetter\n"
        "from tether.processes.hook_process import HookProcess\n"
        'child = \'child = subprocess.Popen(["sleep", "600"]); \'\n'
        "starts = child + f'print(child.pid, file=open({sys.argv[2]!r}, \"a\"))'\n"
        "letter = DeadLetter(job_id='1', tenant_id='default', reason=starts + '; child.wait()')\n"
        "HookProcess(sys.argv[1], call_seconds=600)(letter)\n"
    )
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program, name, str(said)], env=environ) as parent:
        eventually(lambda: said.exists() and len(pids(said)) == 2, PATIENCE_SECONDS, "the call is under way")
        parent.kill()
    eventually(lambda: all(map(is_over, pids(said))), PATIENCE_SECONDS, "it is gone, and what it has started")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os; os._exit(3)", "exit 3"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import time; time.sleep(600)", "its import took longer than 1 s"),
        ("page = 5", "plain function"),
    ],
)
def test_an_import_that_fails_fails_alone_and_doctor_tells(tmp_path, monkeypatch, body, told):
    monkeypatch.setattr("tether.processes.hook_process.LOAD_SECONDS", 1.0)
    monkeypatch.syspath_prepend(tmp_path)
    module = f"pager_{uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(body)
    if "took longer" not in told:
        monkeypatch.setattr("tether.processes.hook_process.LOAD_SECONDS", PATIENCE_SECONDS)
    with pytest.raises(ConfigError, match=told):
        try_death_hook(f"{module}:page")
    check = check_death_hook(f"{module}:page")
    assert check.verdict is CheckStatus.FAIL
    assert told in check.found


def test_a_hook_that_is_mended_is_loaded_by_the_next_call(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = f"pager_{uuid4().hex}"
    hook = HookProcess(f"{module}:page", call_seconds=PATIENCE_SECONDS)
    try:
        with pytest.raises(ConfigError, match="cannot be imported"):
            hook(LETTER)
        (tmp_path / f"{module}.py").write_text("def page(letter): pass\n")
        hook(LETTER)
    finally:
        hook.close()


def test_a_hook_is_looked_for_where_an_orchestrator_that_is_started_here_finds_it(tmp_path, monkeypatch):
    module = f"pager_{uuid4().hex}"
    (tmp_path / f"{module}.py").write_text("def page(letter): pass\n")
    assert check_death_hook(f"{module}:page").verdict is CheckStatus.FAIL
    monkeypatch.chdir(tmp_path)
    assert check_death_hook(f"{module}:page").verdict is CheckStatus.OK
