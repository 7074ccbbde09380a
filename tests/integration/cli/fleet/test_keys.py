"""`tether fleet trust`, `revoke` and `keys`, and where verbs on the database find it."""

import json
import os

import pytest
import redis
from click.testing import CliRunner
from nacl.signing import SigningKey

from support.presences import KEY, OTHER_KEY, public
from tether.broker.keys import Keys
from tether.discovery.announcements.presence import worker_id
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.local.part_states import Stack
from tether.local.running import Running
from tether.local.state_folder import StateFolder
from tether.store import Store
from tether.store.api_keys import keys_of
from tether.store.fleet_keys import all_fleet_keys, current_trust
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

ONE, TWO = public(KEY), public(OTHER_KEY)
SEED = KEY.encode().hex()
NOWHERE = "redis://127.0.0.1:1/0"


class Cli:
    def __init__(self, environ, running=None):
        self._runner = CliRunner(env={"TETHER_DIR": None, **environ})
        self.surroundings = CommandEnvironment(find_running=lambda: running)

    def run(self, *words):
        return self._runner.invoke(main, words, catch_exceptions=False, obj=self.surroundings)

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
def cli(database_url, namespace, shared_redis_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = Cli(
        {
            "TETHER_DATABASE__URL": database_url,
            "TETHER_REDIS__URL": shared_redis_server.url,
            "TETHER_REDIS__NAMESPACE": namespace,
            "TETHER_PRESENCE__IDENTITY_DIR": str(tmp_path / "identity"),
        }
    )
    opened.identity = tmp_path / "identity"
    opened.identity.mkdir()
    opened.namespace = namespace
    return opened


def test_a_key_is_trusted_by_itself_or_by_its_file_and_listed(cli, tmp_path):
    file = tmp_path / "worker-9.pub"
    file.write_text(f"{TWO}\n")
    result = cli.ok("fleet", "trust", ONE.upper(), "--name", "big box")
    assert result.stdout == ""
    assert (
        f"Worker {worker_id(ONE)} (big box) is trusted. This takes effect within 2 seconds." in result.stderr
    )
    cli.ok("fleet", "trust", str(file))
    listed = cli.json("fleet", "keys")
    assert listed["object"] == "list"
    assert [(key["pub_key"], key["worker_id"], key["name"], key["revoked_at"]) for key in listed["data"]] == [
        (ONE, worker_id(ONE), "big box", None),
        (TWO, worker_id(TWO), "", None),
    ]
    lines = [line.split("\t") for line in cli.ok("fleet", "keys").stdout.splitlines()]
    assert lines[0] == ["worker", "name", "key", "added", "revoked"]
    assert [line[:3] for line in lines[1:]] == [[worker_id(ONE), "big box", ONE], [worker_id(TWO), "-", TWO]]


def test_a_revoked_key_is_listed_only_among_all_and_trusted_again_only_where_that_is_meant(cli):
    cli.ok("fleet", "trust", ONE, "--name", "one")
    said = cli.ok("fleet", "revoke", worker_id(ONE)).stderr
    assert f"Worker {worker_id(ONE)} (one) was revoked at 2" in said
    assert "not known here" not in said
    assert cli.json("fleet", "keys")["data"] == []
    (revoked,) = cli.json("fleet", "keys", "--all")["data"]
    assert cli.json("fleet", "revoke", ONE) == revoked
    said, status = cli.fails("fleet", "trust", ONE)
    assert ("--again" in said, "was revoked at 2" in said, status) == (True, True, 2)
    assert cli.json("fleet", "trust", ONE, "--again")["revoked_at"] is None
    assert len(cli.json("fleet", "keys")["data"]) == 1


def test_redis_is_told_at_once(cli, shared_redis_server, database_url):
    cli.ok("fleet", "trust", ONE, "--name", "one")
    cli.ok("fleet", "revoke", TWO)
    with redis.Redis.from_url(shared_redis_server.url) as client, Store(database_url) as store:
        assert RedisEnrolment(client, Keys(cli.namespace)).look() == store.read(current_trust)


def test_where_redis_is_away_the_database_is_written_all_the_same(database_url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli = Cli({"TETHER_DATABASE__URL": database_url, "TETHER_REDIS__URL": NOWHERE})
    assert "Redis is unavailable" in cli.ok("fleet", "trust", ONE).stderr
    assert len(cli.json("fleet", "keys")["data"]) == 1


def test_a_worker_is_meant_by_id_life_name_key_or_file(cli):
    (cli.identity / "worker-1.pub").write_text(ONE)
    named = [worker_id(ONE), f"{worker_id(ONE)}.12", "worker-1", ONE, str(cli.identity / "worker-1.pub")]
    for words in named:
        assert cli.json("fleet", "revoke", words)["pub_key"] == ONE


def test_a_key_that_only_the_configuration_names_can_be_revoked(cli):
    cli._runner.env["TETHER_PRESENCE__TRUSTED_KEYS"] = TWO
    assert cli.json("fleet", "revoke", worker_id(TWO))["pub_key"] == TWO


def test_a_key_that_nobody_knows_is_revoked_and_that_is_said(cli):
    assert "It was never enrolled here" in cli.ok("fleet", "revoke", ONE).stderr


def test_who_is_not_known_is_said_with_what_was_meant(cli):
    cli.ok("fleet", "trust", ONE, "--name", "big-box")
    cases = [
        (worker_id(ONE)[:-1] + ("0" if worker_id(ONE)[-1] != "0" else "1"), worker_id(ONE)),
        ("bigbox", "big-box"),
        (ONE[:-2] + ("00" if ONE[-2:] != "00" else "11"), ONE),
    ]
    for words, meant in cases:
        said, status = cli.fails("fleet", "revoke", words)
        assert (f"did you mean {meant}?" in said, status) == (True, 2), words
    said, status = cli.fails("fleet", "revoke", "x" * 16)
    assert ("there is no worker 'xxxxxxxxxxxxxxxx'" in said, status) == (True, 2)
    assert cli.json("fleet", "keys")["data"][0]["revoked_at"] is None


def test_a_name_that_several_have_is_no_ones(cli):
    for key in (ONE, TWO):
        cli.ok("fleet", "trust", key, "--name", "worker-1")
    said, status = cli.fails("fleet", "revoke", "worker-1")
    assert (worker_id(ONE) in said, worker_id(TWO) in said, status) == (True, True, 2)


def test_a_private_key_is_refused_and_never_repeated(cli, tmp_path):
    file = tmp_path / "worker-1.key"
    file.write_text(SEED)
    (cli.identity / "worker-1.pub").write_text(ONE)
    disguised = tmp_path / "worker-1.pub"
    disguised.write_text(SEED)
    for verb in ("trust", "revoke"):
        for words in (str(file), SEED, SEED[:-1], f" {SEED}", str(disguised)):
            said, status = cli.fails("fleet", verb, words)
            assert (SEED[:20] in said, status) == (False, 2), words
    assert cli.json("fleet", "keys", "--all")["data"] == []


def test_most_private_keys_are_known_as_such_without_their_public_ones(cli):
    seeds = [SigningKey(bytes([number]) * 32).encode().hex() for number in range(1, 21)]
    refused = [cli.run("fleet", "trust", seed).exit_code for seed in seeds]
    assert refused.count(2) > 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("trust", "nonsense"), "not a public key"),
        (("trust", "gone.pub"), "'gone.pub' cannot be read"),
        (("trust", "operator.pub"), "the operator's key"),
        (("trust", ONE, "--name", "a\nb"), "printable"),
        (("trust", ONE, "--name", "a" * 101), "printable"),
    ],
)
def test_what_cannot_be_trusted_is_said_in_one_line(cli, words, says):
    said, status = cli.fails("fleet", *words)
    assert (says in said, status) == (True, 2)
    assert cli.json("fleet", "keys")["data"] == []


