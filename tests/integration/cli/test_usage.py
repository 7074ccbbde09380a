"""`tether tenants usage`."""

import json

import pytest
from click.testing import CliRunner

from support.databases import NOW, accept, new_job, outcome, settle_each
from tether.clocks import wall_clock_ms
from tether.spending import SpendingQuotas
from tether.store import Store
from tether.store.policies import set_policy
from tether_cli.main import main

QUOTAS = {"tokens_per_day": 500, "requests_per_month": 10}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command on a database of its own; answers the result."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/data/tether.db"
    runner = CliRunner(env={"TETHER_DATABASE__URL": url, "TETHER_REDIS__URL": "redis://127.0.0.1:1/0"})

    def run_one(*words, status=0):
        result = runner.invoke(main, words, catch_exceptions=False)
        assert result.exit_code == status, result.stderr
        return result

    run_one.url = url
    run_one("tenants", "create", "research")
    return run_one


def test_usage_is_told_by_tenant_day_and_model_and_what_is_left_of_quotas(run):
    now = wall_clock_ms()
    with Store(run.url) as store:
        store.write_alone(set_policy, "research", json.dumps({"quotas": QUOTAS}), "cli:test", now).result()
        quotas = SpendingQuotas(**QUOTAS)
        mine = [new_job(n, tenant_id="research", quotas=quotas, now_ms=now) for n in range(2)]
        accept(store, *mine, new_job(5))
        settle_each(store, outcome(0), now_ms=now)
        settle_each(store, outcome(5), now_ms=NOW)
    document = json.loads(run("tenants", "usage", "research", "--json").stdout)
    (row,) = document["data"]
    assert row["day"] == document["to"]
    assert (row["jobs"], row["input_tokens"], row["output_tokens"]) == (1, 5, 2)
    assert [(use["unit"], use["limit"], use["spent"], use["held"]) for use in document["quotas"]] == [
        ("tokens", 500, 7, 23),
        ("requests", 10, 1, 1),
    ]
    lines = run("tenants", "usage", "--from", "2027-01-15", "--to", "2027-01-15").stdout.splitlines()
    assert lines[1:] == ["default\t2027-01-15\tdemo\t1\t1\t5\t2"]
    assert run("tenants", "usage", "research").stdout.splitlines()[2:] == [
        "quota\tbegins\tlimit\tspent\theld",
        f"tokens per day\t{document['to']}\t500\t7\t23",
        f"requests per month\t{document['to'][:8]}01\t10\t1\t1",
    ]


def test_what_is_wrong_is_said(run):
    assert "no tenant" in run("tenants", "usage", "nobody", status=2).stderr
    assert "2026-12-31" in run("tenants", "usage", "--from", "soon", status=2).stderr
    with Store(run.url) as store:
        store.write_alone(set_policy, "research", '{"quotas": 3}', "cli:test", 1).result()
    assert "cannot be read" in run("tenants", "usage", "research", status=4).stderr
