"""What verbs do while a part of Tether is away, or says nothing: the rows of the guide's table."""

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether
from tether.core.control_plane import ControlPlane
from tether.errors import GatewayUnavailable, ResultTimeout
from tether.orchestrator.orchestrator import Orchestrator
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

VERBS = {
    "submit": ("submit", "x", "--timeout", "3s"),
    "no_wait": ("submit", "--no-wait", "x"),
    "list": ("jobs", "list"),
    "status": ("status",),
}
WORKS, NOT_NOW = 0, 4


class Verbs:
    """Runs verbs against the gateway of a cluster."""

    def __init__(self, gateway, folder):
        self.gateway = gateway
        self.environ = {
            "TETHER_URL": gateway.url,
            "TETHER_API_KEY": gateway.key,
            "TETHER_DIR": str(folder),
        }

    def run(self, *arguments):
        surroundings = CommandEnvironment(find_running=lambda: None)
        ran = CliRunner(env=self.environ).invoke(main, arguments, obj=surroundings)
        return ran.exit_code, ran.output

    def are(self, **wanted):
        found = {name: self.run(*VERBS[name]) for name in wanted}
        assert {name: status for name, (status, _) in found.items()} == wanted, found
        return {name: output for name, (_, output) in found.items()}

    def process(self, *arguments):
        """The exit status, standard output, and the lines of standard error of a process of its own."""
        ran = subprocess.run(
            [sys.executable, "-m", "tether_cli", *arguments],
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr.splitlines()

    def client(self, **options):
        return Tether(self.gateway.url, self.gateway.key, **options)


@contextlib.contextmanager
def hanging(pid):
    """A process and all of its children say nothing."""
    stopped = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    try:
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


def test_verbs_while_something_is_away(tmp_path):
    with Cluster() as cluster:
        cluster.orchestrator()
        gateway = cluster.start_gateway()
        verbs = Verbs(gateway, tmp_path)

        # Every worker of the model.
        said = verbs.are(submit=NOT_NOW, no_wait=WORKS, list=WORKS, status=WORKS)
        assert "waits: no worker serves model 'counter' now" in said["submit"]
        assert "continues" in said["submit"]
        assert "no worker takes jobs: jobs wait. start one with `tether worker`" in said["status"]
        assert said["list"].count("parked") == 2

        cluster.server.close()
        eventually(
            lambda: "redis    unavailable" in verbs.run("status")[1],
            PATIENCE_SECONDS,
            "Redis is known to be away",
        )
        said = verbs.are(no_wait=WORKS, list=WORKS, status=WORKS)
        assert said["list"].count("counter") == 3
        assert "workers are not heard of while Redis is away" in said["status"]

        gateway.stop()
        said = verbs.are(submit=NOT_NOW, status=NOT_NOW)
        assert "not serving" in said["status"]


def test_verbs_while_the_orchestrator_is_away(tmp_path):
    with Cluster() as cluster:
        verbs = Verbs(cluster.start_gateway(), tmp_path)
        with ControlPlane(cluster.settings) as plane, Orchestrator(plane):
            cluster.start_worker()
            assert verbs.run("submit", "x")[0] == WORKS
        said = verbs.are(submit=WORKS, no_wait=WORKS, list=WORKS, status=WORKS)
        assert "succeeded" in said["list"]
        # What is not to run at once waits for it.
        status, said = verbs.run("submit", "--delay", "100ms", "x", "--timeout", "1s")
        assert (status, "continues" in said) == (NOT_NOW, True)
        delayed = next(verbs.client().jobs())
        assert delayed.state == "parked"
        cluster.orchestrator()
        assert verbs.run("jobs", "watch", delayed.job_id)[0] == WORKS


def test_verbs_and_calls_end_in_time_while_redis_says_nothing(tmp_path):
    with Cluster() as cluster:
        cluster.orchestrator()
        verbs = Verbs(cluster.start_gateway(), tmp_path)
        waiting = verbs.client().submit("counter", "x")
        with hanging(cluster.server.pid), verbs.client(patience=1) as client:
            eventually(
                lambda: "redis    unavailable" in verbs.run("status")[1],
                PATIENCE_SECONDS,
                "Redis is known to be away",
            )
            status, output, errors = verbs.process("jobs", "watch", waiting.job_id, "--timeout", "8s")
            assert (status, output) == (NOT_NOW, "")
            assert errors[0].endswith(
                "waits: the gateway's Redis does not respond; the job is kept, and goes on, once it does"
            )
            assert errors[-1].endswith("has not finished within 8 s; it continues")
            status, output, errors = verbs.process("submit", "x", "--timeout", "8s")
            assert (status, output) == (NOT_NOW, "")
            assert "Redis" in errors[0]
            assert errors[-1].startswith("tether: ")
            assert verbs.process("jobs", "show", waiting.job_id)[0] == WORKS
            verbs.environ |= {
                "TETHER_REDIS__URL": cluster.server.url,
                "TETHER_DATABASE__URL": cluster.settings.database.url,
            }
            for words in (("fleet", "list", "--timeout", "1s"), ("admin", "fsck")):
                status, output, errors = verbs.process(*words)
                assert (status, output) == (NOT_NOW, ""), errors
                assert errors[-1].startswith("tether: Redis at ")
            with pytest.raises(ResultTimeout):
                waiting.result(timeout=0.1)
            with pytest.raises(ResultTimeout):
                list(client.job(waiting.job_id).stream(timeout=0.1))
            assert waiting.job_id in [job.job_id for job in client.jobs()]
            assert client.job(waiting.job_id).status().job_id == waiting.job_id


def test_verbs_and_calls_end_in_time_while_the_gateway_says_nothing(tmp_path):
    with Cluster() as cluster:
        verbs = Verbs(cluster.start_gateway(), tmp_path)
        job = verbs.client().submit("counter", "x")
        with hanging(verbs.gateway.pid), verbs.client(patience=0.1) as client:
            for arguments in (
                ("submit", "x", "--timeout", "1s"),
                ("submit", "x", "--timeout", "1s", "--json"),
                ("jobs", "watch", job.job_id, "--timeout", "1s"),
            ):
                status, output, errors = verbs.process(*arguments)
                assert (status, output) == (NOT_NOW, "")
                assert "did not respond in time" in errors[-1]
            with pytest.raises(GatewayUnavailable):
                client.submit("counter", "x")
            with pytest.raises(GatewayUnavailable):
                client.job(job.job_id).status()
            with pytest.raises(ResultTimeout):
                client.job(job.job_id).result(timeout=0.1)


@pytest.mark.parametrize(
    "away",
    [
        "the gateway, or it says nothing",
        "Redis",
        "every worker of the model",
        "every orchestrator, run apart",
    ],
)
def test_the_guide_has_a_row_for_each(away):
    assert f"\n| {away} | " in (ROOT / "docs" / "guide" / "cli.md").read_text()
