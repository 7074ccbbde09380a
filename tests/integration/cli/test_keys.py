"""`tether keys` and `tether tenants`, on a database of their own."""

import io
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from sqlalchemy import delete

from tether.gateway.keys.api_keys import Scope, is_key
from tether.gateway.keys.key_ring import KeyRing
from tether.store import Store
from tether.store.api_keys import keys_of, revoke_key
from tether.store.schema import api_keys
from tether_cli.main import main
from tether_cli.terminal import tables


class Cli:
    def __init__(self, url):
        self.url = url
        self._runner = CliRunner(env={"TETHER_DATABASE__URL": url})

    def run(self, *words):
        return self._runner.invoke(main, words, catch_exceptions=False)

    def ok(self, *words):
        result = self.run(*words)
        assert result.exit_code == 0, result.stderr
        return result

    def json(self, *words):
        return json.loads(self.ok(*words, "--json").stdout)

    def fails(self, *words):
        """What is said, in one line, and the exit status."""
        result = self.run(*words)
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        return result.stderr, result.exit_code


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Cli(f"sqlite:///{tmp_path}/data/tether.db")


def test_a_new_key_stands_alone_on_standard_output_and_opens_the_gate(cli):
    result = cli.ok("keys", "create")
    key = result.stdout.removesuffix("\n")
    assert is_key(key)
    assert key not in result.stderr
    assert "default" in result.stderr
    assert "read, submit" in result.stderr
    with Store(cli.url) as store:
        caller = KeyRing(store).caller(f"Bearer {key}")
        [kept] = store.read(keys_of, None)
    assert caller.scopes == {Scope.SUBMIT, Scope.READ}
    assert kept.key_id in result.stderr
    assert kept.created_at > 1_700_000_000_000


def test_a_key_is_made_for_a_tenant_with_scopes_and_a_name(cli):
    cli.ok("tenants", "create", "team-a")
    made = cli.json("keys", "create", "--tenant", "team-a", "--scope", "admin", "--name", "for Ä")
    assert is_key(made.pop("key"))
    assert (made["tenant_id"], made["scopes"], made["name"]) == ("team-a", ["admin"], "for Ä")
    assert cli.json("keys", "list", "--tenant", "team-a") == {"object": "list", "data": [made]}
    assert cli.json("keys", "list", "--tenant", "default")["data"] == []


def test_a_list_without_keys_says_in_which_database_there_are_none(cli):
    told = cli.ok("keys", "list").stderr
    assert told.startswith("No API keys in ")
    assert "--all" not in told
    cli.ok("keys", "revoke", cli.json("keys", "create")["key_id"])
    assert "--all" in cli.ok("keys", "list").stderr
    assert cli.ok("keys", "list", "--all").stderr == ""


def test_a_revoked_key_is_listed_only_among_all(cli):
    first, second = (cli.json("keys", "create", "--name", name) for name in ("one", "two"))
    result = cli.ok("keys", "revoke", first["key_id"])
    assert result.stdout == ""
    assert "revoked at 2" in result.stderr
    again = cli.json("keys", "revoke", first["key_id"])
    assert again["revoked_at"] is not None
    assert [key["key_id"] for key in cli.json("keys", "list")["data"]] == [second["key_id"]]
    assert again in cli.json("keys", "list", "--all")["data"]
    lines = [line.split("\t") for line in cli.ok("keys", "list", "--all").stdout.splitlines()]
    assert lines[0] == ["key_id", "tenant", "name", "scopes", "prefix", "created", "revoked"]
    assert [line[2] for line in lines[1:]] == ["one", "two"]
    assert [line[6] == "-" for line in lines[1:]] == [False, True]
    assert lines[1][3:5] == ["read,submit", first["prefix"]]


def test_a_key_that_is_forgotten_while_it_is_revoked_is_unknown(cli, monkeypatch):
    """As where an admin's gateway makes room for new keys meanwhile."""
    made = cli.json("keys", "create")["key_id"]

    def revoke(connection, key_id, *arguments):
        connection.execute(delete(api_keys).where(api_keys.c.key_id == key_id))
        return revoke_key(connection, key_id, *arguments)

    monkeypatch.setattr("tether.store.api_keys.revoke_key", revoke)
    assert "there is no API key with this id" in cli.fails("keys", "revoke", made)[0]
    assert cli.json("audit", "--action", "keys.revoke")["data"][0]["result"] == "key_unknown"


