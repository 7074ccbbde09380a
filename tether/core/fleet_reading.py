"""The fleet as Redis has it, for verbs that show it or act on it, and which worker somebody means."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tether.broker.keys import Keys
from tether.broker.redis.connections import address_of, connect
from tether.clocks import monotonic_ms
from tether.config.types import suggestion
from tether.discovery.announcements.presence import worker_id
from tether.discovery.fleet.fleet import Fleet, Member
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.over_redis.load_failures import read_load_failures
from tether.discovery.over_redis.queue_evidence import QueueEvidence
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.over_redis.worker_health import read_held_pools
from tether.discovery.topics import is_presence_topic, network_id
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.trusted_keys import (
    KEY,
    NOTHING_ENROLLED,
    EnrolledKeys,
    TrustedKeys,
    TrustSnapshot,
    keys_in,
)
from tether.errors import BrokerUnavailable, InvalidRequest, WorkerNotFound
from tether.ids import PoolName, WorkerId

if TYPE_CHECKING:
    from tether.config.settings import Settings

REDIS_SECONDS = 3.0
"""What one answer of Redis may take."""

READ_SECONDS = 10.0
"""What reading the whole fleet may take."""

READING = "reading"
"""The name of this source: what a gateway reads for an operator is counted apart from what it follows."""

MAX_STRANGERS = 1_000
"""Workers whose keys do not count that are remembered."""

MAX_REPEATED_CHARACTERS = 40
"""Characters of what was given that a message repeats."""

_WORKER = re.compile(r"([0-9a-f]{16})(?:\.[0-9]{1,16})?\Z")


class FleetReading:
    """The fleet, kept up to date while :func:`open_fleet` has it open.

    Attributes:
      settings: Those in use.
      client: To Redis; answers in bytes.
      keys: The namespace there.
      view: The fleet.
    """

    def __init__(self, settings: Settings, client: redis.Redis, clock: Callable[[], int]) -> None:
        self.settings = settings
        self.client = client
        self.keys = Keys(settings.redis.namespace, settings.redis.hash_tag)
        self._clock = clock
        self._folder: Path = settings.presence.identity_dir
        self._enrolled = _Remembered(RedisEnrolment(client, self.keys))
        self._strangers: dict[WorkerId, None] = {}
        self.trusted = TrustedKeys.from_settings(settings, self._enrolled)
        self.presence = RedisPresence(client, self.keys, expiry_ms=settings.presence.expiry)
        self.evidence = QueueEvidence(client, self.keys)
        # Who has no secret reads what those that have it let through.
        secret = settings.network.secret
        self.view = FleetView(
            {READING: self.presence},
            self._counts,
            clock,
            interval_ms=settings.presence.interval,
            expiry_ms=settings.presence.expiry,
            network=None if settings.is_default("network.secret") else network_id(bytes.fromhex(secret)),
            topics=is_presence_topic,
            evidence=self.evidence.read,
        )

    @property
    def now(self) -> int:
        """Milliseconds of the clock that the fleet's times are of."""
        return self._clock()

    @property
    def names(self) -> Mapping[WorkerId, str]:
        """What workers are called, by their ids: as they were enrolled, else by the file of their key."""
        named = keys_in(self._folder)
        named |= {key: name for key, name in self._enrolled.trust.enrolled.items() if name}
        return {worker_id(key): name for key, name in named.items()}

    @property
    def strangers(self) -> tuple[WorkerId, ...]:
        """Workers that announce themselves with keys that do not count, by id."""
        return tuple(sorted(self._strangers))

    def load_failures(self) -> Mapping[WorkerId, Mapping[str, str]]:
        """Why live workers cannot load models, by the models' names; nothing where Redis does not tell."""
        try:
            return read_load_failures(self.client, self.keys, sorted(self.view.fleet.members))
        except redis.RedisError:
            return {}

    def held_pools(self) -> Mapping[WorkerId, Mapping[PoolName, str]]:
        """From which pools live workers are held, since they fail what others do, each with the reason;
        nothing where Redis does not tell."""
        try:
            held = read_held_pools(self.client, self.keys, sorted(self.view.fleet.members))
        except redis.RedisError:
            return {}
        return {worker: {pool.pool: pool.in_words() for pool in pools} for worker, pools in held.items()}

    def _counts(self, pub_key: str) -> bool:
        counts = self.trusted(pub_key)
        if not counts and len(self._strangers) < MAX_STRANGERS:
            self._strangers[worker_id(pub_key)] = None
        elif counts:
            self._strangers.pop(worker_id(pub_key), None)
        return counts


