"""Commands of an operator: through a real Redis to real workers, and by the command line."""

import json
import queue
import signal
import threading
import time

import pytest
import redis
from click.testing import CliRunner

from support.commands import OPERATOR, OTHER_OPERATOR, command
from support.inference import InferenceBench, whole_answer
from support.presences import public
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.keys import Keys
from tether.discovery.announcements.presence import NO_NETWORK
from tether.discovery.commands.command import MAX_LIFE_MS, Action, sign_command
from tether.discovery.commands.inbox import MAX_WAITING, CommandFollower, send_command
from tether.discovery.commands.operator_key import operator_key
from tether.discovery.commands.relay import CommandRelay
from tether.discovery.topics import control_topic
from tether.store import Store
from tether.store.audit_pages import audit_page
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

TOPIC = control_topic("local")


def now_ms():
    return time.time_ns() // 1_000_000


def fresh(key=OPERATOR, *, number=1, **changes):
    """A command that counts now, and its envelope."""
    made = command(key, number=number, **{"issued_at": now_ms(), **changes})
    return made, sign_command(made, key)


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def keys():
    return Keys("tether")


@pytest.fixture
def follow(client, keys):
    followers = []

    def start(worker=None, interval=60.0, on_command=None):
        heard = []
        follower = CommandFollower(client, keys, on_command or heard.append, worker=worker, interval=interval)
        followers.append(follower)
        follower.start()
        return heard

    yield start
    for follower in followers:
        follower.stop()
        assert not follower.loop.is_alive
    assert "tether-commands" not in {thread.name for thread in threading.enumerate()}


def is_followed(client, keys):
    eventually(lambda: client.pubsub_numsub(keys.fleet_commands)[0][1], PATIENCE_SECONDS, "somebody follows")


def test_a_redis_that_is_full_takes_commands(client, keys, follow):
    made, envelope = fresh()
    heard = follow(made.target)
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        client.set("something", "else")
    send_command(client, keys, made, envelope)
    eventually(lambda: envelope in heard, PATIENCE_SECONDS, "the command arrives")
    assert client.lrange(keys.inbox(made.target), 0, -1) == [envelope]


def test_what_is_no_inbox_gives_way_to_a_command(client, keys):
    made, envelope = fresh()
    client.set(keys.inbox(made.target), "no list")
    send_command(client, keys, made, envelope)
    assert client.lrange(keys.inbox(made.target), 0, -1) == [envelope]
    assert 0 < client.pttl(keys.inbox(made.target)) <= MAX_LIFE_MS


def test_a_worker_hears_what_waits_in_its_inbox_and_what_comes(client, keys, follow):
    (first, envelope), (second, later) = fresh(number=1), fresh(number=2)
    send_command(client, keys, first, envelope)
    heard = follow(first.target)
    eventually(lambda: envelope in heard, PATIENCE_SECONDS, "the inbox is read at the start")
    send_command(client, keys, second, later)
    eventually(lambda: later in heard, PATIENCE_SECONDS, "the channel is followed")


def test_an_inbox_is_read_in_each_interval(client, keys, follow):
    made, envelope = fresh()
    heard = follow(made.target, interval=0.05)
    is_followed(client, keys)
    client.rpush(keys.inbox(made.target), envelope)
    eventually(lambda: envelope in heard, PATIENCE_SECONDS, "the inbox is read again")


def test_a_hint_calls_what_it_is_for_and_is_no_command(client, keys):
    commands, hints = [], queue.SimpleQueue()
    made, envelope = fresh()
    follower = CommandFollower(
        client, keys, commands.append, worker=made.target, hints={"ends": lambda: hints.put("ends")}
    )
    follower.start()
    try:
        # Something may have been said before.
        assert hints.get(timeout=PATIENCE_SECONDS) == "ends"
        client.publish("ends", "job")
        assert hints.get(timeout=PATIENCE_SECONDS) == "ends"
        send_command(client, keys, made, envelope)
        eventually(lambda: commands, PATIENCE_SECONDS, "the command arrives")
        assert set(commands) == {envelope}
        assert hints.empty()
        client.client_kill_filter(_type="pubsub")
        assert hints.get(timeout=PATIENCE_SECONDS) == "ends"
    finally:
        follower.stop()


