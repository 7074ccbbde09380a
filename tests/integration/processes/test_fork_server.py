"""A supervisor with a fork server: what begins from it is as if it had begun by itself, and it may die."""

import contextlib
import json
import os
import select
import selectors
import signal
import sys
import time

import psutil
import pytest

from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import TESTS, WorkerProcess, children_but_fork_server
from tether.processes.fork_server import IMPORT_SECONDS, ForkServer
from tether.processes.fork_server_program import ForkedProgram, ForkRequest
from tether.processes.restarts import RestartPolicy

PROGRAM = "support.forked_program"


@pytest.fixture
def supervise(tmp_path):
    started = []

    def start(*arguments, modules=(PROGRAM,), count=1):
        children = [
            {
                "name": f"child-{number}",
                "command": [sys.executable, "-m", PROGRAM, *arguments],
                "stops_before": [],
                "overlaps": False,
                "forked": [PROGRAM, "run", arguments],
                "environ": {"OWN": f"child-{number}"},
            }
            for number in range(count)
        ]
        policy = {"first_delay": 0.01, "max_delay": 0.2}
        command = [sys.executable, "-m", "support.supervise", json.dumps(children), json.dumps(policy), "20"]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(tmp_path)])}
        process = WorkerProcess([*command, *modules], environ)
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


def told_by(process, count):
    """What so many processes told of themselves, in the order of their names."""
    process.wait_for_line("told {", PATIENCE_SECONDS, count)
    lines = [line.removeprefix("told ") for line in list(process.lines) if line.startswith("told {")]
    return sorted(map(json.loads, lines), key=lambda one: one["name"])


def starts_of(process):
    """Of each start whether the process was forked."""
    return [json.loads(line)["is_forked"] for line in list(process.lines) if '"Started a child.' in line]


def fork_server_of(process):
    children = psutil.Process(process.pid).children()
    [server] = set(children) - set(children_but_fork_server(process.pid))
    return server


def wait_for_ready(process, count):
    process.wait_for_line('"A child is ready', PATIENCE_SECONDS, count)


def test_a_forked_process_is_what_it_would_be_by_itself(supervise):
    forked, apart = supervise("a", "b", count=2), supervise("a", "b", count=2, modules=())
    by_fork, by_itself = told_by(forked, 2), told_by(apart, 2)
    for process, told in ((forked, by_fork), (apart, by_itself)):
        assert [one.pop("parent") for one in told] == [process.pid] * 2
        assert len({one.pop("random") for one in told}) == 2
        wait_for_ready(process, 2)
        commands = [child.cmdline() for child in children_but_fork_server(process.pid)]
        assert [command[1:3] for command in commands] == [["-m", PROGRAM]] * 2
    assert [one.pop("comm") for one in by_fork] == ["child-0", "child-1"]
    assert all(one.pop("comm") != one["name"] for one in by_itself)
    assert by_fork == by_itself
    assert (starts_of(forked), starts_of(apart)) == ([True, True], [False, False])


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, "killed by SIGKILL"), (signal.SIGTERM, "killed by SIGTERM")]
)
def test_a_forked_process_that_is_killed_is_forked_again_and_the_supervisor_knows_the_signal(
    supervise, number, how
):
    process = supervise()
    wait_for_ready(process, 1)
    children_but_fork_server(process.pid)[0].send_signal(number)
    wait_for_ready(process, 2)
    process.wait_for_line(how, PATIENCE_SECONDS)
    assert starts_of(process) == [True, True]


def test_the_status_with_which_a_forked_process_ends_is_known(supervise):
    process = supervise("leave", "41")
    process.wait_for_line("exit status 41", PATIENCE_SECONDS)
    finally_ended = supervise("leave", "3")
    finally_ended.wait_for_end(PATIENCE_SECONDS)
    assert finally_ended.stop() == 3


