"""The supervisor, over real processes: first with plain children, then as `tether worker`."""

import json
import os
import signal
import sys

import psutil
import pytest

from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import TESTS, Program, WorkerProcess, children_but_fork_server
from tether.processes.reload import MAX_RETIRED
from tether.processes.supervisor import CHILDREN_KILLED

SAY_READY = (
    "from tether.processes.child import LoadState, announce_loading, announce_ready, follow_parent; "
    "import os, sys, signal, threading"
)
STEADY = f"{SAY_READY}; follow_parent(lambda: os._exit(7)); announce_ready(); signal.pause()"
STUBBORN = f"{SAY_READY}; signal.signal(15, signal.SIG_IGN); announce_ready(); threading.Event().wait()"
NEVER_READY = "import signal; signal.pause()"
AT_SIGTERM = (
    "import signal, sys; signal.signal(15, lambda *_: sys.exit(print('{}'))); print('listening', flush=True)"
)
TELLS_ITS_STOP = f"{AT_SIGTERM.format('asked to stop')}; signal.pause()"
TELLS_ITS_END = f"{SAY_READY}; {AT_SIGTERM.format('at its end')}; announce_ready(); signal.pause()"
LONG_AT_WORK = (
    f"{SAY_READY}; signal.signal(15, lambda *_: None); name = os.environ['TETHER_CHILD_NAME']; "
    "gives_up = lambda: (print('gave up', name, flush=True), os._exit(0)); "
    "follow_parent(lambda: None, on_hurry=gives_up); announce_ready(); threading.Event().wait()"
)
WRONGLY_SET_UP = "raise SystemExit(3)"
DIES_WHEN_READY = f"{SAY_READY}; announce_ready(); raise SystemExit(9)"


RETIRES = (
    f"{SAY_READY}; retires = lambda: (print('retired', flush=True), os._exit(0)); "
    "signal.signal(15, lambda *_: os._exit(0)); follow_parent(lambda: os._exit(7), on_retire=retires); "
    "announce_ready(); threading.Event().wait()"
)


def first_time(folder, later, code):
    """What runs ``code`` when it is started first, and ``later`` from then on."""
    flag = str(folder / "started")
    return (
        f"import os, signal, sys; again = os.path.exists({flag!r}); open({flag!r}, 'w').close(); "
        f"exec({later!r} if again else {code!r})"
    )


@pytest.fixture
def supervise():
    started = []

    def start(*codes, stop_limit=20, stops_before=(), overlaps=False, **policy):
        children = [
            {
                "name": f"child-{number}",
                "command": [code] if code.startswith("/") else [sys.executable, "-c", code],
                "stops_before": stops_before if number == len(codes) - 1 else (),
                "overlaps": overlaps,
            }
            for number, code in enumerate(codes)
        ]
        policy = {"first_delay": 0.01, "max_delay": 0.2, **policy}
        command = [sys.executable, "-m", "support.supervise", json.dumps(children), json.dumps(policy)]
        process = WorkerProcess([*command, str(stop_limit)], {**os.environ, "PYTHONPATH": str(TESTS)})
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


def children_of(process):
    return {child.pid for child in children_but_fork_server(process.pid)}


def test_children_are_started_and_stopped_in_order(supervise):
    process = supervise(STEADY, STEADY)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    children = children_of(process)
    assert len(children) == 2
    assert process.stop() == 0
    assert not any(psutil.pid_exists(child) for child in children)


def test_a_child_that_uses_another_waits_for_it_at_no_start_and_stops_before_it(supervise):
    process = supervise(TELLS_ITS_STOP, TELLS_ITS_END, stops_before=["child-0"])
    process.wait_for_line("is ready", within=PATIENCE_SECONDS)
    process.wait_for_line("listening", within=PATIENCE_SECONDS, count=2)
    assert process.stop() == 0
    told = [line for line in process.lines if line in ("asked to stop", "at its end")]
    assert told == ["at its end", "asked to stop"]


def test_a_killed_child_is_started_again_and_the_others_go_on(supervise):
    process = supervise(STEADY, STEADY)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    killed, spared = sorted(children_of(process))
    os.kill(killed, signal.SIGKILL)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=3)
    assert "killed by SIGKILL" in "\n".join(process.lines)
    after = children_of(process)
    assert spared in after
    assert killed not in after
    assert len(after) == 2