def test_no_listing_and_no_message_has_a_key(cli):
    made = cli.json("keys", "create")
    key = made["key"]
    shown = [
        cli.run(*words)
        for words in (
            ("keys", "list", "--all"),
            ("keys", "list", "--json"),
            *(("keys", "revoke", wrong) for wrong in (key, f" {key}", f"Bearer {key}", f"x{key}", key[1:])),
            ("keys", "revoke", made["key_id"]),
            ("keys", "revoke", made["key_id"], "--json"),
            ("tenants", "list"),
        )
    ]
    assert all(key[8:] not in result.output + result.stderr for result in shown)
    assert [result.exit_code for result in shown] == [0, 0, 2, 2, 2, 2, 2, 0, 0, 0]
    with open(cli.url.removeprefix("sqlite:///"), "rb") as file:
        assert key.encode() not in file.read()


def test_what_is_not_known_is_said_in_one_line_with_what_was_meant(cli):
    made = cli.json("keys", "create")
    cli.ok("tenants", "create", "research")
    said, status = cli.fails("keys", "create", "--tenant", "reserch")
    assert ("did you mean research?" in said, status) == (True, 2)
    assert cli.fails("keys", "list", "--tenant", "x") == (
        "tether: there is no tenant 'x'; create it with `tether tenants create`\n",
        2,
    )
    said, status = cli.fails("keys", "revoke", made["key_id"][:-1])
    assert (f"did you mean {made['key_id']}?" in said, status) == (True, 2)
    said, status = cli.fails("keys", "create", "--scope", "reed")
    assert ("did you mean read?" in said, status) == (True, 2)
    said, status = cli.fails("keys", "create", "--name", "a\nb")
    assert ("printable" in said, status) == (True, 2)
    assert len(cli.json("keys", "list")["data"]) == 1


def test_tenants_are_created_listed_and_changed(cli):
    made = cli.json("tenants", "create", "team-a", "--name", "Team A", "--weight", "2.5", "--quota", "10")
    assert (made["name"], made["weight"], made["quota"]) == ("Team A", 2.5, 10)
    plain = cli.json("tenants", "create", "team-b")
    assert (plain["name"], plain["weight"], plain["quota"]) == ("team-b", 1.0, None)
    changed = cli.json("tenants", "set", "team-a", "--quota", "none")
    assert changed == {**made, "quota": None}
    assert "team-a was changed" in cli.ok("tenants", "set", "team-a", "--weight", "3").stderr
    listed = cli.json("tenants", "list")["data"]
    assert [tenant["tenant_id"] for tenant in listed] == ["default", "team-a", "team-b"]
    assert listed[1] == {**changed, "weight": 3.0}
    lines = cli.ok("tenants", "list").stdout.splitlines()
    assert lines[0] == "id\tname\tweight\tquota\tcreated"
    assert lines[1] == "default\tdefault\t1\tnone\t-"
    assert lines[2].startswith("team-a\tTeam A\t3\tnone\t2")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "Team"), "cannot be a tenant's id"),
        (("create", "default"), "already"),
        (("create", "a", "--weight", "0"), "weight"),
        (("create", "a", "--weight", "nan"), "weight"),
        (("create", "a", "--weight", "x"), "is not a number"),
        (("create", "a", "--quota", "-1"), "quota"),
        (("set", "default", "--quota", "many"), "neither"),
        (("set", "default"), "nothing to change"),
        (("set", "defalt", "--weight", "1"), "did you mean default?"),
    ],
)
def test_what_cannot_be_done_to_a_tenant_is_said_in_one_line(cli, words, says):
    said, status = cli.fails("tenants", *words)
    assert (says in said, status) == (True, 2)
    assert [tenant["tenant_id"] for tenant in cli.json("tenants", "list")["data"]] == ["default"]


def test_a_database_that_is_away_is_said_in_one_line():
    away = Cli("postgresql://u:hunter2@127.0.0.1:1/nothing")
    said, status = away.fails("keys", "create")
    assert ("not available" in said, "hunter2" in said, status) == (True, False, 4)


def test_on_a_terminal_a_name_is_shown_as_it_is_though_it_looks_like_markup(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    tables.print_table(("id", "name"), [("key_1", "[red]x[/red]")])
    assert "[red]x[/red]" in terminal.getvalue()
    assert "\t" not in terminal.getvalue()


def test_help_loads_neither_the_database_nor_tables():
    program = (
        "import sys; from tether_cli.keys import keys; from tether_cli.tenants import tenants\n"
        "heavy = {'sqlalchemy', 'pydantic', 'rich', 'alembic', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.stderr.strip(), ran.returncode) == ("", 0)