def test_what_was_sent_while_redis_was_cut_off_is_heard_afterwards(client, keys, follow):
    made, envelope = fresh()
    heard = follow(made.target)
    is_followed(client, keys)
    client.rpush(keys.inbox(made.target), envelope)
    client.client_kill_filter(_type="pubsub")
    eventually(lambda: envelope in heard, PATIENCE_SECONDS, "the inbox is read after an outage")


def test_a_command_that_fails_does_not_end_the_following(client, keys, follow):
    heard = []

    def fail(envelope):
        heard.append(envelope)
        raise ValueError

    follow(on_command=fail)
    is_followed(client, keys)
    for number in (1, 2):
        send_command(client, keys, *fresh(number=number))
    eventually(lambda: len(heard) == 2, PATIENCE_SECONDS, "both are heard")


def test_an_inbox_has_a_bound_and_ends(client, keys):
    for number in range(MAX_WAITING + 3):
        made, envelope = fresh(number=number)
        send_command(client, keys, made, envelope)
    inbox = keys.inbox(made.target)
    assert client.llen(inbox) == MAX_WAITING
    assert client.lindex(inbox, -1) == envelope
    assert 0 < client.pttl(inbox) <= 600_000


def test_a_relay_sends_on_what_operators_say_to_its_regions_and_nothing_else(client, keys):
    sent = []
    relay = CommandRelay(
        client,
        keys,
        lambda envelope, topic, command_id: sent.append((envelope, topic, command_id)),
        operators=lambda key: key == public(OPERATOR),
        network=NO_NETWORK,
        topics=frozenset({TOPIC}),
    )
    relay.start()
    is_followed(client, keys)
    elsewhere = fresh(number=1, topic=control_topic("elsewhere"))
    stranger = fresh(OTHER_OPERATOR, number=2)
    expired = fresh(number=3, issued_at=now_ms() - 3_600_000)
    made, envelope = fresh(number=4)
    for one in (elsewhere, stranger, expired, (made, b"nothing"), (made, envelope)):
        send_command(client, keys, *one)
    eventually(lambda: sent, PATIENCE_SECONDS, "it is sent on")
    assert sent == [(envelope, TOPIC, made.command_id)]
    relay.stop()
    assert "tether-commands" not in {thread.name for thread in threading.enumerate()}


class Fleet:
    """Worker processes on a bench, and the verbs on them."""

    def __init__(self, bench):
        self.bench = bench
        self.folder = bench.folder / "identity"
        self.database = f"sqlite:///{bench.folder}/audit.db"

    def start_worker(self):
        """A worker process that is heard of, and its id."""
        process = self.bench.start_process()
        line = next(line for line in process.lines if "Serving." in line)
        (told,) = (word for word in line.split() if word.startswith("worker="))
        worker = told.removeprefix("worker=").partition(".")[0]
        eventually(lambda: self.is_heard_of(worker), PATIENCE_SECONDS, "it is heard of")
        return process, worker

    def is_heard_of(self, worker):
        return self.bench.client.hexists(self.bench.keys.fleet_presence, worker)

    def run(self, *words, **environ):
        environ = {
            **environ,
            "TETHER_CONFIG": str(self.bench.folder / "tether.toml"),
            "TETHER_MODELS": json.dumps(self.bench.models),
            "TETHER_DIR": None,
            "TETHER_DATABASE__URL": self.database,
        }
        surroundings = CommandEnvironment(find_running=lambda: None)
        return CliRunner(env=environ).invoke(
            main, ["fleet", *words], catch_exceptions=False, obj=surroundings
        )

    def ok(self, *words):
        result = self.run(*words)
        assert result.exit_code == 0, result.stderr
        return result

    def acts_on(self, worker):
        with Store(self.database) as store:
            entries = store.read(audit_page, target=worker).entries
        return [(entry.action, entry.result) for entry in reversed(entries)]

    def states(self):
        return {
            worker["worker_id"]: worker["state"]
            for worker in json.loads(self.ok("list", "--json").stdout)["data"]
        }

    def wait_until_nobody_stands_idle(self):
        """A worker that is told to draw no more finishes the draw that it blocks in."""
        idle = f"{self.bench.keys.prefix}:pool:{self.bench.pool}:idle"
        eventually(lambda: self.bench.client.scard(idle) == 0, PATIENCE_SECONDS, "nobody stands idle")

    def send(self, made, key):
        envelope = sign_command(made, key)
        send_command(self.bench.client, self.bench.keys, made, envelope)
        return envelope


