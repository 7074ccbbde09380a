"""`tether fleet ... --url`: an operator's verbs through a gateway, from a machine that has nothing else."""

import contextlib
import json

import pytest
from click.testing import CliRunner

from support.gateways import RunningGateway
from support.presences import KEY, public
from support.waiting import PATIENCE_SECONDS, eventually
from tether.client.endpoint import Endpoint
from tether.client.http.operator import OperatorClient
from tether.client.http.patience import Pace
from tether.errors import GatewayUnavailable
from tether.gateway.keys.api_keys import Scope
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

NOWHERE = "redis://127.0.0.1:1/0"
VERBS = (
    *(["list"], ["show", "x"], ["watch"], ["drain", "x"], ["cordon", "x"], ["uncordon", "x"]),
    *(["trust", public(KEY)], ["revoke", "x"], ["keys"]),
)


class Remote:
    """A machine with an operator's key, and neither Redis nor a database."""

    def __init__(self, gateway, folder):
        self.url = gateway.url
        self.environ = {
            "TETHER_DIR": None,
            "TETHER_REDIS__URL": NOWHERE,
            "TETHER_DATABASE__URL": f"sqlite:///{folder}/none/tether.db",
            "TETHER_PRESENCE__IDENTITY_DIR": str(folder / "none"),
            "TETHER_API_KEY": gateway.key("default", (Scope.OPERATOR,)),
        }
        self.folder = folder

    def run(self, *words, url=True, **environ):
        runner = CliRunner(env={**self.environ, **environ})
        words = ["fleet", *words, *(["--url", self.url] if url else [])]
        surroundings = CommandEnvironment(find_running=lambda: None)
        return runner.invoke(main, words, catch_exceptions=False, obj=surroundings)

    def ok(self, *words):
        result = self.run(*words)
        assert result.exit_code == 0, result.stderr
        assert not list(self.folder.iterdir())
        return result

    def json(self, *words):
        # The worker is in this process, and logs to the same output.
        lines = self.ok(*words, "--json").stdout.splitlines()
        return json.loads("\n".join(line for line in lines if line[:1] in "{ }"))


@pytest.fixture
def remote(gateway, tmp_path):
    return Remote(gateway, tmp_path)


@pytest.fixture
def worker(service, remote):
    """The worker, once it has loaded a model: until then it would be shown as cold."""
    service.client(on_loop=False).submit()

    def serving():
        return [one for one in remote.json("list")["data"] if one["state"] == "serving"]

    return eventually(serving, PATIENCE_SECONDS, "the worker serves")[0]


def test_the_workers_are_listed_and_shown(remote, worker):
    lines = remote.ok("list").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["worker", worker["worker_id"]]
    whole = remote.json("show", worker["worker_id"], "--full")
    assert whole.items() >= {"worker_id": worker["worker_id"], "boot_id": worker["boot_id"]}.items()
    assert whole["pools"]
    shown = [line.split() for line in remote.ok("show", whole["pub_key"]).stdout.splitlines()]
    assert ["boot", "id", worker["boot_id"]] in shown
    result = remote.run("show", "nobody")
    assert (result.exit_code, "there is no worker 'nobody'" in result.stderr) == (2, True)


def test_a_worker_is_taken_out_of_service_and_back_and_what_waits_is_told_first(remote, worker):
    worker_id = worker["worker_id"]
    cordoned = remote.ok("cordon", worker_id)
    assert "Note: it is the last worker of pool " in cordoned.stderr
    assert "after the gateway's scheduling.lost_pool_parking" in cordoned.stderr
    assert f"Worker {worker_id}" in cordoned.stderr.splitlines()[-1]
    assert "is cordoned" in cordoned.stderr
    assert [one["state"] for one in remote.json("list")["data"]] == ["cordoned"]
    assert remote.json("drain", worker_id)["is_shown"] is True
    told = remote.json("uncordon", worker_id)
    assert (told["action"], told["is_shown"], told["last_of"]) == ("uncordon", True, [])
    assert [one["state"] for one in remote.json("list")["data"]] == ["serving"]
    assert remote.json("uncordon", worker_id, "--no-wait")["is_shown"] is False


def test_a_worker_that_does_not_obey_is_told_once_the_time_is_over(remote, worker):
    result = remote.run("cordon", worker["worker_id"], "--timeout", "1ms")
    assert (result.exit_code, "did not confirm the command within 0.001 s" in result.stderr) == (4, True)
    remote.ok("uncordon", worker["worker_id"])


