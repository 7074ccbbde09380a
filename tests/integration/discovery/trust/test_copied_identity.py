"""An identity folder that was copied to a second host, with real worker processes."""

import json
import shutil

import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from tether.local.fleet_check import check_fleet
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

JOBS = 6


@pytest.fixture
def cluster():
    with Cluster(presence="interval = 500\nexpiry = 60000") as opened:
        opened.orchestrator()
        yield opened


def listed(cluster):
    runner = CliRunner(env={"TETHER_CONFIG": str(cluster.file)})
    surroundings = CommandEnvironment(find_running=lambda: None)
    result = runner.invoke(main, ["fleet", "list", "--json"], obj=surroundings)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def boots(cluster):
    return [int(one["boot_id"].partition(".")[2]) for one in listed(cluster)["data"]]


@pytest.mark.parametrize("copied_boots", [1, 0], ids=["higher", "equal"])
def test_one_of_two_hosts_with_one_key_serves_and_the_other_goes_on_when_it_is_gone(cluster, copied_boots):
    first = cluster.start_worker(threads=2)
    copy = cluster.folder / "copy"
    shutil.copytree(cluster.folder / "identity", copy, ignore=shutil.ignore_patterns("*.lock"))
    (copy / "worker-1.boot").write_text(f"{copied_boots}\n")
    cluster.environ["TETHER_PRESENCE__IDENTITY_DIR"] = str(copy)
    second = cluster.start_worker(threads=2)
    del cluster.environ["TETHER_PRESENCE__IDENTITY_DIR"]
    winner, loser = (second, first) if copied_boots else (first, second)
    loser.wait_for_line("another process uses the key of worker", within=PATIENCE_SECONDS)

    told = listed(cluster)
    assert [one["worker_id"] for one in told["data"]] == told["copied"]
    check = check_fleet(cluster.settings, None, {})
    assert (check.verdict, "several processes use the key of" in check.found) == ("warn", True)
    client = cluster.client()
    for job in [client.submit("counter", f"prompt {number}") for number in range(JOBS)]:
        job.result(timeout=PATIENCE_SECONDS)

    assert winner.stop() == 0
    before = 1 + copied_boots
    eventually(lambda: boots(cluster) == [before + 1], PATIENCE_SECONDS, "the other one counts again")
    for job in [client.submit("counter", f"later {number}") for number in range(JOBS)]:
        job.result(timeout=PATIENCE_SECONDS)
    eventually(lambda: listed(cluster)["data"][0]["state"] == "serving", PATIENCE_SECONDS, "it serves")