def test_a_child_killed_while_it_boots_is_started_again(supervise):
    process = supervise(NEVER_READY)
    process.wait_for_line("Started a child", within=PATIENCE_SECONDS)
    [booting] = children_of(process)
    os.kill(booting, signal.SIGKILL)
    process.wait_for_line("Started a child", within=PATIENCE_SECONDS, count=2)
    assert process.stop() == 0


def test_a_child_that_does_not_become_ready_is_killed_and_started_again(supervise):
    process = supervise(NEVER_READY, boot_limit=0.2)
    process.wait_for_line("did not become ready in time", within=PATIENCE_SECONDS)
    process.wait_for_line("Started a child", within=PATIENCE_SECONDS, count=2)


def test_a_child_that_keeps_dying_is_started_again_after_longer_and_longer_waits(supervise):
    process = supervise(DIES_WHEN_READY)
    process.wait_for_line('"A child exited', within=PATIENCE_SECONDS, count=6)
    waits = [
        json.loads(line)["restart_in_seconds"] for line in list(process.lines) if "restart_in_seconds" in line
    ]
    assert waits[:6] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.2]


def test_a_child_that_served_before_it_died_is_started_again_after_the_shortest_wait(supervise):
    process = supervise(STEADY, served_after=1e-6)
    for deaths in range(1, 4):
        process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=deaths)
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        process.wait_for_line('"A child exited', within=PATIENCE_SECONDS, count=deaths)
    waits = [
        json.loads(line)["restart_in_seconds"] for line in list(process.lines) if "restart_in_seconds" in line
    ]
    assert waits == [0.01, 0.01, 0.01]


def test_a_child_that_can_never_run_stops_everything_with_its_status(supervise):
    process = supervise(STEADY, WRONGLY_SET_UP)
    process.wait_for_end(within=PATIENCE_SECONDS)
    assert process.stop() == 3


def test_where_ends_of_processes_are_ignored_by_who_started_it_they_are_known_all_the_same(supervise):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = supervise(WRONGLY_SET_UP)
    finally:
        signal.signal(signal.SIGCHLD, before)
    process.wait_for_end(PATIENCE_SECONDS)
    assert process.stop() == 3


def test_a_child_that_does_not_stop_in_time_is_killed(supervise):
    process = supervise(STUBBORN, stop_limit=0.2)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS)
    assert process.stop() == CHILDREN_KILLED
    assert "did not stop in time" in "\n".join(process.lines)


def test_asked_thrice_it_kills_at_once(supervise):
    process = supervise(STUBBORN, stop_limit=600)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS)
    process.signal(signal.SIGINT)
    process.wait_for_line("Stopping the children", within=PATIENCE_SECONDS)
    process.signal(signal.SIGINT)
    process.wait_for_line("second stop signal", within=PATIENCE_SECONDS)
    assert process.stop() == CHILDREN_KILLED


def test_asked_twice_children_end_in_order_without_waiting_for_what_they_run(supervise):
    process = supervise(LONG_AT_WORK, LONG_AT_WORK, stop_limit=600, stops_before=["child-0"])
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    process.signal(signal.SIGINT)
    process.wait_for_line("Stopping the children", within=PATIENCE_SECONDS)
    assert process.stop() == 0
    assert [line for line in process.lines if line.startswith("gave up")] == [
        "gave up child-1",
        "gave up child-0",
    ]


def test_who_asks_twice_at_once_beside_a_stop_under_way_kills_nothing(supervise):
    process = supervise(LONG_AT_WORK, stop_limit=600)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS)
    process.signal(signal.SIGTERM)
    process.wait_for_line("Stopping the children", within=PATIENCE_SECONDS)
    # As `tether down --now` does.
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGINT)
    process.wait_for_end(PATIENCE_SECONDS)
    assert "gave up child-0" in process.lines
    assert process.stop() == 0


def test_asked_twice_a_child_that_hangs_is_killed_soon_and_those_behind_it_hand_over(supervise):
    process = supervise(LONG_AT_WORK, STUBBORN, stop_limit=600, stops_before=["child-0"])
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    process.signal(signal.SIGINT)
    process.wait_for_line("Stopping the children", within=PATIENCE_SECONDS)
    assert process.stop() == CHILDREN_KILLED
    assert "gave up child-0" in process.lines


def test_children_end_by_themselves_when_the_supervisor_is_killed(supervise):
    process = supervise(STEADY, STEADY)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    children = [psutil.Process(pid) for pid in children_of(process)]
    process.signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    assert not alive
    assert len(gone) == 2