class _Remembered:
    """Enrolled keys, and what was last seen of them."""

    def __init__(self, enrolled: EnrolledKeys) -> None:
        self._inner = enrolled
        self.trust: TrustSnapshot = NOTHING_ENROLLED

    def look(self) -> TrustSnapshot | None:
        found = self._inner.look()
        self.trust = self.trust if found is None else found
        return found


@contextmanager
def open_fleet(
    settings: Settings, clock: Callable[[], int] = monotonic_ms, *, within: float | None = None
) -> Iterator[FleetReading]:
    """The fleet that Redis has, once all of it was read.

    Args:
      within: Longest wait for one answer of Redis, and for the whole fleet, in seconds, where that is less
        than what they may take otherwise.

    Raises:
      BrokerUnavailable: Redis does not tell.
    """
    _keep_logs_quiet()
    limit = REDIS_SECONDS if within is None else min(within, REDIS_SECONDS)
    with ExitStack() as stack:
        client = stack.enter_context(
            connect(
                settings.redis.url,
                socket_timeout=limit,
                socket_connect_timeout=limit,
                retry=Retry(NoBackoff(), 0),
            )
        )
        try:
            client.ping()
        except redis.ConnectionError as error:
            raise unavailable(client, error, _REMEDIES[settings.is_default("redis.url")]) from None
        except redis.RedisError as error:
            raise unavailable(client, error) from None
        reading = FleetReading(settings, client, clock)
        stack.callback(reading.presence.close)
        stack.callback(reading.evidence.close)
        stack.callback(reading.trusted.close)
        reading.trusted.start()
        stack.callback(reading.view.stop)
        reading.view.start()
        if not reading.view.wait_until_read(READ_SECONDS if within is None else min(within, READ_SECONDS)):
            raise unavailable(client, "it responded, but the fleet could not be read completely")
        try:
            # Only now all are there to be judged.
            reading.view.judge()
        except redis.RedisError as error:
            raise unavailable(client, error) from None
        yield reading


def meant_member(text: str, fleet: Fleet, names: Mapping[WorkerId, str]) -> Member:
    """Return a worker of the fleet: by id, boot id, public key, or unique name.

    Args:
      names: By worker id, see :attr:`FleetReading.names`.

    Raises:
      InvalidRequest: The name is not unique.
      WorkerNotFound: There is none, or it is not alive. The message suggests the nearest name.
    """
    is_id = _WORKER.match(text)
    if KEY.match(text.lower()):
        meant = [worker_id(text.lower())]
    elif is_id:
        meant = [WorkerId(is_id[1])]
    else:
        meant = [worker for worker, name in names.items() if name == text]
    workers = sorted(worker for worker in meant if worker in fleet.members)
    if len(workers) > 1:
        raise InvalidRequest(f"several workers have this name: use one of their ids: {', '.join(workers)}")
    if workers:
        return fleet.members[workers[0]]
    shown = f" {text!r}" if len(text) <= MAX_REPEATED_CHARACTERS else ""
    if any(worker in names for worker in meant):
        raise WorkerNotFound(f"worker{shown} is not live: it was stopped, or cannot reach the network")
    present = [*fleet.members, *(names[worker] for worker in fleet.members if worker in names)]
    likely = suggestion(is_id[1] if is_id else text, present)
    shows = "; the live ones are in GET /v1/operator/workers and in `tether fleet list`"
    raise WorkerNotFound(f"there is no worker{shown}{likely or shows}")


_REMEDIES = {
    True: "start a Tether here with `tether up`, or name the Redis of yours in redis.url (TETHER_REDIS__URL)",
    False: "start that server, or correct redis.url",
}
"""What to do where no Redis answers, by whether its address is nobody's choice."""

_ADDRESS_AGAIN = re.compile(r"Error -?[0-9]+ connecting to \S+ ")


def unavailable(client: redis.Redis, reason: object, remedy: str = "") -> BrokerUnavailable:
    """The error for a Redis that does not tell, for that reason."""
    why = _ADDRESS_AGAIN.sub("", str(reason)).rstrip(".")
    what_to_do = f"; {remedy}" if remedy else ""
    return BrokerUnavailable(f"Redis at {address_of(client)} cannot provide the fleet: {why}{what_to_do}")


def _keep_logs_quiet() -> None:
    """Log nothing where nobody asked for logs: what there is to say, verbs say in their own words."""
    logger = logging.getLogger("tether")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
