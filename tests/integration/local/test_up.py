"""`tether up` and the verbs around it, as processes: started, used, stopped and killed."""

import json
import os
import signal
import socket
import sqlite3
import subprocess

import psutil
import pytest

from support.local_tether import LocalTether
from support.stream_reader import StreamReader
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import WorkerProcess
from tether.jobs import JobState
from tether.store.migrations import HEAD, downgrade, upgrade

WITH_FORK_SERVER = {"TETHER_WORKER__FORK_SERVER": "true"}


def fork_servers(local, process):
    """Those under a `tether up`."""
    return [one for one in local.all_processes(process) if "fork_server_program" in " ".join(one.cmdline())]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One that is up, for tests that leave it so."""
    local = LocalTether(tmp_path_factory.mktemp("up"))
    local.process = local.up(**WITH_FORK_SERVER)
    yield local
    local.process.stop()
    local.close()


def test_it_is_found_without_being_named_and_runs_jobs(shared):
    status, text, errors = shared.run("submit", "one two", "--model", "counter")
    assert (status, errors) == (0, "")
    assert len(text.split()) == 8
    status, text, _ = shared.run("jobs", "list", "--json")
    assert [job["state"] for job in json.loads(text)] == ["succeeded"]
    status, text, _ = shared.run("keys", "list")
    lines = "\n".join(shared.process.lines)
    assert "export OPENAI_BASE_URL=http://127.0.0.1:" in lines
    assert "tether down" in lines


def test_a_fork_server_is_beside_its_worker(shared):
    eventually(lambda: len(fork_servers(shared, shared.process)) == 1, PATIENCE_SECONDS, "one fork server")


def test_its_folder_is_its_owners_alone(shared):
    for path in (shared.folder, *shared.folder.rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert mode & 0o077 == 0 or path.suffix == ".pub" or path.is_relative_to(shared.folder / "redis"), (
            path
        )
    assert (shared.folder.stat().st_mode & 0o777) == 0o700
    redis = [
        psutil.Process(one.pid)
        for one in shared.all_processes(shared.process)
        if "redis-server" in one.name()
    ]
    assert [one.net_connections("inet") for one in redis] == [[]]


def test_a_second_one_in_the_same_folder_says_so_in_one_line(shared):
    status, output, errors = shared.run("up")
    assert (status, output, errors.count("\n")) == (5, "", 1)
    assert f"process {shared.process.pid}" in errors
    assert "Tether is already running here: http://127.0.0.1:" in errors


def test_its_parts_are_shown_with_what_the_gateway_knows(shared):
    status, text, _ = shared.run("status", "--json")
    told = json.loads(text)
    assert status == 0
    assert {part["name"]: part["state"] for part in told["local"]["parts"]} == {
        "redis": "ready",
        "gateway": "ready",
        "worker-1": "ready",
    }
    assert told["health"] == {"status": "ready", "database": "ok", "redis": "ok", "orchestrator": "ok"}
    status, text, _ = shared.run("status")
    assert status == 0
    for words in ("part     redis  ready  process ", "redis    ok", "model    counter  1 worker"):
        assert words in text


def test_the_logs_of_all_parts_and_of_one_are_printed(shared):
    status, text, _ = shared.run("logs", "-n", "3")
    assert status == 0
    assert {line.split("|")[0].strip() for line in text.splitlines()} >= {"redis", "gateway", "worker-1"}
    status, text, _ = shared.run("logs", "gateway", "-n", "1")
    assert (status, text.count("\n")) == (0, 1)
    status, _, errors = shared.run("logs", "gatway")
    assert (status, "did you mean gateway?" in errors) == (2, True)


def test_logs_are_followed_until_ctrl_c(shared):
    process = WorkerProcess(shared.command("logs", "-f", "-n", "1", "gateway", "worker-1"), shared.environ)
    shared.processes.append(process)
    process.wait_for_line("gateway", within=PATIENCE_SECONDS)
    with (shared.folder / "logs" / "worker-1.log").open("a") as log:
        log.write("a line of the test\n")
    process.wait_for_line("worker-1   | a line of the test", within=PATIENCE_SECONDS)
    process.signal(signal.SIGINT)
    process.wait_for_end(within=PATIENCE_SECONDS)
    assert process.stop() == 0


def test_its_worker_is_enrolled_under_its_name_and_its_api_key_is_listed(shared):
    def enrolled():
        return json.loads(shared.run("fleet", "keys", "--json")[1])["data"]

    eventually(enrolled, PATIENCE_SECONDS, "the worker is enrolled")
    (key,) = enrolled()
    assert key["name"] == "worker-1"
    assert key["pub_key"] == (shared.folder / "identity" / "worker-1.pub").read_text().strip()
    assert "tether up" in shared.run("keys", "list")[1]


def test_its_worker_can_be_revoked_and_works_again_when_it_is_trusted_again(local):
    process = local.up()

    def workers():
        return {
            one["name"]: one["state"] for one in json.loads(local.run("fleet", "list", "--json")[1])["data"]
        }

    def complaints():
        return (local.folder / "logs" / "worker-1.log").read_text().count("was revoked: it gets no more jobs")

    eventually(workers, PATIENCE_SECONDS, "the worker is there")
    pid = local.parts()["worker-1"]["pid"]
    for times in (1, 2):
        status, _, errors = local.run("fleet", "revoke", "worker-1")
        assert (status, "This takes effect within 2 seconds" in errors) == (0, True)
        eventually(
            lambda times=times: complaints() == times, PATIENCE_SECONDS, "the worker says so once each time"
        )
        eventually(lambda: not workers(), PATIENCE_SECONDS, "it is listed no more")
        key_file = str(local.folder / "identity" / "worker-1.pub")
        status, _, errors = local.run("fleet", "trust", "--again", key_file)
        assert (status, "is trusted" in errors) == (0, True)
        timeout = f"{PATIENCE_SECONDS}s"
        status, text, _ = local.run("submit", "one two", "--model", "counter", "--timeout", timeout)
        assert (status, len(text.split())) == (0, 8)
        eventually(lambda: workers() == {"worker-1": "serving"}, PATIENCE_SECONDS, "the worker serves")
    assert local.parts()["worker-1"]["pid"] == pid
    assert process.stop() == 0


def test_the_doctor_finds_it_well(shared):
    status, text, _ = shared.run("doctor", "--json")
    told = json.loads(text)
    found = {check["name"]: check for check in told["checks"]}
    for name in ("python", "settings", "state folder", "port", "database", "redis", "gateway", "workers"):
        assert found[name]["verdict"] == "ok", found[name]
    assert "append-only, noeviction" in found["redis"]["found"]
    assert (status == 0) == told["is_ok"] == all(one["verdict"] != "fail" for one in told["checks"])


@pytest.mark.parametrize("part", ["worker-1", "gateway", "redis", "redis-server"])
def test_a_killed_part_comes_back_and_the_stream_ends_whole(shared, part):
    name = "redis" if part == "redis-server" else part
    before = shared.parts()[name]
    pid = before["pid"]
    if part == "redis-server":
        (pid,) = (child.pid for child in psutil.Process(pid).children() if "redis-server" in child.name())
    with shared.client() as client:
        job = client.submit("slow", "one two", max_tokens=120)
        reader = StreamReader(job)
        reader.wait_for_tokens(5)
        os.kill(pid, signal.SIGKILL)
        shared.ready_again(name, before["restarts"] + 1)
        reader.join()
        assert len(reader.texts) == 120
        eventually(lambda: job.status().state is JobState.SUCCEEDED, PATIENCE_SECONDS, "the end is recorded")
    shared.process.wait_for_line(f"{name} has exited (", within=PATIENCE_SECONDS)
    shared.process.wait_for_line(f"{name} is ready again", within=PATIENCE_SECONDS)


def test_down_stops_everything_and_leaves_nothing(local):
    process = local.up(**WITH_FORK_SERVER)
    eventually(lambda: fork_servers(local, process), PATIENCE_SECONDS, "its fork server runs")
    children = local.all_processes(process)
    assert len(children) >= 4
    status, text, errors = local.run("down")
    assert (status, errors) == (0, "")
    assert "stopped" in text
    process.wait_for_end(within=PATIENCE_SECONDS)
    assert process.stop() == 0
    assert psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1] == []
    assert local.left_files() == []
    status, text, _ = local.run("down")
    assert (status, text.startswith("no Tether is running in ")) == (0, True)
    status, _, errors = local.run("status")
    assert (status, "tether up" in errors) == (3, True)
    status, text, _ = local.run("logs", "-f", "-n", "1", "gateway")
    assert status == 0


@pytest.mark.parametrize(
    "line", ["", "redis: starting", "gateway: starting", "worker-1: starting", "Tether is ready"]
)
def test_ctrl_c_at_any_stage_leaves_no_process_and_no_file(local, line):
    process = local.spawn()
    if line:
        process.wait_for_line(line, within=PATIENCE_SECONDS)
    children = local.all_processes(process)
    process.signal(signal.SIGINT)
    process.wait_for_end(within=PATIENCE_SECONDS)
    status = process.stop()
    # Right after the start it is the interpreter that is interrupted.
    assert status == 0 or not line
    assert psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1] == []
    assert local.left_files() == []


def test_after_a_kill_its_children_end_and_the_next_one_has_the_jobs(local):
    process = local.up()
    with local.client() as client:
        job_id = client.submit("slow", "one two", max_tokens=200).job_id
        eventually(lambda: client.job(job_id).status().offset > 3, PATIENCE_SECONDS, "tokens are made")
    children = local.all_processes(process)
    assert fork_servers(local, process) == [], "none where none is wanted"
    process.signal(signal.SIGKILL)
    again = local.up()
    assert psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1] == []
    with local.client() as client:
        reader = StreamReader(client.job(job_id))
        reader.join()
        assert len(reader.texts) == 200
    assert again.stop() == 0


def test_a_reload_replaces_what_runs_our_code_and_leaves_redis_alone(local):
    process = local.up(**WITH_FORK_SERVER)
    before = {name: part["pid"] for name, part in local.parts().items()}
    with local.client() as client:
        reader = StreamReader(client.submit("slow", "one", max_tokens=200))
        reader.wait_for_tokens(3)
        process.signal(signal.SIGHUP)
        process.wait_for_line("gateway is replaced", within=PATIENCE_SECONDS)
        process.wait_for_line("worker-1: stopping", within=PATIENCE_SECONDS)
        process.wait_for_line("worker-1 has stopped (exit status 0), and is started anew", PATIENCE_SECONDS)
        process.wait_for_line("worker-1 is ready again", within=PATIENCE_SECONDS)
        reader.join()
        assert len(reader.texts) == 200
    after = local.parts()
    assert {name for name, pid in before.items() if after[name]["pid"] == pid} == {"redis"}
    assert all(part["state"] == "ready" for part in after.values())
    assert process.stop() == 0


def test_down_now_ends_everything(local):
    process = local.up()
    children = local.all_processes(process)
    status, _, _ = local.run("down", "--now")
    assert status == 0
    assert [child for child in children if child.is_running() and child.status() != "zombie"] == []
    process.wait_for_end(within=PATIENCE_SECONDS)
    assert local.left_files() == []


def test_detached_it_returns_when_ready_and_down_ends_it(local):
    status, text, errors = local.run("up", "--detach", "--port", "0")
    assert (status, errors) == (0, "")
    assert "Tether is ready" in text
    assert local.run("submit", "x", "--model", "counter")[0] == 0
    log = WorkerProcess(local.command("logs", "-f", "-n", "1"), local.environ)
    local.processes.append(log)
    log.wait_for_line("up", within=PATIENCE_SECONDS)
    assert local.run("down")[0] == 0
    log.wait_for_line("tether up has ended", within=PATIENCE_SECONDS)
    log.wait_for_end(within=PATIENCE_SECONDS)
    assert log.stop() == 0
    assert local.left_files() == []


def test_ctrl_c_while_it_is_detached_stops_it(local):
    process = WorkerProcess(local.command("up", "--detach", "--port", "0"), local.environ)
    local.processes.append(process)
    process.wait_for_line("gateway: starting", within=PATIENCE_SECONDS)
    children = local.all_processes(process)
    process.signal(signal.SIGINT)
    process.wait_for_end(within=PATIENCE_SECONDS)
    assert process.stop() == 130
    assert psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1] == []
    assert local.left_files() == []


def test_a_second_ctrl_c_waits_for_no_job_and_all_end_in_order(local):
    process = local.up(TETHER_WORKER__DRAIN_TIMEOUT="600000", TETHER_WORKER__SHUTDOWN_TIMEOUT="600000")
    children = local.all_processes(process)
    with local.client() as client:
        job = client.submit("slow", "one", max_tokens=400)
        eventually(lambda: job.status().offset > 3, PATIENCE_SECONDS, "tokens are made")
    process.signal(signal.SIGINT)
    eventually(lambda: local.parts()["worker-1"]["state"] == "stopping", PATIENCE_SECONDS, "it is stopping")
    process.signal(signal.SIGINT)
    process.wait_for_end(within=PATIENCE_SECONDS)
    assert process.stop() == 0
    assert psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1] == []
    assert local.left_files() == []


def test_detached_it_says_why_it_cannot_start(local):
    status, text, _ = local.run("up", "--detach", TETHER_GATEWAY__HOST="203.0.113.1")
    assert (status, "cannot listen on" in text) == (3, True)
    assert local.left_files() == []


def test_once_runs_one_job_and_ends(local):
    status, text, errors = local.run("up", "--once", "--prompt", "one", "--port", "0")
    assert status == 0, errors
    assert len(text.split()) == 8
    assert errors.splitlines()[-1].startswith("job ")
    assert local.left_files() == []
    assert local.run("down")[1].startswith("no Tether is running")


def test_a_part_that_can_never_start_ends_it_with_the_end_of_its_log(local):
    models = json.dumps([{"name": "far", "engine": "null", "gpu_class": "elsewhere"}])
    process = local.spawn(TETHER_MODELS=models)
    process.wait_for_end(within=PATIENCE_SECONDS)
    assert process.stop() == 3
    lines = "\n".join(process.lines)
    assert "worker-1 cannot run as configured" in lines
    assert "far@1 is for another GPU class or region" in lines
    assert local.left_files() == []


def test_a_taken_port_that_was_asked_for_is_an_error(local):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, _, errors = local.run("up", "--port", port)
        assert (status, errors.count("\n")) == (5, 1)
        assert "choose another port with --port" in errors
        assert local.run("up", TETHER_GATEWAY__PORT=port)[0] == 5
    assert local.left_files() == []


def test_an_older_database_is_copied_and_brought_up(local):
    local.folder.mkdir(mode=0o700)
    url = f"sqlite:///{local.folder}/tether.db"
    upgrade(url)
    downgrade(url, "0001")
    process = local.up()
    (copy,) = (local.folder / "backups").glob("tether-0001-*.db")
    assert f"It is upgraded to {HEAD}; a backup is in {copy}" in "\n".join(process.lines)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert process.stop() == 0


def test_a_database_of_a_newer_version_is_left_alone(local):
    local.folder.mkdir(mode=0o700)
    upgrade(f"sqlite:///{local.folder}/tether.db")
    with sqlite3.connect(local.folder / "tether.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    status, _, errors = local.run("up")
    assert (status, errors.count("\n")) == (1, 1)
    assert "version 9999, which this version of Tether does not know" in errors


def test_a_folder_with_a_long_path_works_and_its_socket_is_elsewhere(tmp_path):
    local = LocalTether(tmp_path / ("long " * 12).strip() / ("folder" * 8), XDG_RUNTIME_DIR=str(tmp_path))
    local.home.mkdir(parents=True)
    try:
        process = local.up()
        assert local.run("submit", "x", "--model", "counter")[0] == 0
        assert local.run("doctor", "--json")[1].count('"redis"') == 1
        assert process.stop() == 0
        assert list(tmp_path.glob("tether-*")) == []
    finally:
        local.close()


def test_a_nearly_full_disk_is_one_clear_line(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "none", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        local = LocalTether(place)
        status, _, errors = local.run("up")
        assert (status, errors.count("\n")) == (74, 1)
        assert "MB are free" in errors
        status, text, _ = local.run("doctor")
        assert (status, "FAIL  disk" in text) == (1, True)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_settings_file_with_another_redis_is_obeyed(local, shared_redis_server):
    process = local.up(TETHER_REDIS__URL=shared_redis_server.url, TETHER_REDIS__NAMESPACE="test-up")
    assert set(local.parts()) == {"gateway", "worker-1"}
    assert local.run("submit", "x", "--model", "counter")[0] == 0
    assert process.stop() == 0
