"""Presence over Redis: the newest envelope of each worker, with Redis's time, and a channel for news."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import without_retries
from tether.broker.scripts import Argument, Scripts
from tether.discovery.announcements.presence import Order, Presence, WorkerState
from tether.discovery.port import MAX_AT_ONCE, Accepted, Heard, News, Unroutable
from tether.discovery.topics import is_presence_topic
from tether.ids import BootId, WorkerId, worker_of

MAX_PER_BATCH = 256
"""Announcements that one call of the script writes."""

PRESENCE_SCRIPTS = Scripts(Path(__file__).with_name("lua"))
"""Those that write announcements, and whom to distrust."""

_PAGE = 512
_MAX_LIFE = 2**32 - 1
_MAX_ORDER_BYTES = 40
_HEAD = struct.Struct(">II")
_ANNOUNCEMENTS, _UNROUTABLE = b"a", b"u"


class RedisPresence:
    """Both sides of the presence port, and what mirrors to Redis what came another way.

    Safe to use from many threads. :meth:`close` closes its connections.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, expiry_ms: int = 15_000) -> None:
        """
        Args:
          client: Returns bytes.
          expiry_ms: Life of an announcement.
        """
        self._keys = keys
        self._expiry = expiry_ms
        self._client = without_retries(client)
        self._owns_client = self._client is not client

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """Tell everybody, if it is the newest of its worker. A goodbye removes the worker at once.

        What is for other topics than those of presence does not belong here: it is left out.
        """
        if not is_presence_topic(presence.topic):
            return True
        counted, same = self._write([Accepted(presence, envelope, self._expiry)])
        return counted + same == 1

    def mirror(self, batch: Sequence[Accepted]) -> int:
        """Store and publish announcements from another source, and return how many were newer than those
        stored. Any number of processes may mirror the same announcements.

        Raises:
          OUTAGE_ERRORS: Some or all of them may not have been written; they can be retried.
        """
        waiting = iter(batch)
        counted = 0
        while part := list(islice(waiting, MAX_PER_BATCH)):
            counted += self._write(part)[0]
        return counted

    def distrust(self, worker_id: WorkerId, order: Order) -> bool:
        """Publish that a worker lost an attempt: announcements up to ``order`` do not make it routable.
        Return False if something newer is known of it, or this was already known.

        Raises:
          OUTAGE_ERRORS: It cannot be published now.
        """
        key = self._keys.fleet_unroutable
        return bool(PRESENCE_SCRIPTS.run(self._client, "distrust", key, worker_id, *order))

    def distrust_newest(self, boot_id: BootId) -> bool:
        """The same up to the newest announcement that was written of a worker, where that is of this run of
        it or an older one. Return False where nothing was written, or it is of a newer one.

        Raises:
          OUTAGE_ERRORS: It cannot be published now.
        """
        worker, counter = worker_of(boot_id), boot_id.partition(".")[2]
        written: Any = self._client.hget(self._keys.fleet_order, worker)
        order = _orders([(worker.encode(), written or b"")]).get(worker)
        if order is None or not counter.isdigit() or int(counter) < order.boot_counter:
            return False
        return self.distrust(worker, order)

    def orders(self) -> Mapping[WorkerId, Order]:
        """The newest order that was written of each worker, also of those that are gone.

        Raises:
          OUTAGE_ERRORS: Redis cannot be asked now.
        """
        words = PRESENCE_SCRIPTS.run(self._client, "orders", self._keys.fleet_order).split()
        return _orders(zip(words[::2], words[1::2], strict=True))

    def read_all(self) -> Sequence[Heard]:
        """The envelopes that have not expired by Redis's clock."""
        return self._read(self.orders())

    def read_newer(self, known: Mapping[WorkerId, Order]) -> Sequence[News]:
        """The envelopes that have not expired by Redis's clock and are newer than ``known``; then who is
        unroutable."""
        orders = self.orders().items()
        newer = [worker for worker, order in orders if worker not in known or order > known[worker]]
        heard = self._read(newer)
        marks: Any = self._client.hgetall(self._keys.fleet_unroutable)
        return [*heard, *(Unroutable(*mark) for mark in _orders(marks.items()).items())]

    def subscribe(self) -> _RedisSubscription:
        return _RedisSubscription(self._client, self._keys.fleet_news)

    def close(self) -> None:
        """Close the connections."""
        if self._owns_client:
            self._client.close()

    def _write(self, batch: Sequence[Accepted]) -> tuple[int, int]:
        arguments: list[Argument] = []
        for presence, envelope, life_ms in batch:
            arguments += (
                *(presence.worker_id, envelope, presence.boot_counter, presence.sequence),
                *(max(0, min(life_ms, _MAX_LIFE)), int(presence.state is WorkerState.STOPPED)),
            )
        counted, same = PRESENCE_SCRIPTS.run(self._client, "announce", self._keys.fleet_presence, *arguments)
        return counted, same

    def _read(self, workers: Iterable[WorkerId]) -> list[Heard]:
        waiting = iter(workers)
        heard: list[Heard] = []
        while page := list(islice(waiting, _PAGE)):
            # No transaction: at its memory limit Redis refuses those, and the fleet would be unknown.
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.time()
                pipeline.zmscore(self._keys.fleet_expiry, [*page])
                (seconds, microseconds), expiries = pipeline.execute()
            now = seconds * 1000 + microseconds // 1000
            # Most that are not known are long gone: their envelopes are not worth the way.
            lives = {
                worker: int(expiry) - now
                for worker, expiry in zip(page, expiries, strict=True)
                if expiry is not None and expiry > now
            }
            if lives:
                envelopes: Any = self._client.hmget(self._keys.fleet_presence, list(lives))
                heard += (
                    Heard(envelope, life_ms)
                    for envelope, life_ms in zip(envelopes, lives.values(), strict=True)
                    if envelope is not None
                )
        return heard


