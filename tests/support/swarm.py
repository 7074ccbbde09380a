"""A network of Hyperswarm peers of its own: a bootstrap node, and members in processes of their own."""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.swarm.options import SwarmOptions
from tether.discovery.swarm.packages import find_node, install
from tether.discovery.swarm.transport import SwarmTransport
from tether.discovery.topics import control_topic, network_id, presence_topic
from tether.discovery.trust.identity import Identity
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.jobs import canonical_json

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / ".venv" / "swarm"
LOOPBACK = "127.0.0.1"
OFTEN = {"interval_ms": 500, "expiry_ms": 1_500}
NEVER_EXPIRES = {"interval_ms": 500, "expiry_ms": 600_000}
COMMAND_DOMAIN = b"tether command 1\0"

regions = (f"region-{number}" for number in itertools.count())


@functools.cache
def installed():
    """The sidecar's program, installed into the folder that all tests share."""
    return install(PACKAGES, find_node(os.environ), os.environ)


class BootstrapNode:
    """A bootstrap node in a process of its own, until it is killed."""

    def __init__(self, host=LOOPBACK, prefix=(), port=0):
        self.process = subprocess.Popen(
            (*prefix, *find_node(os.environ).node, "bootstrap.js", host, str(port)),
            cwd=installed(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        told = json.loads(self.process.stdout.readline())
        self.port = told["port"]
        self.address = f"{told['host']}:{told['port']}"

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Enrolled(NamedTuple):
    """A key that a member can claim."""

    name: str
    folder: Path
    pub_key: str
    worker: str


class Network:
    """Keys, and members that have them. All trust the keys of one folder, and are of one region."""

    def __init__(self, folder, bootstrap, *, secret=None):
        self.folder = folder
        self.bootstrap = bootstrap
        # Test processes side by side may meet: a port of one that has ended is given to another.
        self.secret = secret or hashlib.blake2b(os.fsencode(folder), digest_size=32).digest()
        self.region = next(regions)
        self.topic = presence_topic(self.region)
        self.control = control_topic(self.region)
        self.trusted = folder / "trusted"
        self.trusted.mkdir(parents=True)
        # Those in this process leave first: they wait a while for peers that are killed.
        self._killed, self._left = contextlib.ExitStack(), contextlib.ExitStack()

    def enrol(self, name, *, is_trusted=True):
        """A new key."""
        identity = Identity.claim(self.folder / name)
        identity.close()
        enrolled = Enrolled(name, self.folder / name, identity.pub_key, identity.worker_id)
        if is_trusted:
            self.trust(enrolled)
        return enrolled

    def trust(self, enrolled):
        aside = self.trusted / f"{enrolled.name}.new"
        aside.write_text(enrolled.pub_key)
        aside.rename(self.trusted / f"{enrolled.name}.pub")

    def revoke(self, enrolled):
        (self.trusted / f"{enrolled.name}.pub").unlink()

    def options(self, **changes):
        values = {
            "secret": self.secret,
            "bootstrap": (self.bootstrap,),
            "role": "orchestrator",
            "package_dir": PACKAGES,
            "host": LOOPBACK,
            **OFTEN,
        }
        return SwarmOptions(**{**values, **changes})

    def member(self, enrolled, **changes):
        """A process that has this key. It is told everything when it starts, and says what it sees."""
        if isinstance(enrolled, str):
            enrolled = self.enrol(enrolled)
        return self._killed.enter_context(Member(self, enrolled, **changes))

    def watcher(self, name="watcher", **changes):
        """A member in this process that only looks."""
        return self._left.enter_context(Watcher(self, self.enrol(name), **changes))

    def transport(self, enrolled, **options):
        """A bare one with this key, in this process."""
        key = Identity.claim(enrolled.folder)
        self._left.callback(key.close)
        transport = SwarmTransport(self.options(**options), key.key, TrustedKeys((), self.trusted))
        self._left.callback(transport.stop)
        return transport

    def close(self):
        with self._killed:
            self._left.close()
        shutil.rmtree(self.trusted)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Member:
    """The test's side of ``swarm_member.py``.

    Attributes:
      fleet: Order and state of each worker that it sees, by worker id.
      commands: The ids of the commands that it was told of.
    """

    def __init__(self, network, enrolled, *, prefix=(), trusted=None, **changes):
        self.enrolled = enrolled
        self.worker = enrolled.worker
        told = {
            "name": enrolled.name,
            "identity_dir": str(enrolled.folder),
            "trusted_dir": str(trusted or network.trusted),
            "secret": network.secret.hex(),
            "bootstrap": [network.bootstrap],
            "package_dir": str(PACKAGES),
            "host": LOOPBACK,
            "region": network.region,
            "models": [],
            "joins": [],
            "follows": [network.topic],
            "operators": [],
            **OFTEN,
            **changes,
        }
        self.ready = None
        self.left = None
        self.fleet = {}
        self.commands = []
        self._answers = []
        self._errors = (network.folder / f"{enrolled.name}.log").open("ab")
        self.process = subprocess.Popen(
            (*prefix, sys.executable, str(HERE / "swarm_member.py"), json.dumps(told)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE.parent), *sys.path))},
        )
        self._reader = threading.Thread(target=self._read, name=f"reads-{enrolled.name}")
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            ((kind, value),) = json.loads(line).items()
            if kind == "fleet":
                self.fleet = value
            elif kind == "command":
                self.commands.append(value)
            elif kind == "status":
                self._answers.append(value)
            else:
                setattr(self, kind, value)

    def status(self):
        """What its sidecar said last, and its process."""
        before = len(self._answers)
        self.process.stdin.write(b"status\n")
        self.process.stdin.flush()
        eventually(lambda: len(self._answers) > before, PATIENCE_SECONDS, f"{self.enrolled.name} answers")
        return self._answers[-1]

    def sidecar(self):
        """The process of its sidecar, once it says something."""
        return eventually(
            lambda: (status := self.status()).get("peers") is not None and status["pid"],
            PATIENCE_SECONDS,
            f"the sidecar of {self.enrolled.name} runs",
        )

    def sees(self, *others):
        """Wait until it sees exactly these members, itself aside."""
        expected = {other.worker for other in others}
        eventually(
            lambda: set(self.fleet) == expected,
            PATIENCE_SECONDS,
            f"{self.enrolled.name} sees {sorted(expected)}",
        )

    def stop(self):
        """Have it leave. Answers its exit status."""
        self.process.stdin.close()
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        return status

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        for file in (self.process.stdin, self.process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                file.close()
        print(
            f"{self.enrolled.name} said:", *Path(self._errors.name).read_text().splitlines()[-20:], sep="\n  "
        )


class AskedTrust:
    """Trusted keys, and which ones were asked for."""

    def __init__(self, folder):
        self._trusted = TrustedKeys((), folder)
        self.asked = set()

    def __call__(self, pub_key):
        self.asked.add(pub_key)
        return self._trusted(pub_key)

    def snapshot(self):
        return self._trusted.snapshot()


class Watcher:
    """Sees the fleet of a network, or what is announced on other topics.

    Attributes:
      accepted: Every presence that counted, in order.
      envelopes: Theirs.
    """

    def __init__(self, network, enrolled, *, follows=None, models=None, **options):
        if models is not None:
            follows = models.topics([network.region])
        follows = [network.topic] if follows is None else follows
        self.enrolled = enrolled
        self.worker = enrolled.worker
        self.accepted = []
        self.envelopes = []
        self.trust = AskedTrust(network.trusted)
        self._identity = Identity.claim(enrolled.folder)
        chosen = network.options(**options)
        self.transport = SwarmTransport(chosen, self._identity.key, self.trust)
        self.view = FleetView(
            {"swarm": self.transport.source(follows)},
            self.trust,
            interval_ms=chosen.interval_ms,
            expiry_ms=chosen.expiry_ms,
            network=self.transport.network,
            topics=lambda topic: topic in follows,
            models=models,
            on_accepted=self._accept,
        )
        self.view.start()
        self.transport.start()

    def _accept(self, source, batch):
        self.accepted += [one.presence for one in batch]
        self.envelopes += [one.envelope for one in batch]

    @property
    def members(self):
        return {worker: member.presence for worker, member in self.view.fleet.members.items()}

    @property
    def peers(self):
        return {peer["key"] for peer in self.transport.status.get("peers", ())}

    def memory(self):
        """Bytes that its sidecar has."""
        assert self.transport.wait_for_status(lambda status: "memory" in status, PATIENCE_SECONDS)
        return self.transport.status["memory"]

    def is_connected_to(self, *others):
        """Wait until it is, to exactly these."""
        expected = {other.enrolled.pub_key for other in others}
        assert self.transport.wait_for_status(lambda status: self.peers == expected, PATIENCE_SECONDS), (
            self.peers
        )

    def sees(self, *others):
        """Wait until it sees exactly these."""
        expected = {other.worker for other in others}
        found = self.view.wait_for(lambda fleet: set(fleet.members) == expected, PATIENCE_SECONDS)
        assert found, f"{sorted(expected)} expected, {sorted(self.members)} seen; {self.transport.status}"

    def order_of(self, other):
        """Of the last announcement of another member that counted."""
        return next(one.order for one in reversed(self.accepted) if one.worker_id == other.worker)

    def hears_again(self, *others, times=3):
        """Wait until so many newer announcements of each have come."""
        before = {other.worker: self.order_of(other) for other in others}
        for other in others:
            eventually(
                lambda other=other: self._count_after(other, before[other.worker]) >= times,
                PATIENCE_SECONDS,
                f"{other.enrolled.name} is heard again",
            )

    def _count_after(self, other, order):
        return sum(one.worker_id == other.worker and one.order > order for one in tuple(self.accepted))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.transport.stop()
        self.view.stop()
        self._identity.close()


def command(key, network, *, number):
    """A signed command on the network's control topic, and its id."""
    identifier = f"{number:016x}" * 2
    body = canonical_json(
        {
            "v": 1,
            "network": network_id(network.secret),
            "topic": network.control,
            "pubKey": key.verify_key.encode().hex(),
            "id": identifier,
            "issuedAt": 1_000,
            "expiresAt": 61_000,
        }
    )
    return key.sign(COMMAND_DOMAIN + body).signature + body, identifier
