"""The heart of a broker with consumers: says that it lives, and recovers what the dead left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis

from tether.broker.keys import INFER
from tether.broker.redis.connections import OUTAGE_ERRORS, without_retries
from tether.broker.scripts import rows
from tether.loops import Loop, Outage
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

if TYPE_CHECKING:
    from tether.broker.tether_broker import TetherBroker

FOREIGN_TIMEOUT_MS = 60_000
"""Silence after which a worker of another Dramatiq broker in the same namespace counts as dead."""


@dataclass(frozen=True)
class Suspect:
    """A broker whose heartbeat is overdue.

    Attributes:
      broker_id: Its id.
      last_heartbeat: Its last heartbeat exactly as Redis holds it.
      silent_ms: How long ago that was, by Redis's clock.
      is_ours: Whether it is a TetherBroker, which lists its queues, and not another Dramatiq broker.
    """

    broker_id: str
    last_heartbeat: bytes
    silent_ms: int
    is_ours: bool


def is_dead(suspect: Suspect, connected: Iterable[str], stall_timeout_ms: int) -> bool:
    """Whether an overdue broker is dead, or only stalled.

    A killed process loses its connections at once; one that is stopped, or holds the interpreter lock
    for long, keeps them. The latter is given until ``stall_timeout_ms``.
    """
    return suspect.silent_ms >= stall_timeout_ms or connection_name(suspect.broker_id) not in connected


KEPT_SECONDS = 3_600.0
"""How long a first look is remembered."""


class SecondLook:
    """For a program that looks only now and then: dead is who was as silent a while ago.

    At its first look, Redis may have been away until a moment ago, for everybody.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_looks: dict[str, tuple[bytes, float]] = {}

    def confirms(self, suspect: Suspect, seconds: float) -> bool:
        """Whether this heartbeat was the last one already so many seconds ago."""
        now = self._clock()
        last_heartbeat, since = self._first_looks.get(suspect.broker_id, (b"", now))
        if last_heartbeat != suspect.last_heartbeat:
            since = now
            # Who was recovered is never a suspect again.
            recent = {name: look for name, look in self._first_looks.items() if now - look[1] < KEPT_SECONDS}
            self._first_looks = {**recent, suspect.broker_id: (suspect.last_heartbeat, now)}
        return now - since >= seconds


def connection_name(broker_id: str) -> str:
    """Name of the connection over which a broker's heartbeats go."""
    return f"tether-heart-{broker_id}"


class BrokerHeartbeat:
    """Beats for one broker, from its first consumer until :meth:`stop`.

    It owns the thread ``tether-heart`` and one connection. Stopping says goodbye: a broker that holds
    nothing is forgotten at once.

    Attributes:
      loop: That of the thread.
    """

    def __init__(self, broker: TetherBroker) -> None:
        self._broker = broker
        self._log = get_logger("tether.heart")
        self._client = self._connect()
        self._beating = threading.Lock()
        self._last_beat = time.monotonic()
        self.loop = Loop(
            "heart",
            self._step,
            delay=broker.heartbeat_interval / 1000,
            outage=Outage(
                OUTAGE_ERRORS,
                self._log,
                begins="No heartbeat: Redis is unavailable. Continuing.",
                ends="Redis is available again. Heartbeats continue.",
            ),
            log=self._log,
        )

    def _connect(self) -> redis.Redis:
        return without_retries(self._broker.client, client_name=connection_name(self._broker.broker_id))

    def start(self) -> None:
        self.beat()
        self.loop.start()

    def stop(self) -> None:
        """End the thread and say goodbye."""
        self.loop.stop()
        try:
            self._broker.run("goodbye", self._broker.broker_id, client=self._client)
        except OUTAGE_ERRORS:
            self._log.warning("Could not say goodbye to Redis; the heartbeat will expire instead.")
        self._disconnect()

    def _disconnect(self) -> None:
        if self._client is not self._broker.client:
            self._client.close()

    def _step(self) -> float:
        self.beat()
        return self._broker.heartbeat_interval / 1000

    def beat(self) -> None:
        """Beat once and recover what is found to be dead."""
        with self._beating:
            self._beat()

    def _beat(self) -> None:
        if not look_after_queues(self._broker, self._client, self._broker.broker_id):
            self._be_reborn()
        self._last_beat = time.monotonic()

    def _be_reborn(self) -> None:
        lost = self._broker.die()
        self._log.warning(
            "This worker was silent for so long that others took over its messages. Raise heartbeat_timeout "
            "or stall_timeout if its actors block the interpreter for long.",
            messages=lost,
        )
        self._disconnect()
        self._client = self._connect()
        look_after_queues(self._broker, self._client, self._broker.broker_id)

    def make_sure(self) -> None:
        """Beat now if the last one is so old that others may have taken this process for dead."""
        if not self._is_overdue():
            return
        try:
            with self._beating:
                if self._is_overdue():
                    self._beat()
        except OUTAGE_ERRORS:
            # Without Redis nobody else can have taken anything either.
            return

    def _is_overdue(self) -> bool:
        return bool((time.monotonic() - self._last_beat) * 1000 >= self._broker.heartbeat_timeout)