def test_where_the_fork_server_dies_its_children_go_on_and_it_is_started_again(supervise):
    process = supervise()
    wait_for_ready(process, 1)
    [child] = children_but_fork_server(process.pid)
    former = fork_server_of(process)
    former.kill()
    process.wait_for_line("The fork server fails", PATIENCE_SECONDS)
    process.wait_for_line("The fork server is ready", PATIENCE_SECONDS, 2)
    another = fork_server_of(process)
    assert another != former
    assert child.is_running()
    child.kill()
    wait_for_ready(process, 2)
    assert starts_of(process) == [True, True]
    process.signal(signal.SIGKILL)
    assert not psutil.wait_procs([another], timeout=PATIENCE_SECONDS)[1], "it outlives its supervisor"


@pytest.mark.parametrize("module", ["no_such_module", "starts_a_thread", "torch"])
def test_where_there_can_be_no_fork_server_children_begin_by_themselves(supervise, tmp_path, module):
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    (tmp_path / "torch.py").write_text("class cuda:\n    _is_in_bad_fork = staticmethod(lambda: True)\n")
    process = supervise(modules=(PROGRAM, module))
    wait_for_ready(process, 1)
    children_but_fork_server(process.pid)[0].kill()
    wait_for_ready(process, 2)
    assert starts_of(process) == [False, False]


def test_where_the_first_processes_shall_not_wait_the_fork_server_is_there_for_the_next_ones(supervise):
    process = supervise(modules=(PROGRAM, "later"))
    wait_for_ready(process, 1)
    process.wait_for_line("The fork server is ready", PATIENCE_SECONDS)
    children_but_fork_server(process.pid)[0].kill()
    wait_for_ready(process, 2)
    assert starts_of(process) == [False, True]


def test_a_fork_server_that_hangs_is_ended_and_the_child_begins_by_itself(supervise):
    process = supervise()
    wait_for_ready(process, 1)
    server = fork_server_of(process)
    server.suspend()
    children_but_fork_server(process.pid)[0].kill()
    wait_for_ready(process, 2)
    assert starts_of(process) == [True, False]
    assert not psutil.wait_procs([server], timeout=PATIENCE_SECONDS)[1]


def test_what_starts_threads_only_where_it_may_is_imported_without_them(supervise):
    process = supervise(modules=(PROGRAM, "numpy"))
    wait_for_ready(process, 1)
    assert starts_of(process) == [True]
    assert fork_server_of(process).num_threads() == 1


def test_what_a_dying_fork_server_began_does_not_run_beside_the_one_that_begins_by_itself(
    supervise, tmp_path
):
    (tmp_path / "dies_at_fork.py").write_text("import os\nos.waitpid = lambda *_: os._exit(1)\n")
    process = supervise(modules=(PROGRAM, "dies_at_fork"))
    wait_for_ready(process, 1)
    assert starts_of(process) == [False]
    eventually(lambda: len(programs_beside(process)) == 1, PATIENCE_SECONDS, "nothing else goes on")
    assert len(told_by(process, 1)) == 1


def programs_beside(process):
    """All processes that a supervisor's children run in, whoever their parents are by now."""
    output = os.readlink(f"/proc/{process.pid}/fd/1")
    return [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if pid != process.pid and output_of(pid) == output and not is_fork_server(pid)
    ]


def output_of(pid):
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/fd/1")
    return None


def is_fork_server(pid):
    with contextlib.suppress(psutil.Error):
        return any("fork_server_program" in word for word in psutil.Process(pid).cmdline())
    return True