def test_on_sighup_children_are_replaced_one_after_the_other(supervise):
    process = supervise(STEADY, STEADY)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    before = children_of(process)
    process.signal(signal.SIGHUP)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=4)
    assert before.isdisjoint(children_of(process))
    events = [json.loads(line)["event"] for line in list(process.lines)]
    after_reload = events[events.index("Restarting the children one by one.") + 1 :]
    assert after_reload[:4] == ["Started a child.", "A child is ready."] * 2


def test_of_children_that_overlap_the_new_one_is_ready_before_the_former_retires(supervise):
    process = supervise(RETIRES, overlaps=True)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS)
    (former,) = children_of(process)
    process.signal(signal.SIGHUP)
    process.wait_for_line("retired", within=PATIENCE_SECONDS)
    after_reload = process.lines[
        next(n for n, line in enumerate(process.lines) if "one by one" in line) + 1 :
    ]
    assert ["Started" in after_reload[0], "is ready" in after_reload[1], after_reload[2]] == [
        True,
        True,
        "retired",
    ]
    eventually(lambda: former not in children_of(process), PATIENCE_SECONDS, "the former one has ended")
    assert len(children_of(process)) == 1
    assert process.stop() == 0


def test_reloads_in_quick_succession_do_not_pile_up_what_leaves(supervise):
    leaves_late = RETIRES.replace("print('retired', flush=True), os._exit(0)", "print('told', flush=True)")
    process = supervise(leaves_late, overlaps=True)
    for ready in range(1, 2 + MAX_RETIRED):
        process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=ready)
        if ready == 1:
            [first] = children_of(process)
        process.signal(signal.SIGHUP)
    process.wait_for_line("one by one", within=PATIENCE_SECONDS, count=1 + MAX_RETIRED)
    process.wait_for_line("told", within=PATIENCE_SECONDS, count=MAX_RETIRED)
    former = children_of(process)
    assert len(former) == 1 + MAX_RETIRED
    os.kill(first, signal.SIGKILL)
    # Where one has left, there is room for the next.
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2 + MAX_RETIRED)
    assert len(children_of(process) - former) == 1


def test_a_child_whose_new_process_cannot_run_keeps_its_former_one_and_the_next_is_reloaded(
    supervise, tmp_path
):
    process = supervise(first_time(tmp_path, "sys.exit(9)", RETIRES), RETIRES, overlaps=True)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    before = children_of(process)
    process.signal(signal.SIGHUP)
    process.wait_for_line("The former one stays", within=PATIENCE_SECONDS)
    process.wait_for_line("retired", within=PATIENCE_SECONDS)
    eventually(lambda: len(children_of(process)) == 2, PATIENCE_SECONDS, "one has left")
    assert len(before & children_of(process)) == 1
    assert process.stop() == 0


def test_stopped_amid_a_reload_all_of_a_child_s_processes_end(supervise, tmp_path):
    process = supervise(first_time(tmp_path, "signal.pause()", STEADY), overlaps=True)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS)
    process.signal(signal.SIGHUP)
    process.wait_for_line("Started a child", within=PATIENCE_SECONDS, count=2)
    children = children_of(process)
    assert len(children) == 2
    process.stop()
    assert not any(psutil.pid_exists(child) for child in children)


def test_a_reload_takes_no_child_down_while_the_last_has_not_loaded_what_it_had(supervise, tmp_path):
    cannot_load = f"{SAY_READY}; announce_loading().tell(LoadState.FAILED); signal.pause()"
    process = supervise(first_time(tmp_path, cannot_load, STEADY), STEADY)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    before = children_of(process)
    process.signal(signal.SIGHUP)
    process.wait_for_line("cannot load its models yet", within=PATIENCE_SECONDS)
    assert len(before & children_of(process)) == 1, "the other goes on"
    # It had not loaded all before this one.
    process.signal(signal.SIGHUP)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=5)
    assert before.isdisjoint(children_of(process))


def test_a_reload_goes_past_a_child_that_was_never_ready(supervise):
    process = supervise(NEVER_READY, STEADY)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS)
    before = children_of(process)
    process.signal(signal.SIGHUP)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    assert before.isdisjoint(children_of(process))


def test_a_reload_goes_past_a_child_that_does_not_stop(supervise):
    process = supervise(STUBBORN, STEADY, stop_limit=0.2)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    before = children_of(process)
    process.signal(signal.SIGHUP)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=4)
    assert before.isdisjoint(children_of(process))


