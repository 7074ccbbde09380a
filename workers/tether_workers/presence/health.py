"""HealthReporter: a worker's signed heartbeats, from its start to its goodbye."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.clocks import wall_clock_ms
from tether.discovery.announcements.presence import (
    MAX_LATENCY_HOPS,
    MAX_QUEUE_DEPTH,
    MAX_SLOTS,
    MAX_TOKENS_PER_SECOND,
    NO_NETWORK,
    Artifact,
    Presence,
    Supported,
    WorkerState,
    manifest_of,
)
from tether.discovery.announcements.wire import sign
from tether.discovery.port import Announcer
from tether.discovery.topics import model_topic, presence_topic
from tether.discovery.trust.identity import Identity
from tether.ids import PoolName
from tether.loops import IDLE, Loop, Outage
from tether.models.registry import pool_name
from tether.threads import STOP_SECONDS
from tether.version import __version__

SKIPPED_NUMBERS = 1_000
"""By so much the sequence goes on where a newer announcement of the same worker is known."""

_NONCE_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """What a worker has to tell of itself now. The attributes mean what they do in ``Presence``."""

    gpu_class: str
    region: str
    slots: int
    free: int
    supported: tuple[Supported, ...] = ()
    pools: tuple[PoolName, ...] = ()
    latency_hops: int = 0
    queue_depth: int = 0
    vram_total: int = 0
    vram_free: int = 0
    artifacts: tuple[Artifact, ...] = ()
    tokens_per_second: float = 0.0
    prefill_tokens_per_second: float = 0.0
    state: WorkerState = WorkerState.SERVING


class HealthReporter:
    """Announces a worker in each interval, when something changed, and when it goes.

    The whole announcement goes to the topic of its region, and one of each model to that model's topic.

    It owns the thread ``tether-health``, from :meth:`start` to :meth:`stop`. It goes on through outages of
    whatever carries the announcements.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self,
        identity: Identity,
        presence_port: Announcer,
        describe: Callable[[], WorkerStatus],
        interval: float = 5.0,
        network: str = NO_NETWORK,
        may_announce: Callable[[], bool] = lambda: True,
        clock: Callable[[], int] = wall_clock_ms,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """
        Args:
          describe: Called in the thread before each announcement.
          interval: Seconds between two rounds of announcements.
          network: What the network is called in signed messages.
          may_announce: Whether the worker speaks for its key: not while another process does.
          clock: Milliseconds since the epoch.
          randomness: Returns so many random bytes.
        """
        self._identity = identity
        self._port = presence_port
        self._describe = describe
        self._network = network
        self._may_announce = may_announce
        self._clock = clock
        self._randomness = randomness
        self._log = structlog.stdlib.get_logger("tether.health")
        self._sending = threading.Lock()
        self._sequence = 0
        self._said_goodbye = False
        self.loop = Loop(
            "health",
            self._step,
            interval=interval,
            outage=Outage(
                OUTAGE_ERRORS,
                self._log,
                begins="Heartbeats cannot be sent. Continuing.",
                ends="Heartbeats are sent again.",
            ),
            log=self._log,
        )

    def start(self) -> None:
        self.loop.start()

    def announce_now(self) -> None:
        """Announce without waiting for the interval: something changed."""
        self.loop.wake()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, waiting for that at most ``timeout`` seconds, and say goodbye unless that was
        done."""
        self.loop.stop(timeout)
        self.goodbye()

    def goodbye(self) -> None:
        """Announce that the worker is gone; nothing is announced after that. Idempotent.

        If that cannot be published, the last announcement expires.
        """
        try:
            self._announce(WorkerState.STOPPED)
        except OUTAGE_ERRORS as error:
            self._log.warning("Goodbye could not be sent. The last heartbeat will expire.", error=str(error))
        except Exception:
            self._log.exception("Goodbye failed. The last heartbeat will expire.")

    def _step(self) -> float:
        self._announce()
        return IDLE

    def _announce(self, state: WorkerState | None = None) -> None:
        with self._sending:
            if self._said_goodbye or not self._may_announce():
                return
            self._said_goodbye = state is WorkerState.STOPPED
            self._sequence += 1
            whole = self._presence(self._describe(), state)
            counts, outages = True, []
            for presence in (whole, *parts_by_model(whole)):
                try:
                    is_newest = self._tell(presence)
                except OUTAGE_ERRORS as error:
                    outages.append(error)
                else:
                    counts = counts and (is_newest or presence is not whole)
        if not counts:
            # Another process may have used the key, and have come further.
            self._sequence += SKIPPED_NUMBERS
            self._log.warning(
                "A newer announcement of this worker is known. Give each host its own identity folder.",
                worker=whole.worker_id,
            )
        if outages:
            raise outages[0]

    def _tell(self, presence: Presence) -> bool:
        return self._port.announce(sign(presence, self._identity.key), presence)

    def _presence(self, status: WorkerStatus, state: WorkerState | None) -> Presence:
        return Presence(
            network=self._network,
            topic=presence_topic(status.region),
            pub_key=self._identity.pub_key,
            gpu_class=status.gpu_class,
            region=status.region,
            slots=min(status.slots, MAX_SLOTS),
            free=min(status.free, MAX_SLOTS),
            supported=status.supported,
            pools=status.pools,
            latency_hops=min(status.latency_hops, MAX_LATENCY_HOPS),
            queue_depth=min(status.queue_depth, MAX_QUEUE_DEPTH),
            vram_total=status.vram_total,
            vram_free=status.vram_free,
            tokens_per_second=min(status.tokens_per_second, MAX_TOKENS_PER_SECOND),
            prefill_tokens_per_second=min(status.prefill_tokens_per_second, MAX_TOKENS_PER_SECOND),
            state=state or status.state,
            cache=manifest_of(status.artifacts),
            software_version=__version__,
            boot_counter=self._identity.boot_counter,
            sequence=self._sequence,
            nonce=self._randomness(_NONCE_BYTES).hex(),
            issued_at=self._clock(),
        )


def parts_by_model(whole: Presence) -> list[Presence]:
    """An announcement for the topic of each model that a worker supports, of that model alone."""
    parts = []
    for model in whole.supported:
        ours = pool_name(whole.gpu_class, whole.region, model)
        parts.append(
            replace(
                whole,
                topic=model_topic(model.name, model.version, whole.region),
                supported=(model,),
                pools=tuple(pool for pool in whole.pools if pool == ours),
                cache=manifest_of(tuple(one for one in whole.cache.artifacts if one.digest == model.digest)),
            )
        )
    return parts