@pytest.fixture
def running(tmp_path, monkeypatch):
    """What a `tether up` of this machine looks like from outside."""
    monkeypatch.chdir(tmp_path)
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    return Running(folder, os.getpid(), Stack(os.getpid(), "http://127.0.0.1:1", ()))


def test_the_database_is_that_of_a_tether_up_here_where_the_settings_name_none(running):
    cli = Cli({}, running)
    key = cli.json("keys", "create", "--name", "mine")
    cli.ok("fleet", "trust", ONE)
    with Store(f"sqlite:///{running.folder.database}") as store:
        assert [kept.key_id for kept in store.read(keys_of, None)] == [key["key_id"]]
        assert [kept.pub_key for kept in store.read(all_fleet_keys)] == [ONE]


def test_the_identity_folder_is_that_of_a_tether_up_here(running):
    (running.folder.identity / "worker-1.pub").write_text(ONE)
    assert Cli({}, running).json("fleet", "revoke", "worker-1")["pub_key"] == ONE


def test_a_database_that_the_settings_name_comes_before_that_of_a_tether_up(running, tmp_path):
    cli = Cli({"TETHER_DATABASE__URL": f"sqlite:///{tmp_path}/named.db"}, running)
    cli.ok("fleet", "trust", ONE)
    assert (tmp_path / "named.db").exists()
    assert not running.folder.database.exists()
