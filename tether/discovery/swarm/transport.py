"""SwarmTransport: announcements and commands over Hyperswarm, by a supervised sidecar."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from nacl.signing import SigningKey

from tether.discovery.announcements.presence import Presence
from tether.discovery.port import Heard, PresenceSource
from tether.discovery.swarm.conversation import Join, SidecarSession
from tether.discovery.swarm.frames import SwarmMessage
from tether.discovery.swarm.meter import StatusMeter
from tether.discovery.swarm.options import SwarmOptions
from tether.discovery.swarm.packages import find_node, install
from tether.discovery.swarm.sidecar_outbox import Outbox
from tether.discovery.swarm.sidecar_process import SidecarProcess
from tether.discovery.swarm.subscription import SwarmSubscription
from tether.discovery.topics import is_control_topic, network_id, topic_key
from tether.errors import ServerMissing, TetherError
from tether.loops import IDLE, Loop
from tether.processes.restarts import RestartPolicy
from tether.telemetry.logs import get_logger
from tether.threads import STOP_SECONDS as THREAD_STOP_SECONDS

STOP_SECONDS = 3.0
"""How long a sidecar may take to say goodbye; then it is killed."""


class TrustPolicy(Protocol):
    """Whose announcements count, and who may connect."""

    def __call__(self, pub_key: str) -> bool: ...

    def snapshot(self) -> frozenset[str]: ...


class SwarmTransport:
    """The presence port over the swarm. Thread-safe.

    It owns the thread ``tether-swarm`` and the sidecar's process, from :meth:`start` to :meth:`stop`. A
    sidecar that exits is restarted with backoff, and gets all state again; nothing waits for it.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self,
        options: SwarmOptions,
        key: SigningKey,
        trusted: TrustPolicy,
        *,
        operators: Callable[[], Collection[str]] = frozenset,
        on_command: Callable[[bytes], None] = lambda envelope: None,
        policy: RestartPolicy | None = None,
    ) -> None:
        """
        Args:
          key: Of this process: its peers know it by its public key.
          operators: The public keys whose commands count, in hexadecimal.
          on_command: Told of every command on a control topic, in the thread ``tether-swarm``.
        """
        self._options = options
        self._key = key
        self._trusted = trusted
        self._operators = operators
        self._on_command = on_command
        self._policy = policy or RestartPolicy()
        self._log = get_logger("tether.swarm")
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._newest_number = 0
        self._left: set[int] = set()
        self._outbox = Outbox(options.expiry_ms, self._clock)
        self._subscriptions: dict[SwarmSubscription, frozenset[int]] = {}
        self._replays: set[int] = set()
        self._status: dict[str, object] = {}
        self._meter = StatusMeter()
        self._failures = 0
        self._logged_reason = ""
        self._changed = threading.Condition()
        self._conversation: SidecarSession | None = None
        self.loop = Loop("swarm", self._step, log=self._log)

    @staticmethod
    def _clock() -> int:
        return time.monotonic_ns() // 1_000_000

    @property
    def network(self) -> str:
        """What the network is called in signed messages."""
        return network_id(self._options.secret)

    @property
    def status(self) -> dict[str, object]:
        """The sidecar's last status; empty if there is none. See ``docs/reference/swarm.md``."""
        return self._status

    @property
    def round_trip_ms(self) -> float | None:
        """To the nearest orchestrator, as the median of the last ones; None where nothing is known."""
        told = self._status.get("roundTrip")
        return float(told) if isinstance(told, int | float) else None

    @property
    def pid(self) -> int | None:
        """The sidecar's process, while there is one."""
        conversation = self._conversation
        return None if conversation is None else conversation.pid

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = THREAD_STOP_SECONDS) -> None:
        """Send what is to be sent, leave, and end the thread and the process, within ``timeout`` seconds."""
        self.loop.ask_to_stop()
        self._wake()
        self.loop.stop(timeout)

    def wait_for_status(self, predicate: Callable[[dict[str, object]], bool], timeout: float) -> bool:
        """Wait at most so many seconds for the sidecar's status to hold, and return whether it does."""
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self._status), timeout)

    def join(self, topics: Iterable[str]) -> None:
        """Take part in topics: hear what is said there, and relay it."""
        with self._lock:
            for topic in topics:
                self._number(topic)
        self._wake()

    def leave(self, topics: Iterable[str]) -> None:
        """Take part in topics no longer. What was announced there runs out among the others."""
        with self._lock:
            for topic in topics:
                number = self._numbers.pop(topic, None)
                if number is not None:
                    self._left.add(number)
                    self._outbox.drop(number)
        self._wake()

    def _number(self, topic: str) -> int:
        if topic not in self._numbers:
            self._newest_number += 1
            self._numbers[topic] = self._newest_number
        return self._numbers[topic]

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """Publish an announcement on its topic. It is queued until the sidecar is ready."""
        self._put(presence.topic, presence.worker_id, envelope)
        return True

    def broadcast(self, envelope: bytes, topic: str, command_id: str) -> None:
        """Send a command to all peers on a control topic."""
        self._put(topic, command_id, envelope)

    def source(self, topics: Iterable[str]) -> PresenceSource:
        """What is announced on these topics."""
        names = tuple(topics)
        self.join(names)
        return _SwarmSource(self, names)

    def _put(self, topic: str, subject: str, envelope: bytes) -> None:
        with self._lock:
            self._outbox.put(self._number(topic), subject, envelope)
        self._wake()

    def _wake(self) -> None:
        conversation = self._conversation
        if conversation is not None:
            conversation.wake()

    def subscribe(self, topics: Sequence[str]) -> SwarmSubscription:
        """Everything that is known on these topics, then news."""
        subscription = SwarmSubscription(self._options.expiry_ms, self._clock, self._wake, self._unsubscribe)
        with self._lock:
            numbers = frozenset(self._number(topic) for topic in topics)
            self._subscriptions[subscription] = numbers
            self._replays |= numbers
        self._wake()
        return subscription

    def _unsubscribe(self, subscription: SwarmSubscription) -> None:
        with self._lock:
            self._subscriptions.pop(subscription, None)
        self._wake()

    # What follows runs in the thread `tether-swarm`.

    def _step(self) -> float:
        began = time.monotonic()
        try:
            why = self._converse()
        except ServerMissing as error:
            self._log.warning(f"The swarm is not used: {error}")
            # Nothing will ever be said here.
            self.loop.stop()
            return IDLE
        except TetherError as error:
            why = str(error)
        except Exception as error:
            self._log.exception("The swarm's sidecar failed.")
            why = str(error)
        if self.is_stopping:
            return IDLE
        self._failures = self._policy.failures_in_a_row(self._failures, time.monotonic() - began)
        pause = self._policy.delay(self._failures)
        if why != self._logged_reason:
            self._log.warning("The swarm is unavailable. Retrying.", why=why, seconds=pause)
            self._logged_reason = why
        return pause

    def _converse(self) -> str:
        """Run one sidecar, and return why it ended."""
        node = find_node(os.environ)
        folder = install(self._options.package_dir, node, os.environ)
        if self.is_stopping:
            return ""
        try:
            process = SidecarProcess(node, folder, os.environ)
        except OSError as error:
            return f"the sidecar cannot be started: {error.strerror}"
        conversation = SidecarSession(process, self._log)
        self._conversation = conversation
        try:
            with self._lock:
                self._outbox.begin_anew()
            return conversation.hold(self)
        finally:
            self._conversation = None
            self._tell_status({})
            conversation.close(STOP_SECONDS)

    # What a conversation asks and tells.

    @property
    def is_stopping(self) -> bool:
        return self.loop.is_stopping

    def start_document(self) -> dict[str, object]:
        return self._options.start_document(self._key)

    def trusted_now(self) -> tuple[frozenset[str], frozenset[str]]:
        """The keys of workers and of operators that count."""
        return self._trusted.snapshot(), frozenset(self._operators())

    def joins_after(self, number: int) -> list[Join]:
        """The topics with greater numbers than this, in their order."""
        with self._lock:
            if self._newest_number <= number:
                return []
            numbers = [(name, known) for name, known in self._numbers.items() if known > number]
        secret = self._options.secret
        return [
            Join(number, name, topic_key(name, secret).hex(), is_control_topic(name))
            for name, number in numbers
        ]

    def take_left(self) -> set[int]:
        """The topics that were left since it was asked the last time."""
        with self._lock:
            left, self._left = self._left, set()
        return left

    def take_replays(self) -> set[int]:
        with self._lock:
            replays, self._replays = self._replays, set()
        return replays

    def take_entries(self) -> list[SwarmMessage]:
        with self._lock:
            return self._outbox.take()

    @property
    def may_read(self) -> bool:
        """Whether the readers keep up."""
        return not any(subscription.is_full for subscription in list(self._subscriptions))

    def on_entries(self, entries: Sequence[SwarmMessage]) -> None:
        with self._lock:
            names = {number: name for name, number in self._numbers.items()}
            subscriptions = list(self._subscriptions.items())
        for subscription, numbers in subscriptions:
            wanted = [entry for entry in entries if entry.topic in numbers]
            if wanted:
                subscription.put(wanted)
        for entry in entries:
            if is_control_topic(names.get(entry.topic, "")):
                self._tell_command(entry.envelope)

    def _tell_command(self, envelope: bytes) -> None:
        try:
            self._on_command(envelope)
        except Exception:
            self._log.exception("A command failed.")

    def on_stranger(self, key: str) -> None:
        """Look whether a key that wants in is trusted by now; the next comparison tells the sidecar."""
        self._trusted(key)

    def on_status(self, status: dict[str, object]) -> None:
        self._tell_status(status)

    def _tell_status(self, status: dict[str, object]) -> None:
        self._meter.tell(status)
        with self._changed:
            self._status = status
            self._changed.notify_all()


class _SwarmSource:
    """The reader's side for some topics. Everything comes as news; a new subscription begins with all."""

    def __init__(self, transport: SwarmTransport, topics: tuple[str, ...]) -> None:
        self._transport = transport
        self._topics = topics

    def read_all(self) -> Sequence[Heard]:
        return ()

    def subscribe(self) -> SwarmSubscription:
        return self._transport.subscribe(self._topics)
