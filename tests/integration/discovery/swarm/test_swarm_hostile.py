"""An enrolled peer that means harm: it changes nothing in anybody's fleet, and costs nobody much."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from support import swarm
from support.presences import presence, public
from support.swarm import LOOPBACK, NEVER_EXPIRES, Network, installed
from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.announcements.presence import worker_id
from tether.discovery.announcements.wire import sign
from tether.discovery.swarm.packages import find_node
from tether.discovery.topics import network_id, topic_key
from tether.discovery.trust.identity import Identity

MAX_GROWTH_BYTES = 150_000_000
CROWD = 150
PROGRAM = Path(swarm.__file__).with_name("hostile_peer.mjs")


def now_ms():
    return time.time_ns() // 1_000_000


class Hostile:
    """The test's side of ``hostile_peer.mjs``.

    Attributes:
      connected, closed: To whom it was connected, and who closed, as often as that came.
      turns: How often it did its harm.
    """

    def __init__(self, network, bootstrap, mode, envelopes=()):
        self.enrolled = network.enrol(f"hostile-{mode}")
        identity = Identity.claim(self.enrolled.folder)
        identity.close()
        told = {
            "place": str(installed()),
            "seed": identity.key.encode().hex(),
            "network": network_id(network.secret),
            "topic": topic_key(network.topic, network.secret).hex(),
            "host": LOOPBACK,
            "port": bootstrap.port,
            "mode": mode,
            "envelopes": [envelope.hex() for envelope in envelopes],
        }
        self.connected, self.closed = [], []
        self.turns = 0
        # What it heard of is more than a command line may have, on a machine that takes its time.
        file = self.enrolled.folder / "told.json"
        file.write_text(json.dumps(told))
        self.process = subprocess.Popen(
            (*find_node(os.environ).node, str(PROGRAM), str(file)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, name="reads-hostile")
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            ((kind, value),) = json.loads(line).items()
            if kind == "turns":
                self.turns = value
            else:
                getattr(self, kind).append(value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def network(bootstrap, tmp_path_factory):
    with Network(tmp_path_factory.mktemp("swarm"), bootstrap.address) as network:
        yield network


@pytest.fixture(scope="module")
def victim(network):
    return network.watcher("victim")


@pytest.fixture(scope="module")
def honest(network, victim):
    """Two members whose lives go on, and what was heard of the first life of one of them."""
    first, other = network.member("first"), network.member("other")
    victim.sees(first, other)
    victim.hears_again(first)
    first.kill()
    again = network.member(first.enrolled)
    victim.sees(again, other)
    eventually(lambda: victim.order_of(again).boot_counter == 3, PATIENCE_SECONDS, "it lives again")
    victim.hears_again(again, other)
    return again, other


@pytest.fixture
def quiet(victim, honest):
    """What the victim's sidecar costs, and what it knows, before and after."""
    memory = victim.memory()
    begin = len(victim.accepted)
    yield
    victim.hears_again(*honest)
    victim.sees(*honest)
    heard = victim.accepted[begin:]
    assert {one.worker_id for one in heard} == {member.worker for member in honest}
    assert {one.state.value for one in heard} == {"serving"}
    for member in honest:
        orders = [one.order for one in heard if one.worker_id == member.worker]
        assert orders == sorted(set(orders))
        assert {order.boot_counter for order in orders} == {victim.order_of(member).boot_counter}
        assert orders[-1].sequence < 1_000
    assert victim.memory() - memory < MAX_GROWTH_BYTES
    honest[0].sees(honest[1])
    assert honest[0].fleet[honest[1].worker][2] == "serving"


def is_turned_away(hostile, victim):
    """Everybody that it connected to closed, nobody lets it in, and it goes on trying."""
    key = hostile.enrolled.pub_key
    eventually(
        lambda: victim.enrolled.pub_key in hostile.closed and len(hostile.closed) == len(hostile.connected),
        PATIENCE_SECONDS,
        "all have closed",
    )
    assert victim.transport.wait_for_status(
        lambda status: all(peer["key"] != key for peer in status["peers"]), PATIENCE_SECONDS
    )
    assert hostile.connected.count(victim.enrolled.pub_key) == 1


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("mode", ["garbage", "nonsense", "oversize", "endless", "forged"])
def test_a_peer_that_breaks_the_protocol_is_turned_away(network, bootstrap, victim, honest, mode):
    with Hostile(network, bootstrap, mode, victim.envelopes[-20:]) as hostile:
        eventually(lambda: hostile.turns, PATIENCE_SECONDS, "it does harm")
        is_turned_away(hostile, victim)
        victim.hears_again(*honest)
        is_turned_away(hostile, victim)


@pytest.mark.usefixtures("quiet")
def test_what_was_true_once_changes_nothing_when_it_is_said_again(network, bootstrap, victim, honest):
    last_life = victim.order_of(honest[0]).boot_counter
    old = [
        envelope
        for one, envelope in zip(victim.accepted, victim.envelopes, strict=True)
        if one.worker_id == honest[0].worker
    ]
    assert any(one.boot_counter < last_life for one in victim.accepted if one.worker_id == honest[0].worker)
    with Hostile(network, bootstrap, "replayed", old[:100]) as hostile:
        eventually(lambda: hostile.turns > 50, PATIENCE_SECONDS, "it has repeated all of it")
        victim.hears_again(*honest)


def test_one_that_wants_everything_and_reads_nothing_holds_nobody_up(bootstrap, tmp_path):
    with Network(tmp_path, bootstrap.address) as network:
        victim = network.watcher("victim", **NEVER_EXPIRES)
        crowd = [SigningKey(number.to_bytes(32, "big")) for number in range(CROWD)]
        for number, key in enumerate(crowd):
            (network.trusted / f"crowd-{number}.pub").write_text(public(key))
        speaker = network.transport(network.enrol("speaker"), **NEVER_EXPIRES)
        speaker.start()
        both = (victim.transport, speaker)

        def all_are_heard(sequence):
            for key in crowd:
                told = presence(
                    key,
                    network=speaker.network,
                    topic=network.topic,
                    region=network.region,
                    sequence=sequence,
                    issued_at=now_ms(),
                    pools=tuple(f"{number:0>120}" for number in range(60)),
                )
                speaker.announce(sign(told, key), told)
            newest = {worker_id(public(key)): (1, sequence) for key in crowd}
            assert victim.view.wait_for(
                lambda fleet: (
                    {worker: member.presence.order for worker, member in fleet.members.items()} == newest
                ),
                PATIENCE_SECONDS,
            ), (len(victim.members), bootstrap.process.poll(), [one.status.get("peers") for one in both])

        all_are_heard(1)
        memory = victim.memory()
        with Hostile(network, bootstrap, "deaf") as hostile:
            eventually(lambda: hostile.turns > 20, PATIENCE_SECONDS, "it does harm")
            for sequence in range(2, 8):
                all_are_heard(sequence)
            assert victim.memory() - memory < MAX_GROWTH_BYTES
