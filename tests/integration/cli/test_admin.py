"""`tether admin` on a Tether of its own."""

import json
import logging

import pytest
from click.testing import CliRunner

from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from tether.orchestrator.fsck.invariants import INVARIANTS, Invariant
from tether.store import Store
from tether.store.audit_pages import audit_page
from tether.store.epoch import epoch
from tether_cli.main import main


@pytest.fixture(autouse=True)
def logs_as_they_were():
    """The verbs configure logs for a process of their own."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)


@pytest.fixture
def cluster():
    with Cluster(models={"counter": (0, 8), "slow": (20, 200), "slowest": (1, 4_000)}) as opened:
        yield opened


def run(cluster, *words, status=0):
    environ = {
        "TETHER_DATABASE__URL": cluster.settings.database.url,
        "TETHER_REDIS__URL": cluster.server.url,
    }
    result = CliRunner(env=environ).invoke(main, ["admin", *words], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


def document(cluster, *words, status=0):
    return json.loads(run(cluster, *words, "--json", status=status).stdout)


def actions(cluster):
    with Store(cluster.settings.database.url) as store:
        everything = dict.fromkeys(("before", "actor", "action", "target", "tenant_id"))
        page = store.read(audit_page, limit=50, **everything)
    return [(entry.action, entry.result) for entry in page.entries]


def test_what_is_wrong_is_told_and_mended_by_reconciling(cluster):
    with cluster.orchestrator():
        eventually(lambda: cluster.redis.get(cluster.keys.epoch), PATIENCE_SECONDS, "the first epoch")
    cluster.start_worker(threads=1)
    client = cluster.client()
    eventually(lambda: client.models()[0].workers, PATIENCE_SECONDS, "somebody serves it")
    # Only one of them runs, until the test is over.
    job_id = [client.submit("slowest", "x").job_id for _ in range(2)][-1]
    eventually(lambda: cluster.redis.zcard(cluster.keys.leases), PATIENCE_SECONDS, "the first one runs")
    assert run(cluster, "fsck", "--wait", "0.1s").stderr.endswith("none wrong.\n")
    cluster.redis.delete(cluster.keys.job(job_id))
    told = run(cluster, "fsck", "--wait", "0.1s", status=1)
    assert told.stdout.startswith(f"job-lost (1): {INVARIANTS[Invariant.JOB_LOST].wrong}\n  {job_id}: ")
    found = document(cluster, "fsck", "--wait", "0.1s", status=1)
    assert (found["object"], found["is_sound"]) == ("fsck", False)
    assert [(each["check"], each["subject"]) for each in found["findings"]] == [("job-lost", job_id)]
    assert document(cluster, "reconcile") == {"object": "reconcile", "jobs": 2}
    assert document(cluster, "fsck", "--wait", "0.1s")["is_sound"]
    assert actions(cluster)[0][0] == "admin.reconcile"


def test_a_rebuild_asks_and_is_done_by_the_orchestrator_while_jobs_go_on(cluster):
    assert "say --yes" in run(cluster, "rebuild", status=2).stderr
    cluster.orchestrator()
    cluster.start_worker()
    client = cluster.client()
    handle = client.submit("slow", "x")
    eventually(lambda: handle.status().offset > 3, PATIENCE_SECONDS, "it runs")
    before = int(cluster.redis.get(cluster.keys.epoch))
    report = document(cluster, "rebuild", "--yes")
    assert (report["object"], report["by_orchestrator"], report["jobs"]) == ("rebuild", True, 1)
    assert report["epoch"] > before
    assert len(handle.result(PATIENCE_SECONDS).token_ids) == 200
    history = handle.history()
    numbers = [each.dispatch for each in history.attempts]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] > 1
    # Whichever came first: the withdrawal of the former dispatch, or the new one.
    assert history.attempts[0].cause in ("superseded", "withdrawn")


def test_without_an_orchestrator_a_rebuild_is_done_by_the_command(cluster):
    with Store(cluster.settings.database.url) as store:
        report = document(cluster, "rebuild", "--yes")
        assert (report["by_orchestrator"], report["jobs"]) == (False, 0)
        assert int(cluster.redis.get(cluster.keys.epoch)) == store.read(epoch) == report["epoch"]
        told = run(cluster, "rebuild", "--yes")
        assert told.stdout == f"Began epoch {store.read(epoch)}. Jobs in Redis that are placed anew: 0.\n"
        assert told.stderr == "No orchestrator runs: they are placed once one does.\n"