def test_a_signal_that_comes_at_once_ends_a_forked_process():
    with selectors.DefaultSelector() as selector:
        server = ForkServer(
            [PROGRAM],
            environ={**os.environ, "PYTHONPATH": str(TESTS)},
            policy=RestartPolicy(),
            selector=selector,
            clock=time.monotonic,
            on_change=lambda: None,
        )
        server.start()
        try:
            [(key, _)] = selector.select(PATIENCE_SECONDS)
            key.data()
            program = ForkedProgram(PROGRAM, "pause", ())
            request = ForkRequest(program, "child", dict(os.environ), (), has_output=False)
            for _ in range(20):
                process = server.fork(request, ())
                process.send_signal(signal.SIGTERM)
                assert is_over(process), "it heard nothing"
                assert process.wait() == -signal.SIGTERM
        finally:
            server.stop()


def is_over(process):
    descriptor = os.pidfd_open(process.pid)
    try:
        if select.select([descriptor], [], [], 5.0)[0]:
            return True
        process.kill()
        process.wait()
        return False
    finally:
        os.close(descriptor)


def test_who_waits_for_it_does_not_wait_for_ever_where_it_is_renewed_again_and_again():
    now, changes = [0.0], []
    with selectors.DefaultSelector() as selector:
        server = ForkServer(
            [PROGRAM],
            environ={**os.environ, "PYTHONPATH": str(TESTS)},
            policy=RestartPolicy(),
            selector=selector,
            clock=lambda: now[0],
            on_change=lambda: changes.append(now[0]),
        )
        server.start()
        try:
            for now[0] in (0.4 * IMPORT_SECONDS, 0.8 * IMPORT_SECONDS, 1.2 * IMPORT_SECONDS):
                server.do_what_is_due()
                if server.is_starting:
                    server.renew()
            assert changes == [1.2 * IMPORT_SECONDS]
            # What begins then has all of its time again.
            server.renew()
            assert server.due == 2.2 * IMPORT_SECONDS
        finally:
            server.stop()


def test_what_a_fork_server_said_counts_no_longer_once_another_takes_its_place():
    """Signals, ends of children and its word may come in one moment."""
    changes = []
    with selectors.DefaultSelector() as selector:
        server = ForkServer(
            [PROGRAM],
            environ={**os.environ, "PYTHONPATH": str(TESTS)},
            policy=RestartPolicy(),
            selector=selector,
            clock=time.monotonic,
            on_change=lambda: changes.append(True),
        )
        server.start()
        try:
            [(key, _)] = selector.select(PATIENCE_SECONDS)
            server.renew()
            key.data()
            assert server.is_starting
        finally:
            server.stop()
        key.data()
    assert not changes


def test_a_reload_imports_new_code(supervise, tmp_path):
    (tmp_path / "changing.py").write_text("VERSION = 'old'\n")
    process = supervise("changing", modules=(PROGRAM, "changing"))
    wait_for_ready(process, 1)
    (tmp_path / "changing.py").write_text("VERSION = 'changed'\n")
    children_but_fork_server(process.pid)[0].kill()
    wait_for_ready(process, 2)
    process.signal(signal.SIGHUP)
    wait_for_ready(process, 3)
    assert [one["version"] for one in told_by(process, 3)] == ["old", "old", "changed"]
    assert starts_of(process) == [True, True, True]


def test_a_signal_to_all_is_none_to_the_fork_server_and_nothing_is_left_after_the_stop(supervise):
    process = supervise()
    wait_for_ready(process, 1)
    server = fork_server_of(process)
    server.terminate()
    children_but_fork_server(process.pid)[0].kill()
    wait_for_ready(process, 2)
    assert starts_of(process) == [True, True]
    process.signal(signal.SIGTERM)
    process.wait_for_end(PATIENCE_SECONDS)
    assert not psutil.wait_procs([server], timeout=PATIENCE_SECONDS)[1]


def test_the_fork_server_holds_no_descriptor_of_its_children(supervise):
    process = supervise(count=2)
    wait_for_ready(process, 2)
    server = fork_server_of(process)
    links = [os.readlink(file) for file in map(str, descriptors_of(server.pid))]
    assert [link.partition(":")[0] for link in links] == ["socket"]


def descriptors_of(pid):
    return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd") if int(name) > 2]
