"""`tether jobs` with an operator's API key: jobs of any tenant, and what is done to them in the audit log."""

import json

import pytest
from click.testing import CliRunner

from support.clients import OTHER_TENANT
from tether import Tether
from tether.client.gateways import open_operator
from tether.gateway.keys.api_keys import TENANT_SCOPES, Scope
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

ANY = "--all-tenants"


@pytest.fixture
def run(gateway):
    """Runs a verb with a key of these scopes."""

    def run_one(*words, status=0, scopes=(Scope.OPERATOR,)):
        environ = {"TETHER_URL": gateway.url, "TETHER_API_KEY": gateway.key("default", scopes)}
        ran = CliRunner(env=environ).invoke(main, words, obj=CommandEnvironment(find_running=lambda: None))
        assert ran.exit_code == status, ran.output
        return ran

    return run_one


@pytest.fixture
def theirs(gateway):
    """A waiting job of another tenant."""
    with Tether(gateway.url, gateway.key(OTHER_TENANT, TENANT_SCOPES)) as client:
        job = client.submit("counter", "one two", delay=3_600, labels={"of": "another"})
        yield job.job_id
        job.cancel()


def test_jobs_of_other_tenants_are_listed_and_shown_with_whose_they_are(run, theirs):
    for words in ((ANY,), ("--tenant", OTHER_TENANT)):
        listed = run("jobs", "list", *words, "--label", "of=another", "--state", "parked", "--limit", "1")
        title, row = listed.stdout.splitlines()
        assert title.split()[:3] == ["JOB", "TENANT", "STATE"]
        assert row.split()[:3] == [theirs, OTHER_TENANT, "parked"]
    assert run("jobs", "list", "--tenant", "default", "--label", "of=another", "--json").stdout == "[]\n"
    (listed,) = json.loads(run("jobs", "list", ANY, "--json", "--limit", "1").stdout)
    shown = json.loads(run("jobs", "show", theirs, ANY, "--json").stdout)
    assert (shown["job_id"], shown["tenant_id"]) == (theirs, OTHER_TENANT)
    assert (shown["history"]["state"], listed["tenant_id"]) == ("parked", OTHER_TENANT)
    assert f"tenant          {OTHER_TENANT}\n" in run("jobs", "show", theirs, ANY).stdout


def test_what_is_done_to_them_is_in_the_audit_log(run, theirs, gateway):
    unknown = "0" * 8 + theirs[8:]
    changed = run("jobs", "reprioritise", "--priority", "batch", theirs, unknown, ANY, status=2)
    assert changed.stdout == f"{theirs} batch: parked\n"
    assert run("jobs", "cancel", theirs, ANY).stdout == f"{theirs} cancelled\n"
    with Tether(gateway.url, gateway.key(OTHER_TENANT, TENANT_SCOPES)) as client:
        assert client.job(theirs).status().state == "cancelled"
    with open_operator(gateway.url, gateway.key("default", (Scope.OPERATOR,))) as operator:
        entries = operator.ask("GET", "audit", query={"target": theirs})
    done = [(one["action"], one["result"], one["tenant_id"]) for one in entries["data"]]
    assert done[0] == ("jobs.cancel", "ok", OTHER_TENANT)
    assert ("jobs.reprioritise", "ok", OTHER_TENANT) in done


def test_who_asks_as_no_operator_is_told_of_all_tenants(run, theirs):
    assert "with --all-tenants of `tether jobs`" in run("jobs", "show", theirs, status=6).stderr
    assert "and `tether dlq`" in run("dlq", "list", status=6).stderr
    own = run("dlq", "list", scopes=(Scope.OPERATOR, Scope.READ))
    assert "an operator's key sees all tenants' with --all-tenants" in own.stderr
    refused = run("jobs", "show", theirs, ANY, status=6, scopes=TENANT_SCOPES)
    assert "lacks the scope 'operator'" in refused.stderr
    assert "tether dlq" not in refused.stderr