def test_a_child_that_cannot_be_started_the_first_time_leaves_the_others_alone(supervise):
    process = supervise(STEADY, "/no/such/program", STEADY)
    process.wait_for_line("could not be started", within=PATIENCE_SECONDS, count=2)
    process.wait_for_line("is ready", within=PATIENCE_SECONDS, count=2)
    assert process.stop() == 0


def test_a_child_that_cannot_be_started_again_leaves_the_others_alone(supervise, tmp_path):
    """As where memory or processes have run out: here its program is gone."""
    program = tmp_path / "vanishing"
    program.write_text(f"#!{sys.executable}\nimport os\nos.remove(__file__)\n{DIES_WHEN_READY}\n")
    program.chmod(0o755)
    process = supervise(STEADY, str(program))
    process.wait_for_line("could not be started", within=PATIENCE_SECONDS, count=3)
    assert len(children_of(process)) == 1
    assert process.stop() == 0


def test_a_queue_that_no_actor_has_is_an_error(program):
    worker = program.start_tether("worker", "support.program", "-Q", "defualt")
    worker.wait_for_end(within=PATIENCE_SECONDS)
    assert worker.stop() == 3
    assert "no actor has the queue 'defualt'; available: default" in "\n".join(worker.lines)


def test_a_signal_to_the_whole_group_lets_running_actors_finish(program):
    worker = program.start_supervised(threads=1)
    program.send("hold", 0)
    assert program.next_word(within=PATIENCE_SECONDS) == "started 0"
    for pid in (*children_of(worker), worker.pid):
        os.kill(pid, signal.SIGTERM)
    worker.wait_for_line("Finishing running actors", within=PATIENCE_SECONDS)
    worker.wait_for_line("Stopping the children", within=PATIENCE_SECONDS)
    program.let_go()
    worker.wait_for_end(within=PATIENCE_SECONDS)
    assert worker.stop() == 0
    assert program.next_word(within=PATIENCE_SECONDS) == "ran 0"
    assert program.copies() == 0


@pytest.fixture
def program():
    program = Program("tether")
    yield program
    program.close()


def test_a_worker_process_that_dies_leaves_the_others_working(program):
    worker = program.start_supervised(processes=2)
    victim, other = sorted(children_of(worker))
    os.kill(victim, signal.SIGKILL)
    worker.wait_for_line("A child is ready", within=PATIENCE_SECONDS, count=3)
    assert other in children_of(worker)
    for number in range(20):
        program.send("record", number)
    assert len(program.words(20, within=PATIENCE_SECONDS)) == 20


def test_a_stopped_worker_finishes_what_runs_and_gives_back_the_rest(program):
    worker = program.start_supervised(threads=1)
    for number in range(5):
        program.send("hold", number)
    assert program.next_word(within=PATIENCE_SECONDS) == "started 0"
    worker.signal(signal.SIGTERM)
    worker.wait_for_line("Finishing running actors", within=PATIENCE_SECONDS)
    program.let_go(count=5)
    worker.wait_for_end(within=PATIENCE_SECONDS)
    assert worker.stop() == 0
    ran = {word for word in program.ledger.lrange("said", 0, -1) if word.startswith("ran")}
    assert "ran 0" in ran
    assert program.redis.llen("program:default") == program.copies() == 5 - len(ran)


def test_a_worker_of_a_missing_module_says_so_and_ends(program):
    worker = program.start_tether("worker", "no_such_program")
    worker.wait_for_end(within=PATIENCE_SECONDS)
    assert worker.stop() == 3
    output = "\n".join(worker.lines)
    assert "there is no module 'no_such_program'" in output
    assert "Traceback" not in output


def test_a_worker_of_something_that_is_no_broker_says_so_and_ends(program):
    worker = program.start_tether("worker", "support.program:LEDGER")
    worker.wait_for_end(within=PATIENCE_SECONDS)
    assert worker.stop() == 3
    assert "is a Redis, not a broker" in "\n".join(worker.lines)


def test_a_worker_started_while_redis_is_away_works_once_it_is_back(program):
    program.server.stop()
    worker = program.start_supervised()
    worker.wait_for_line("connection error", within=PATIENCE_SECONDS)
    program.server.start()
    program.send("record", 1)
    assert program.next_word(within=PATIENCE_SECONDS) == "ran 1"
    eventually(lambda: program.copies() == 0, within=PATIENCE_SECONDS, what="acknowledged")
