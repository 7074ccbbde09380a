"""Presence over Redis: the newest envelope of each worker, with Redis's time, and a channel for news."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from tether.broker.connections import raise_if_refused, without_retries
from tether.broker.keys import Keys
from tether.discovery.announcements.presence import Order, Presence, WorkerState
from tether.discovery.port import MOST_AT_ONCE, Accepted, Heard, News, Unroutable
from tether.discovery.topics import is_presence_topic

MOST_IN_A_BATCH = 256
"""Announcements that one call of the script writes."""

_PAGE = 512
_LONGEST_LIFE = 2**32 - 1
_LONGEST_ORDER = 40
_SCRIPTS = Path(__file__).with_name("lua")
_HEAD = struct.Struct(">II")
_ANNOUNCEMENTS, _UNROUTABLE = b"a", b"u"


class RedisPresence:
    """Both sides of the presence port, and what mirrors to Redis what came another way.

    Safe to use from many threads. :meth:`close` closes its connections.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, expiry_ms: int = 15_000) -> None:
        """
        Args:
          client: Answers in bytes.
          expiry_ms: Life of an announcement.
        """
        self._keys = keys
        self._expiry = expiry_ms
        self._client = without_retries(client)
        self._owns_client = self._client is not client
        self._announce = self._script("announce.lua")
        self._distrust = self._script("distrust.lua")
        self._orders = self._script("orders.lua")

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """Tell everybody, if it is the newest of its worker. A goodbye removes the worker at once.

        What is for other topics than those of presence does not belong here: it is left out.
        """
        if not is_presence_topic(presence.topic):
            return True
        counted, same = self._write([Accepted(presence, envelope, self._expiry)])
        return counted + same == 1

    def mirror(self, batch: Sequence[Accepted]) -> int:
        """Write down and tell everybody what was heard another way. Answers how many were newer than what was
        there. Any number of processes may mirror the same announcements.

        Raises:
          OUTAGE_ERRORS: Some or all of them may not have been written; they can be sent again.
        """
        waiting = iter(batch)
        counted = 0
        while part := list(islice(waiting, MOST_IN_A_BATCH)):
            counted += self._write(part)[0]
        return counted

    def distrust(self, worker: str, order: Order) -> bool:
        """Tell everybody that a worker lost an attempt: what it announced up to ``order`` does not make it
        routable. Answers False where something newer is known of it, or this was known.

        Raises:
          OUTAGE_ERRORS: Nobody can be told now.
        """
        return bool(self._run(self._distrust, self._keys.fleet_unroutable, (worker, *order)))

    def orders(self) -> Mapping[str, Order]:
        """The newest order that was written of each worker, also of those that are gone.

        Raises:
          OUTAGE_ERRORS: Redis cannot be asked now.
        """
        words = self._run(self._orders, self._keys.fleet_order, ()).split()
        return _orders(zip(words[::2], words[1::2], strict=True))

    def read_all(self) -> Sequence[Heard]:
        """The envelopes that have not expired by Redis's clock."""
        return self._read(self.orders())

    def read_newer(self, known: Mapping[str, Order]) -> Sequence[News]:
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

    def _script(self, name: str) -> Any:
        return self._client.register_script((_SCRIPTS / name).read_text(encoding="utf-8"))

    def _run(self, script: Any, key: str, arguments: Sequence[bytes | str | int]) -> Any:
        try:
            return script(keys=[key], args=arguments)
        except redis.ResponseError as error:
            raise_if_refused(error)
            raise

    def _write(self, batch: Sequence[Accepted]) -> tuple[int, int]:
        arguments: list[bytes | str | int] = []
        for presence, envelope, life_ms in batch:
            arguments += (
                *(presence.worker_id, envelope, presence.boot_counter, presence.sequence),
                *(max(0, min(life_ms, _LONGEST_LIFE)), int(presence.state is WorkerState.STOPPED)),
            )
        counted, same = self._run(self._announce, self._keys.fleet_presence, arguments)
        return counted, same

    def _read(self, workers: Iterable[str]) -> list[Heard]:
        waiting = iter(workers)
        heard: list[Heard] = []
        while page := list(islice(waiting, _PAGE)):
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.time()
                pipeline.zmscore(self._keys.fleet_expiry, page)
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
        while len(self._waiting) < MOST_AT_ONCE:
            message = self._news.get_message(timeout=patience)
            if message is None:
                break
            if message["type"] == "message":
                self._waiting.extend(unpack(message["data"]))
            patience = 0.0
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]

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


def _orders(written: Iterable[tuple[bytes, bytes]]) -> dict[str, Order]:
    orders: dict[str, Order] = {}
    for worker, order in written:
        boot_counter, _, sequence = order.partition(b":")
        if boot_counter.isdigit() and sequence.isdigit() and len(order) <= _LONGEST_ORDER:
            orders[worker.decode("ascii", "replace")] = Order(int(boot_counter), int(sequence))
    return orders