@pytest.fixture
def fleet(tmp_path):
    bench = InferenceBench(tmp_path, tokens_per_second=100.0, drain_ms=100)
    # A job of a slow machine keeps its lease; workers are heard of long enough to be seen.
    bench.values["presence"].update(expiry=5_000)
    yield Fleet(bench)
    bench.close()


def test_a_drained_worker_hands_its_job_over_stays_and_serves_again_later(fleet):
    bench = fleet.bench
    processes = dict(reversed(fleet.start_worker()) for _ in range(2))
    job_id = bench.place(max_tokens=800)
    bench.wait_for_tokens(job_id, 20)
    drained = bench.client.hget(bench.keys.job(job_id), "worker").decode().partition(".")[0]
    (other,) = processes.keys() - {drained}
    (told,) = fleet.ok("drain", drained).stderr.splitlines()
    assert told.startswith(f"Worker {drained} (worker-")
    assert "is draining: " in told
    bench.wait_for_state(job_id, "succeeded")
    assert bench.texts(job_id) == whole_answer(800)
    assert bench.client.hget(bench.keys.job(job_id), "deaths") == b"0"
    assert [outcome["worker"].partition(".")[0] for outcome in bench.outcomes()] == [other]
    assert fleet.states() == {drained: "draining", other: "serving"}
    assert fleet.acts_on(drained) == [("fleet.drain", "begun"), ("fleet.drain", "ok")]
    fleet.ok("cordon", other)
    fleet.wait_until_nobody_stands_idle()
    waiting = bench.place(2)
    assert bench.state(waiting) == "placed"
    fleet.ok("uncordon", drained)
    bench.wait_for_state(waiting, "succeeded")
    assert fleet.states() == {drained: "serving", other: "cordoned"}
    assert bench.outcomes()[-1]["worker"].partition(".")[0] == drained
    for process in processes.values():
        process.signal(signal.SIGTERM)
        process.wait_for_end(PATIENCE_SECONDS)


def test_a_cordoned_worker_finishes_what_it_runs_and_can_be_stopped(fleet):
    bench = fleet.bench
    process, worker = fleet.start_worker()
    job_id = bench.place(1, max_tokens=300)
    bench.wait_for_tokens(job_id, 5)
    document = json.loads(fleet.ok("cordon", worker, "--json").stdout)
    assert (document["action"], document["worker_id"], document["is_shown"]) == ("cordon", worker, True)
    fleet.wait_until_nobody_stands_idle()
    late = bench.place(2)
    bench.wait_for_state(job_id, "succeeded")
    assert bench.texts(job_id) == whole_answer(300)
    assert bench.state(late) == "placed"
    process.signal(signal.SIGTERM)
    process.wait_for_end(PATIENCE_SECONDS)
    # The state is that of a process: the next one serves.
    fleet.start_worker()
    bench.wait_for_state(late, "succeeded")


