"""What verbs do while the worker, Redis or the gateway is away: the rows of the guide's table."""

import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

VERBS = {
    "submit": ("submit", "x", "--timeout", "3s"),
    "no_wait": ("submit", "--no-wait", "x"),
    "list": ("jobs", "list"),
    "status": ("status",),
}
WORKS, NOT_NOW = 0, 4


def test_verbs_while_something_is_away(tmp_path):
    with Cluster() as cluster:
        cluster.orchestrator()
        gateway = cluster.start_gateway()
        environ = {"TETHER_URL": gateway.url, "TETHER_API_KEY": gateway.key, "TETHER_DIR": str(tmp_path)}

        def run(verb):
            surroundings = CommandEnvironment(find_running=lambda: None)
            ran = CliRunner(env=environ).invoke(main, VERBS[verb], obj=surroundings)
            return ran.exit_code, ran.output

        def are(**wanted):
            found = {name: run(name) for name in wanted}
            assert {name: status for name, (status, _) in found.items()} == wanted, found
            return {name: output for name, (_, output) in found.items()}

        # Every worker of the model.
        said = are(submit=NOT_NOW, no_wait=WORKS, list=WORKS, status=WORKS)
        assert "waits: no worker serves model 'counter' now" in said["submit"]
        assert "continues" in said["submit"]
        assert "no worker takes jobs: jobs wait. start one with `tether worker`" in said["status"]
        assert said["list"].count("parked") == 2

        cluster.server.close()
        eventually(
            lambda: "redis    unavailable" in run("status")[1], PATIENCE_SECONDS, "Redis is known to be away"
        )
        said = are(no_wait=WORKS, list=WORKS, status=WORKS)
        assert said["list"].count("counter") == 3
        assert "workers are not heard of while Redis is away" in said["status"]

        gateway.stop()
        said = are(submit=NOT_NOW, status=NOT_NOW)
        assert "not serving" in said["status"]


@pytest.mark.parametrize("away", ["the gateway", "Redis", "every worker of the model"])
def test_the_guide_has_a_row_for_each(away):
    assert f"\n| {away} | " in (ROOT / "docs" / "guide" / "cli.md").read_text()
