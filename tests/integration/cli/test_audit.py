"""`tether audit`: what verbs changed by themselves in the database."""

import getpass
import json
import socket

import pytest
from click.testing import CliRunner
from nacl.signing import SigningKey
from sqlalchemy import text

from tether.discovery.announcements.presence import worker_id
from tether.store import Store
from tether_cli.main import main


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
    return run_one


def entries(run, *words):
    return json.loads(run("audit", "--json", *words).stdout)["data"]


def test_each_act_of_a_verb_stands_in_the_log_without_its_secrets(run):
    pub_key = SigningKey.generate().verify_key.encode().hex()
    key = json.loads(run("keys", "create", "--name", "nightly", "--json").stdout)
    run("keys", "revoke", key["key_id"])
    run("tenants", "create", "research", "--quota", "5")
    run("tenants", "create", "research", status=2)
    run("tenants", "set", "research", "--quota", "none")
    run("fleet", "trust", pub_key, "--name", "box")
    run("fleet", "revoke", "box")
    run("fleet", "trust", pub_key, status=2)
    run("fleet", "trust", "--again", pub_key)
    found = entries(run)
    worker = worker_id(pub_key)
    assert [(entry["action"], entry["target"], entry["result"]) for entry in reversed(found)] == [
        ("keys.create", key["key_id"], "ok"),
        ("keys.revoke", key["key_id"], "ok"),
        ("tenants.create", "research", "ok"),
        ("tenants.create", "research", "request_invalid"),
        ("tenants.set", "research", "ok"),
        ("fleet.trust", worker, "ok"),
        ("fleet.revoke", worker, "ok"),
        ("fleet.trust", worker, "request_invalid"),
        ("fleet.trust", worker, "ok"),
    ]
    assert {(entry["actor"], entry["address"]) for entry in found} == {
        (f"cli:{getpass.getuser()}", socket.gethostname())
    }
    assert found[-1]["details"] == {"name": "nightly", "scopes": ["read", "submit"]}
    assert found[-1]["tenant_id"] == "default"
    assert key["key"] not in json.dumps(found)


def test_it_is_shown_filtered_and_by_pages(run):
    for name in ("one", "two", "three"):
        run("tenants", "create", name)
    run("keys", "create")
    assert [entry["target"] for entry in entries(run, "--action", "tenants")] == ["three", "two", "one"]
    assert [entry["target"] for entry in entries(run, "--tenant", "two")] == ["two"]
    page = json.loads(run("audit", "--json", "--action", "tenants", "--limit", "2").stdout)
    following = entries(run, "--action", "tenants", "--cursor", page["next_cursor"])
    assert [entry["target"] for entry in page["data"] + following] == ["three", "two", "one"]
    shown = run("audit", "--action", "tenants", "--limit", "1").stdout
    assert "tenants.create\tthree\tthree\tok" in shown
    for words in (("--limit", "0"), ("--cursor", "x"), ("--tenant", "none")):
        assert run("audit", *words, status=2).stderr.count("\n") == 1


def test_what_cannot_be_noted_is_not_done(run):
    run("tenants", "list")
    with Store(run.url) as store:
        store.write_alone(lambda connection: connection.execute(text("DROP TABLE audit_log"))).result()
    assert run("tenants", "create", "lost", status=1).stderr.startswith("tether: ")
    assert "lost" not in run("tenants", "list").stdout


def test_an_act_that_there_is_not_is_refused_with_those_that_there_are(run):
    told = run("audit", "--action", "nope", status=2).stderr
    assert told.startswith(
        "tether: action='nope' is not in any audit log: use one of breakers.reset, dead_letters.purge, "
    )
    assert run("audit", "--action", "fleet.cordon").exit_code == 0
