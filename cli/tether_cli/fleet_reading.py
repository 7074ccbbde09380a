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

from tether.broker.connections import address_of
from tether.broker.keys import Keys
from tether.config_types import suggestion
from tether.discovery.announcements.presence import worker_id
from tether.discovery.fleet.fleet import Fleet, Member
from tether.discovery.fleet.fleet_view import FleetView, monotonic_ms
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.topics import is_presence_topic, network_id
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.trusted_keys import (
    KEY,
    NOTHING_ENROLLED,
    EnrolledKeys,
    Trust,
    TrustedKeys,
    keys_in,
)
from tether.embedded.local_settings import is_default
from tether.errors import BrokerUnavailable, InvalidRequest, WorkerNotFound

if TYPE_CHECKING:
    from tether.config import Settings

REDIS_SECONDS = 3.0
"""What one answer of Redis may take."""

READ_SECONDS = 10.0
"""What reading the whole fleet may take."""

MOST_STRANGERS = 1_000
"""Workers whose keys do not count that are remembered."""

MOST_REPEATED = 40
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
        self._strangers: dict[str, None] = {}
        self.trusted = TrustedKeys.from_settings(settings, self._enrolled)
        self.presence = RedisPresence(client, self.keys, expiry_ms=settings.presence.expiry)
        # Who has no secret reads what those that have it let through.
        secret = settings.network.secret
        self.view = FleetView(
            {"redis": self.presence},
            self._counts,
            clock,
            interval_ms=settings.presence.interval,
            expiry_ms=settings.presence.expiry,
            network=None if is_default(settings, "network.secret") else network_id(bytes.fromhex(secret)),
            topics=is_presence_topic,
        )

    @property
    def now(self) -> int:
        """Milliseconds of the clock that the fleet's times are of."""
        return self._clock()

    @property
    def names(self) -> Mapping[str, str]:
        """What workers are called, by their ids: as they were enrolled, else by the file of their key."""
        named = keys_in(self._folder)
        named |= {key: name for key, name in self._enrolled.trust.enrolled.items() if name}
        return {worker_id(key): name for key, name in named.items()}

    @property
    def strangers(self) -> tuple[str, ...]:
        """Workers that announce themselves with keys that do not count, by id."""
        return tuple(sorted(self._strangers))

    def _counts(self, pub_key: str) -> bool:
        counts = self.trusted(pub_key)
        if not counts and len(self._strangers) < MOST_STRANGERS:
            self._strangers[worker_id(pub_key)] = None
        elif counts:
            self._strangers.pop(worker_id(pub_key), None)
        return counts


class _Remembered:
    """Enrolled keys, and what was last seen of them."""

    def __init__(self, enrolled: EnrolledKeys) -> None:
        self._inner = enrolled
        self.trust: Trust = NOTHING_ENROLLED

    def look(self) -> Trust | None:
        found = self._inner.look()
        self.trust = self.trust if found is None else found
        return found


@contextmanager
def open_fleet(settings: Settings, clock: Callable[[], int] = monotonic_ms) -> Iterator[FleetReading]:
    """The fleet that Redis has, once all of it was read.

    Raises:
      BrokerUnavailable: Redis does not tell.
    """
    _keep_logs_quiet()
    with ExitStack() as stack:
        client = stack.enter_context(
            redis.Redis.from_url(
                settings.redis.url,
                socket_timeout=REDIS_SECONDS,
                socket_connect_timeout=REDIS_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        )
        try:
            client.ping()
        except redis.RedisError as error:
            raise unavailable(client, error) from None
        reading = FleetReading(settings, client, clock)
        stack.callback(reading.presence.close)
        stack.callback(reading.trusted.close)
        reading.trusted.start()
        stack.callback(reading.view.stop)
        reading.view.start()
        if not reading.view.wait_until_read(READ_SECONDS):
            raise unavailable(client, "it was there, and did not tell all of it")
        yield reading


def meant_member(text: str, fleet: Fleet, names: Mapping[str, str]) -> Member:
    """The worker of the fleet that is meant: by id, boot id, public key, or a name that only one has.

    Args:
      names: By worker id, see :attr:`FleetReading.names`.

    Raises:
      InvalidRequest: Several have the name.
      WorkerNotFound: There is none, or it is not heard of now. The message has the nearest name.
    """
    is_id = _WORKER.match(text)
    if KEY.match(text.lower()):
        meant = [worker_id(text.lower())]
    elif is_id:
        meant = [is_id[1]]
    else:
        meant = [worker for worker, name in names.items() if name == text]
    found = sorted(worker for worker in meant if worker in fleet.members)
    if len(found) > 1:
        raise InvalidRequest(
            f"several workers have this name: give the id of one of them, {', '.join(found)}"
        )
    if found:
        return fleet.members[found[0]]
    shown = f" {text!r}" if len(text) <= MOST_REPEATED else ""
    if any(worker in names for worker in meant):
        raise WorkerNotFound(f"worker{shown} is not heard of now: it was stopped, or cannot reach anybody")
    present = [*fleet.members, *(names[worker] for worker in fleet.members if worker in names)]
    likely = suggestion(is_id[1] if is_id else text, present)
    raise WorkerNotFound(
        f"there is no worker{shown}{likely or '; `tether fleet list` shows those that there are'}"
    )


def unavailable(client: redis.Redis, reason: object) -> BrokerUnavailable:
    """The error for a Redis that does not tell, for that reason."""
    why = str(reason).rstrip(".")
    return BrokerUnavailable(f"Redis at {address_of(client)} does not tell of the fleet: {why}")


def _keep_logs_quiet() -> None:
    """Log nothing where nobody asked for logs: what there is to say, verbs say in their own words."""
    logger = logging.getLogger("tether")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
