"""`tether fleet list`, `show` and `watch` over a real Redis."""

import contextlib
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest
import redis
from click.testing import CliRunner

from support.cluster import Cluster
from support.presences import KEY, OTHER_KEY, envelope, presence, public
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.keys import Keys
from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.discovery.announcements.manifests import WholeManifest, sign_manifest
from tether.discovery.announcements.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    CacheManifest,
    WorkerState,
    manifest_of,
)
from tether.discovery.commands.manifest_request import write_manifest
from tether.discovery.over_redis.load_failures import write_load_failures
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.trusted_keys import TrustSnapshot
from tether.local.fleet_check import check_fleet
from tether.local.part_states import Stack
from tether.local.running import Running
from tether.local.state_folder import StateFolder
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

LIFE_MS = 600_000
ONE, TWO = public(KEY), public(OTHER_KEY)
WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id
NOWHERE = "redis://127.0.0.1:1/0"
NUMBERS = itertools.count()


class Announced:
    """A fleet in a namespace of its own, and the verbs on it."""

    def __init__(self, url, folder, **environ):
        self.namespace = f"cli-fleet-{os.getpid()}-{next(NUMBERS)}"
        self.folder = folder
        self.environ = {
            "TETHER_REDIS__URL": url,
            "TETHER_REDIS__NAMESPACE": self.namespace,
            "TETHER_DATABASE__URL": f"sqlite:///{folder}/tether.db",
            "TETHER_PRESENCE__IDENTITY_DIR": str(folder / "identity"),
            # Nobody announces twice here: on a busy machine a worker would be suspect before it is looked at.
            "TETHER_PRESENCE__EXPIRY": str(LIFE_MS),
            "TETHER_PRESENCE__INTERVAL": str(LIFE_MS // 10),
            **environ,
        }
        self.client = redis.Redis.from_url(url)
        self.keys = Keys(self.namespace)
        self.port = RedisPresence(self.client, self.keys, expiry_ms=LIFE_MS)
        self._version = itertools.count(1)

    def enrol(self, names, revoked=()):
        RedisEnrolment(self.client, self.keys).write(
            TrustSnapshot(names, frozenset(revoked), next(self._version))
        )

    def tell(self, key=KEY, **changes):
        changes = {"issued_at": time.time_ns() // 1_000_000, **changes}
        return self.port.announce(envelope(key, **changes), presence(key, **changes))

    def run(self, *words, **environ):
        runner = CliRunner(env={"TETHER_DIR": None, **self.environ, **environ})
        surroundings = CommandEnvironment(find_running=lambda: None)
        return runner.invoke(main, ["fleet", *words], catch_exceptions=False, obj=surroundings)

    def ok(self, *words, **environ):
        result = self.run(*words, **environ)
        assert result.exit_code == 0, result.stderr
        return result

    def json(self, *words, **environ):
        result = self.ok(*words, "--json", **environ)
        assert result.stderr == ""
        return json.loads(result.stdout)

    def fails(self, *words, **environ):
        """What is said, in one line, and the exit status."""
        result = self.run(*words, **environ)
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr, result.exit_code

    def close(self):
        self.port.close()
        self.client.close()


@pytest.fixture
def fleet(shared_redis_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(Announced(shared_redis_server.url, tmp_path)) as announced:
        announced.enrol({ONE: "big box", TWO: ""})
        yield announced


def rows(result):
    columns, *found = (line.split("\t") for line in result.stdout.splitlines())
    return [dict(zip(columns, cells, strict=True)) for cells in found]


def test_the_workers_are_listed_by_place_and_name(fleet):
    fleet.tell(region="b")
    fleet.tell(OTHER_KEY, region="a", state=WorkerState.DRAINING)
    found = rows(fleet.ok("list"))
    assert [(row["worker"], row["name"], row["state"], row["region"]) for row in found] == [
        (OTHER, "-", "draining", "a"),
        (WORKER, "big box", "serving", "b"),
    ]
    assert (found[1]["free"], found[1]["models"]) == ("5/8", "tiny*")
    listed = fleet.json("list")
    assert (listed["object"], listed["untrusted"]) == ("list", [])
    assert [(one["worker_id"], one["name"]) for one in listed["data"]] == [(OTHER, ""), (WORKER, "big box")]
    assert 0 <= listed["data"][0]["heard_ms"] < 15_000


def test_a_worker_that_was_heard_long_ago_or_lost_a_job_shows_that(fleet):
    long = {"TETHER_PRESENCE__EXPIRY": "3600000", "TETHER_PRESENCE__INTERVAL": "2000"}
    fleet.tell()
    fleet.tell(OTHER_KEY)
    fleet.port.distrust(OTHER, presence(OTHER_KEY).order)
    states = {one["worker_id"]: one["state"] for one in fleet.json("list", **long)["data"]}
    # By the settings they live for an hour, and only 15 s of it are left.
    assert states == {WORKER: "suspect", OTHER: "unroutable"}


def test_a_fleet_that_is_empty_says_so(fleet):
    result = fleet.ok("list")
    assert result.stdout.splitlines()[0].startswith("worker\tname\t")
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == "No live workers.\n"
    assert fleet.json("list") == {
        "object": "list",
        "data": [],
        "untrusted": [],
        "copied": [],
        "wrong_clocks": [],
        "failing": {},
        "held": {},
    }


def test_who_said_goodbye_is_not_listed(fleet):
    fleet.tell()
    fleet.tell(sequence=2, state=WorkerState.STOPPED)
    assert fleet.json("list")["data"] == []


def test_a_worker_whose_key_does_not_count_is_named_and_not_listed(fleet):
    fleet.enrol({ONE: "big box"})
    fleet.tell()
    fleet.tell(OTHER_KEY)
    result = fleet.ok("list")
    assert [row["worker"] for row in rows(result)] == [WORKER]
    assert result.stderr.startswith("1 other worker is ignored, since its key is untrusted or revoked: ")
    assert OTHER in result.stderr
    fleet.enrol({ONE: "big box", TWO: ""}, revoked=[WORKER, OTHER])
    assert fleet.json("list") == {
        "object": "list",
        "data": [],
        "untrusted": sorted([WORKER, OTHER]),
        "copied": [],
        "wrong_clocks": [],
        "failing": {},
        "held": {},
    }


def test_a_worker_whose_clock_is_wrong_is_named_until_it_is_right(fleet):
    fleet.tell(issued_at=1)
    result = fleet.ok("list")
    assert rows(result) == []
    assert f"{WORKER} (" in result.stderr
    assert "behind" in result.stderr
    assert fleet.json("list")["wrong_clocks"] == [WORKER]
    check = check_fleet(load_settings(environ=fleet.environ), None, {})
    assert (check.verdict, f"{WORKER} (big box) by " in check.found) == ("warn", True)
    fleet.tell(sequence=2)
    assert fleet.json("list")["wrong_clocks"] == []


def test_why_a_worker_cannot_load_a_model_is_told_until_it_can(fleet):
    fleet.tell()
    fleet.tell(OTHER_KEY)
    client, keys = fleet.client, Keys(fleet.namespace)
    write_load_failures(client, keys, WORKER, {"echo@1": "no room: \x1b[2J"})
    client.set(keys.fleet_failing(OTHER), b"\xff no JSON")
    assert client.pttl(keys.fleet_failing(WORKER)) > 0
    assert f"Worker {WORKER} cannot load echo@1: no room:  [2J\n" in fleet.ok("list").stderr
    assert fleet.json("list")["failing"] == {WORKER: {"echo@1": "no room:  [2J"}}
    check = check_fleet(load_settings(environ=fleet.environ), None, {})
    assert (check.verdict, "cannot load echo@1: no room" in check.found) == ("warn", True)
    write_load_failures(client, keys, WORKER, {})
    assert fleet.json("list")["failing"] == {}


def test_which_worker_is_held_from_which_pool_and_why_is_told_until_it_is_not(fleet):
    fleet.tell()
    keys = Keys(fleet.namespace)
    record = {"jobs": ["a", "b"], "tenants": ["one"], "count": 7, "code": "engine_failed", "others": True}
    record |= {"since": 1, "at": 2**52, "pause": 4_000, "until_ms": 2**52, "probe": ""}
    fleet.client.hset(keys.worker_health(WORKER), mapping={"pool-1": json.dumps(record), "pool-2": b"\xff"})
    result = fleet.ok("list")
    assert f"Worker {WORKER} is held from pool pool-1: 7 attempts in a row failed (engine_failed)" in (
        result.stderr
    )
    assert "while other workers succeeded" in result.stderr
    assert fleet.json("list")["held"][WORKER].keys() == {"pool-1"}
    assert fleet.json("show", WORKER)["held_pools"].keys() == {"pool-1"}
    check = check_fleet(load_settings(environ=fleet.environ), None, {})
    assert (check.verdict, "is held from pool pool-1: 7 attempts" in check.found) == ("warn", True)
    fleet.client.hset(keys.worker_health(WORKER), "pool-1", json.dumps({**record, "pause": 0}))
    assert fleet.json("list")["held"] == {}


def test_a_key_in_the_identity_folder_counts_and_names_its_worker(fleet):
    fleet.enrol({})
    folder = fleet.folder / "identity"
    folder.mkdir()
    (folder / "worker-3.pub").write_text(TWO)
    fleet.tell(OTHER_KEY)
    assert [(one["worker_id"], one["name"]) for one in fleet.json("list")["data"]] == [(OTHER, "worker-3")]
    assert fleet.json("show", "worker-3")["worker_id"] == OTHER


def test_announcements_of_another_network_do_not_count_where_the_secret_is_known(fleet):
    fleet.tell()
    assert len(fleet.json("list")["data"]) == 1
    assert fleet.json("list", TETHER_NETWORK__SECRET="ab" * 32)["data"] == []


@pytest.mark.parametrize("verb", [("list",), ("show", "x"), ("watch",)], ids=" ".join)
def test_where_redis_is_away_one_line_says_so(fleet, verb):
    said, status = fleet.fails(*verb, TETHER_REDIS__URL=NOWHERE)
    assert (status, "Redis at 127.0.0.1:1 cannot provide the fleet" in said) == (4, True)
    assert said.endswith(" the fleet: Connection refused; start that server, or correct redis.url\n")
    said, status = fleet.fails(*verb, "--json", TETHER_REDIS__URL=NOWHERE)
    assert (status, json.loads(said)["error"]["code"]) == (4, "broker_unavailable")


def test_where_nothing_runs_here_it_says_what_to_start(fleet, monkeypatch):
    # As if nobody had set it: what may run at Redis's own port here is no matter of this test.
    monkeypatch.setattr(Settings, "is_default", lambda _, key: key == "redis.url")
    said, _ = fleet.fails("list", TETHER_REDIS__URL=NOWHERE)
    assert "Connection refused; start a Tether here with `tether up`, or name the Redis of yours" in said


def test_a_redis_that_refuses_is_told_and_its_password_is_not(fleet):
    url = fleet.environ["TETHER_REDIS__URL"].replace("redis://", "redis://nobody:hunter2@")
    said, status = fleet.fails("list", TETHER_REDIS__URL=url)
    assert (status, "hunter2" in said, "cannot provide the fleet" in said) == (4, False, True)


ARTIFACTS = (
    Artifact("cd" * 32, ArtifactKind.MODEL, ArtifactState.WARM, 2**31, pinned=True, last_use=1_000_000_000),
    Artifact("ef" * 32, ArtifactKind.ADAPTER, ArtifactState.DISK, 5),
)


def test_a_worker_is_shown_with_its_cache(fleet):
    fleet.tell(cache=manifest_of(ARTIFACTS))
    shown = fleet.ok("show", "big box").stdout.splitlines()
    assert [line.split(None, 1) for line in shown[:3]] == [
        ["worker", WORKER],
        ["name", "big box"],
        ["state", "serving"],
    ]
    assert any(line.startswith("cached model") and "cd" * 32 in line and "pinned" in line for line in shown)
    assert not any(line.startswith("cached more") for line in shown)
    cache = fleet.json("show", WORKER)["cache"]
    assert (cache["digest"], cache["is_complete"]) == (manifest_of(ARTIFACTS).digest, True)
    assert [one["digest"] for one in cache["artifacts"]] == ["cd" * 32, "ef" * 32]


def test_a_cache_that_is_not_told_of_wholly_says_so(fleet):
    whole = manifest_of(ARTIFACTS)
    fleet.tell(cache=CacheManifest(ARTIFACTS[:1], whole.digest, is_complete=False))
    shown = fleet.ok("show", WORKER).stdout.splitlines()
    assert shown[-1].startswith("cached more")
    assert fleet.json("show", WORKER)["cache"]["is_complete"] is False


def test_all_of_a_cache_is_shown_where_the_worker_is_asked(fleet):
    whole = manifest_of(ARTIFACTS)
    fleet.tell(cache=CacheManifest(ARTIFACTS[:1], whole.digest, is_complete=False))
    announced = presence()
    answer = WholeManifest(
        network=announced.network,
        pub_key=announced.pub_key,
        boot_id=announced.boot_id,
        cache=whole,
        issued_at=time.time_ns() // 1_000_000,
    )
    # As the worker would write it.
    write_manifest(fleet.client, fleet.keys, WORKER, sign_manifest(answer, KEY))
    cache = fleet.json("show", WORKER, "--full")["cache"]
    assert (cache["is_complete"], [one["digest"] for one in cache["artifacts"]]) == (
        True,
        ["cd" * 32, "ef" * 32],
    )
    shown = fleet.ok("show", WORKER, "--full").stdout
    assert ("ef" * 32 in shown, "cached more" in shown) == (True, False)


def test_a_worker_that_does_not_answer_is_said_with_the_key_that_it_must_know(fleet):
    fleet.tell(cache=CacheManifest(ARTIFACTS[:1], manifest_of(ARTIFACTS).digest, is_complete=False))
    said, status = fleet.fails("show", WORKER, "--full")
    key = (fleet.folder / "identity" / "operator.pub").read_text().strip()
    assert (status, f"worker {WORKER} did not send its cache" in said, key in said) == (4, True, True)


def test_a_worker_that_announces_all_of_its_cache_is_not_asked(fleet):
    fleet.tell(cache=manifest_of(ARTIFACTS))
    assert fleet.json("show", WORKER, "--full")["cache"]["is_complete"] is True
    assert not (fleet.folder / "identity" / "operator.pub").exists()


def test_a_worker_that_is_not_there_is_said_with_what_was_meant(fleet):
    fleet.tell()
    said, status = fleet.fails("show", "bigbox")
    assert (status, "did you mean big box?" in said) == (2, True)
    fleet.tell(sequence=2, state=WorkerState.STOPPED)
    said, status = fleet.fails("show", "big box")
    assert (status, "is not live" in said) == (2, True)


class Watched:
    """`tether fleet watch` as a process; a thread, ``watch-output``, reads what it prints."""

    def __init__(self, announced, *options):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TETHER_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tether_cli", "fleet", "watch", *options],
            env={**kept, "HOME": str(announced.folder), **announced.environ},
            cwd=announced.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="watch-output", daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, predicate):
        """The first line that fits."""
        with self._news:
            assert self._news.wait_for(lambda: any(map(predicate, self.lines)), PATIENCE_SECONDS), self.lines
            return next(line for line in self.lines if predicate(line))

    def wait_for_change(self, kind, worker=WORKER):
        def fits(line):
            change = json.loads(line)
            return change["kind"] == kind and change.get("worker_id", worker) == worker

        return json.loads(self.wait_for(fits))

    def interrupt(self):
        """Ctrl-C: the exit status and standard error."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(PATIENCE_SECONDS)
        return status, self.process.stderr.read()

    def close(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def watch():
    with contextlib.ExitStack() as stack:

        def start(announced, *options):
            return stack.enter_context(contextlib.closing(Watched(announced, *options)))

        yield start


def test_changes_are_told_as_lines_until_ctrl_c(fleet, watch):
    fleet.tell()
    watched = watch(fleet)
    first = watched.wait_for(lambda line: "present: " in line)
    assert first.endswith(f"  {WORKER} (big box)  present: serving, cpu in local, 8 slots")
    fleet.tell(OTHER_KEY)
    watched.wait_for(lambda line: f"  {OTHER}  joined: serving" in line)
    fleet.tell(sequence=2, state=WorkerState.DRAINING)
    watched.wait_for(lambda line: line.endswith("draining, was serving"))
    fleet.port.distrust(OTHER, presence(OTHER_KEY).order)
    watched.wait_for(lambda line: line.endswith(f"{OTHER}  unroutable, was serving: it lost a job"))
    fleet.tell(sequence=3, state=WorkerState.STOPPED)
    watched.wait_for(lambda line: line.endswith("left: it said goodbye"))
    assert watched.interrupt() == (130, "")
    assert len(watched.lines) == 5


def test_changes_are_told_as_json(fleet, watch):
    fleet.tell()
    watched = watch(fleet, "--json")
    present = watched.wait_for_change("present")
    assert (present["state"], present["name"], present["slots"]) == ("serving", "big box", 8)
    fleet.tell(boot=2)
    assert watched.wait_for_change("restarted")["boot_id"] == f"{WORKER}.2"
    fleet.tell(boot=2, sequence=2, state=WorkerState.STOPPED)
    left = watched.wait_for_change("left")
    assert (left["state"], left["said_goodbye"]) == (None, True)
    assert watched.interrupt() == (130, "")


def test_silence_is_suspect_first_and_then_the_end(fleet, watch):
    fleet.environ |= {"TETHER_PRESENCE__INTERVAL": "500", "TETHER_PRESENCE__EXPIRY": "5000"}
    fleet.tell(OTHER_KEY)
    watched = watch(fleet, "--json")
    watched.wait_for_change("present", OTHER)
    with contextlib.closing(RedisPresence(fleet.client, fleet.keys, expiry_ms=5_000)) as port:
        made = {"issued_at": time.time_ns() // 1_000_000}
        port.announce(envelope(**made), presence(**made))
    watched.wait_for_change("joined")
    assert watched.wait_for_change("state")["state"] == "suspect"
    assert watched.wait_for_change("left")["said_goodbye"] is False


def test_a_redis_that_goes_away_and_comes_back_is_told(redis_server, tmp_path, watch):
    fast = {"TETHER_PRESENCE__INTERVAL": "500", "TETHER_PRESENCE__EXPIRY": "3600000"}
    with contextlib.closing(Announced(redis_server.url, tmp_path, **fast)) as announced:
        announced.enrol({ONE: "big box"})
        announced.tell()
        watched = watch(announced, "--json")
        watched.wait_for_change("present")
        redis_server.kill()
        watched.wait_for_change("away")
        redis_server.restart()
        watched.wait_for_change("back")
        eventually(lambda: announced.tell(boot=2), PATIENCE_SECONDS, "Redis takes announcements again")
        watched.wait_for_change("restarted")
        assert watched.interrupt() == (130, "")


def test_a_reader_that_goes_away_ends_it_quietly(fleet, watch):
    fleet.tell()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TETHER_")}
    with subprocess.Popen(
        [sys.executable, "-m", "tether_cli", "fleet", "watch"],
        env={**kept, "HOME": str(fleet.folder), **fleet.environ},
        cwd=fleet.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        fleet.tell(OTHER_KEY)
        assert (process.wait(PATIENCE_SECONDS), process.stderr.read()) == (141, b"")


def test_the_fleet_is_that_of_a_tether_up_here_where_the_settings_name_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    (folder.identity / "worker-1.pub").write_text(ONE)
    running = Running(folder, os.getpid(), Stack(os.getpid(), "http://127.0.0.1:1", ()))
    result = CliRunner(env={"TETHER_DIR": None}).invoke(
        main, ["fleet", "list"], obj=CommandEnvironment(find_running=lambda: running)
    )
    # Nothing listens there: what is said shows where it was looked for.
    assert (result.exit_code, str(running.redis_socket) in result.stderr) == (4, True)


def test_a_real_worker_is_listed_and_shown_under_the_name_of_its_key():
    with Cluster() as cluster:
        cluster.start_worker()
        runner = CliRunner(env={"TETHER_CONFIG": str(cluster.file), "TETHER_DIR": None})

        def ask(*words):
            surroundings = CommandEnvironment(find_running=lambda: None)
            result = runner.invoke(main, ["fleet", *words, "--json"], obj=surroundings)
            assert result.exit_code == 0, result.stderr
            return json.loads(result.stdout)

        (worker,) = eventually(lambda: ask("list")["data"], PATIENCE_SECONDS, "the worker is heard of")
        assert (worker["name"], worker["state"]) == ("worker-1", "serving")
        assert [model["name"] for model in worker["models"]] == ["counter"]
        shown = ask("show", "worker-1")
        assert (shown["worker_id"], shown["cache"]["is_complete"]) == (worker["worker_id"], True)
        assert shown["pools"]


@pytest.mark.parametrize(("answer", "status", "sent"), [(b"n\n", 1, 0), (b"y\n", 0, 1), (b"\x04", 1, 0)])
def test_on_a_terminal_it_is_asked_before_a_pool_loses_its_last_worker(fleet, answer, status, sent):
    fleet.tell()
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tether_cli", "fleet", "drain", WORKER, "--no-wait"]
    environ = {**os.environ, **fleet.environ, "TETHER_DIR": str(fleet.folder / "none"), "TERM": "xterm"}
    asked = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
    )
    os.close(slave)
    try:
        seen = b""
        while b"Go on? [y/N]:" not in seen:
            seen += os.read(master, 65_536)
        assert b"it is the last worker of pool" in seen.replace(b"\r\n", b" ")
        os.write(master, answer)
        assert asked.wait(PATIENCE_SECONDS) == status
    finally:
        asked.kill()
        asked.wait()
        os.close(master)
    assert len(fleet.client.keys(f"{fleet.keys.prefix}:inbox:*")) == sent