def look_after_queues(
    broker: TetherBroker,
    client: redis.Redis,
    broker_id: str,
    is_sure: Callable[[Suspect], bool] = lambda suspect: True,
) -> bool:
    """Run one round of upkeep: heartbeat (unless ``broker_id`` is empty), bells, expiry of dead letters,
    and recovery of messages held by dead brokers of which ``is_sure`` is. Return False if this broker was
    declared dead."""
    queues = sorted((broker.queues | broker.delay_queues) - {INFER})
    answer = broker.run(
        "beat",
        broker_id,
        broker.heartbeat_timeout,
        2 * broker.heartbeat_interval + 500,
        FOREIGN_TIMEOUT_MS,
        -1 if broker.dead_message_ttl is None else broker.dead_message_ttl,
        *queues,
        client=client,
    )
    is_lost, *silent = answer
    if is_lost:
        return False
    suspects = [
        Suspect(broker_id.decode(), last_heartbeat, int(float(silent_ms)), bool(is_ours))
        for broker_id, last_heartbeat, silent_ms, is_ours in rows(silent, 4)
    ]
    if not suspects:
        return True
    connected = _connected_names(client)
    for suspect in suspects:
        if is_sure(suspect) and is_dead(suspect, connected, broker.stall_timeout):
            recover(broker, client, suspect)
    return True


def _connected_names(client: redis.Redis) -> frozenset[str]:
    try:
        return frozenset(entry["name"] for entry in client.client_list())
    except redis.ResponseError:
        # Not every account may list connections; then silence alone decides.
        return frozenset()


def recover(broker: TetherBroker, client: redis.Redis, suspect: Suspect) -> None:
    """Give back what a dead broker held, unless it came back or was recovered in the meantime."""
    queues: list[str] = []
    if not suspect.is_ours:
        # Rare: only where workers of another Dramatiq broker died in a namespace that both use.
        acks = broker.keys.acks(suspect.broker_id, "")
        queues = [key.decode().removeprefix(acks) for key in client.scan_iter(match=acks + "*", count=1000)]
    answer = broker.run("recover", suspect.broker_id, suspect.last_heartbeat, *queues, client=client)
    for queue, returned, crashed in rows(answer, 3):
        queue_name = queue.decode()
        metrics.MESSAGES_RECOVERED.labels(queue=queue_name).inc(returned)
        if crashed:
            metrics.WORKER_CRASHES.labels(queue=queue_name).inc(crashed)
        broker.logger.warning(
            "Worker %s died: %d of its messages went back to queue %r, %d of them had begun.",
            suspect.broker_id,
            returned,
            queue_name,
            crashed,
        )