def test_forged_foreign_expired_and_replayed_commands_change_nothing(fleet):
    bench = fleet.bench
    process, worker = fleet.start_worker()
    operator = operator_key(fleet.folder)

    def made(key=operator, **changes):
        return command(key, target=worker, **{"issued_at": now_ms(), "action": Action.DRAIN, **changes})

    old = made(number=1, action=Action.CORDON)
    replayed = fleet.send(old, operator)
    process.wait_for_line("Cordoned", within=PATIENCE_SECONDS)
    fleet.ok("uncordon", worker)
    fleet.send(made(OTHER_OPERATOR, number=2), OTHER_OPERATOR)
    fleet.send(made(number=3, topic=control_topic("elsewhere")), operator)
    fleet.send(made(number=4, issued_at=now_ms() - 3_600_000), operator)
    forged = OTHER_OPERATOR.sign(b"nothing").signature + sign_command(made(number=5), operator)[64:]
    for envelope in (forged, replayed, b"\0" * 5_000, b"nothing"):
        send_command(bench.client, bench.keys, old, envelope)
    for why in ("untrusted", "topic", "signature"):
        process.wait_for_line(f"reason={why}", within=PATIENCE_SECONDS)
    bench.wait_for_state(bench.place(1), "succeeded")
    assert fleet.states() == {worker: "serving"}
    assert sum("Cordoned" in line for line in process.lines) == 1
    assert not any("Draining" in line for line in process.lines)


def test_a_worker_that_nobody_has_heard_of_is_told_with_the_nearest(fleet):
    _, worker = fleet.start_worker()
    wrong = worker[:-1] + ("0" if worker[-1] != "0" else "1")
    result = fleet.run("drain", wrong)
    assert result.exit_code == 2
    assert worker in result.stderr
    assert not bool(fleet.bench.client.keys("*inbox*"))


def test_a_worker_that_does_not_take_this_operator_is_told_with_what_to_do(fleet, tmp_path):
    process, worker = fleet.start_worker()
    elsewhere = {
        "TETHER_PRESENCE__IDENTITY_DIR": str(tmp_path / "elsewhere"),
        "TETHER_PRESENCE__TRUSTED_KEYS": (fleet.folder / "worker-1.pub").read_text().strip(),
    }
    result = fleet.run("cordon", worker, "--timeout", "1s", **elsewhere)
    assert result.exit_code == 4
    assert "presence.operator_keys" in result.stderr
    assert public(operator_key(tmp_path / "elsewhere")) in result.stderr
    process.wait_for_line("reason=untrusted", within=PATIENCE_SECONDS)
    assert fleet.states() == {worker: "serving"}


def test_who_does_not_wait_has_only_told_it(fleet):
    process, worker = fleet.start_worker()
    result = fleet.ok("drain", worker, "--no-wait")
    note, told = result.stderr.splitlines()
    assert "is the last worker of pool" in note
    assert told == f"Worker {worker} (worker-1): the command drain was sent."
    process.wait_for_line("Draining", within=PATIENCE_SECONDS)
    assert fleet.run("drain", worker, "--no-wait", "--timeout", "3").exit_code == 2


def test_on_a_machine_without_a_database_a_command_is_told_not_to_be_in_the_log(fleet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process, worker = fleet.start_worker()
    fleet.database = None
    told = fleet.ok("drain", worker, "--no-wait").stderr.splitlines()
    assert told[1].startswith("Not in the audit log: ")
    process.wait_for_line("Draining", within=PATIENCE_SECONDS)
    assert not list(tmp_path.glob("*.db"))


def test_a_command_that_cannot_be_noted_is_not_sent(fleet, tmp_path):
    _, worker = fleet.start_worker()
    fleet.database = f"sqlite:///{tmp_path}"
    assert fleet.run("drain", worker, "--no-wait").exit_code != 0
    assert fleet.bench.client.keys(f"{fleet.bench.keys.prefix}:inbox:*") == []
    assert fleet.states() == {worker: "serving"}


def test_without_redis_the_verbs_end_with_one_line(fleet):
    fleet.start_worker()
    fleet.bench.server.stop()
    for verb in ("drain", "cordon", "uncordon"):
        result = fleet.run(verb, "0123456789abcdef")
        assert result.exit_code == 4
        assert len(result.stderr.splitlines()) == 1
    fleet.bench.server.start()