class _RedisSubscription:
    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._waiting: deque[News] = deque()
        self._news = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        try:
            self._news.subscribe(channel)
            # The answer means that news from here on arrives; only then may all be read.
            self._news.get_message(ignore_subscribe_messages=False, timeout=5.0)
        except BaseException:
            self._news.close()
            raise

    def next(self, timeout: float) -> Sequence[News]:
        patience = 0.0 if self._waiting else timeout
        while len(self._waiting) < MAX_AT_ONCE:
            message = self._news.get_message(timeout=patience)
            if message is None:
                break
            if message["type"] == "message":
                self._waiting.extend(unpack(message["data"]))
            patience = 0.0
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_AT_ONCE))]

    def close(self) -> None:
        self._news.close()


def unpack(message: bytes) -> Iterator[News]:
    """The news in one message of the channel. Where a message is cut off or none of ours, the rest of it is
    left out."""
    kind, rest = message[:1], message[1:]
    if kind == _ANNOUNCEMENTS:
        place = 0
        while place + _HEAD.size <= len(rest):
            life_ms, length = _HEAD.unpack_from(rest, place)
            place += _HEAD.size
            if place + length > len(rest):
                return
            yield Heard(rest[place : place + length], life_ms)
            place += length
    elif kind == _UNROUTABLE:
        worker, _, order = rest.partition(b" ")
        yield from (Unroutable(*mark) for mark in _orders([(worker, order)]).items())


def _orders(written: Iterable[tuple[bytes, bytes]]) -> dict[WorkerId, Order]:
    orders: dict[WorkerId, Order] = {}
    for worker, order in written:
        boot_counter, _, sequence = order.partition(b":")
        if boot_counter.isdigit() and sequence.isdigit() and len(order) <= _MAX_ORDER_BYTES:
            orders[WorkerId(worker.decode("ascii", "replace"))] = Order(int(boot_counter), int(sequence))
    return orders