@pytest.mark.parametrize(("words", "patience"), [(["--timeout", "2s"], 2), ([], None), (["--no-wait"], None)])
def test_calls_are_tried_again_for_no_longer_than_the_time_that_was_given(words, patience):
    opened = []

    def open_operator(url, api_key, *, within=None, patience=None):
        opened.append((within, patience))
        raise GatewayUnavailable("it is away")

    result = CliRunner(env={"TETHER_API_KEY": "tk_x"}).invoke(
        main,
        ["fleet", "drain", "x", "--url", "http://127.0.0.1:1", *words],
        obj=CommandEnvironment(open_operator=open_operator),
    )
    assert (result.exit_code, opened) == (4, [(None, patience)])


def test_keys_are_trusted_revoked_and_trusted_again(remote, tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "worker-1.pub"
    file.write_text(public(KEY))
    assert "is trusted" in remote.ok("trust", str(file), "--name", "big box").stderr
    (key,) = [one for one in remote.json("keys")["data"] if one["pub_key"] == public(KEY)]
    assert key["name"] == "big box"
    revoked = remote.ok("revoke", "big box").stderr
    assert f"Worker {key['worker_id']} (big box) was revoked at " in revoked
    assert "never enrolled" not in revoked
    assert public(KEY) not in remote.ok("keys").stdout
    assert public(KEY) in remote.ok("keys", "--all").stdout
    refused = remote.run("trust", str(file))
    assert (refused.exit_code, "again" in refused.stderr) == (2, True)
    remote.ok("trust", str(file), "--again")


@pytest.mark.parametrize("name", ["50% of a box?", "größe 盒 #1", "a&b=c+d;e\\f", "%2F", "drain"])
def test_a_worker_is_meant_by_whatever_name_it_may_have(remote, worker, name):
    pub_key = remote.json("show", worker["worker_id"])["pub_key"]
    remote.ok("trust", pub_key, "--name", name)

    def is_known():
        return [one["name"] for one in remote.json("list")["data"]] == [name]

    eventually(is_known, PATIENCE_SECONDS, "its name is known")
    assert remote.json("show", name)["worker_id"] == worker["worker_id"]
    for verb in ("cordon", "drain", "uncordon"):
        assert remote.json(verb, name, "--no-wait")["worker_id"] == worker["worker_id"]
    remote.ok("trust", pub_key, "--name", "")
    remote.ok("trust", public(KEY), "--again", "--name", f"{name}.")
    assert remote.json("revoke", f"{name}.")["pub_key"] == public(KEY)


@pytest.mark.parametrize("name", ["a/b", "/", ".", ".."])
def test_a_name_that_no_address_can_have_is_refused_where_it_is_given(remote, name):
    refused = remote.run("trust", public(KEY), "--again", "--name", name)
    assert (refused.exit_code, "cannot have a slash" in refused.stderr) == (2, True)
    # An older version took it.
    for verb in ("show", "drain", "cordon", "uncordon", "revoke"):
        refused = remote.run(verb, name)
        assert (refused.exit_code, "use the worker's id" in refused.stderr) == (2, True), refused.stderr


def test_a_private_key_stays_on_its_machine(remote):
    for verb in ("trust", "revoke"):
        result = remote.run(verb, "/somewhere/worker-1.key", url=True)
        assert (result.exit_code, "private key" in result.stderr) == (2, True)


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_a_key_of_another_scope_is_refused(remote, gateway, words):
    result = remote.run(*words, TETHER_API_KEY=gateway.key())
    assert (result.exit_code, "operator" in result.stderr) == (6, True), result.stderr


def test_the_gateway_is_asked_only_where_that_is_said(remote, tmp_path):
    # The address that a tenant's verbs use must not move where an operator's acts happen.
    result = remote.run("list", url=False, TETHER_URL=remote.url)
    assert (result.exit_code, "Redis at 127.0.0.1:1" in result.stderr) == (4, True)
    file = tmp_path / "key"
    file.write_text(remote.environ["TETHER_API_KEY"])
    words = ("list", "--api-key-file", str(file))
    result = remote.run(*words, url=False, TETHER_URL=remote.url, TETHER_API_KEY="")
    assert result.exit_code == 0, result.stderr


def test_whoever_watches_is_told_of_a_gateway_that_goes_away_and_comes_back(service):
    with RunningGateway(service.settings) as gateway:
        endpoint = Endpoint(gateway.url, gateway.key("default", (Scope.OPERATOR,)))
        with (
            OperatorClient(endpoint, Pace(patience=PATIENCE_SECONDS)) as client,
            contextlib.closing(client.changes()) as changes,
        ):
            assert next(changes)["kind"] == "present"
            gateway.stop()
            assert next(changes)["kind"] == "disconnected"
            gateway.start()
            assert [next(changes)["kind"] for _ in range(2)] == ["connected", "present"]
