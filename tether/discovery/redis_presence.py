"""Presence over Redis: the newest envelope of each worker, with Redis's time, and a channel for news."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import redis

from tether.broker.connections import raise_if_refused, without_retries
from tether.broker.keys import Keys
from tether.discovery.port import Heard
from tether.discovery.wire import Presence, WorkerState

_SCRIPT = Path(__file__).with_name("lua") / "announce.lua"


class RedisPresence:
    """Both sides of the presence port. Safe to use from many threads.

    :meth:`close` closes its connections.
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
        self._announce = self._client.register_script(_SCRIPT.read_text(encoding="utf-8"))

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """Tell everybody, if it is the newest of its worker. A goodbye removes the worker at once."""
        arguments = (
            *(presence.worker_id, envelope, presence.boot_counter, presence.sequence),
            *(self._expiry, int(presence.state is WorkerState.STOPPED)),
        )
        try:
            return bool(self._announce(keys=[self._keys.fleet_presence], args=arguments))
        except redis.ResponseError as error:
            raise_if_refused(error)
            raise

    def read_all(self) -> Sequence[Heard]:
        """The envelopes that have not expired by Redis's clock."""
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.zrange(self._keys.fleet_expiry, 0, -1, withscores=True)
            pipeline.hgetall(self._keys.fleet_presence)
            (seconds, microseconds), expiries, envelopes = pipeline.execute()
        now = seconds * 1000 + microseconds // 1000
        return [
            Heard(envelopes[worker], int(expiry) - now)
            for worker, expiry in expiries
            if worker in envelopes and expiry > now
        ]

    def subscribe(self) -> _RedisSubscription:
        return _RedisSubscription(self._client, self._keys.fleet_news)

    def close(self) -> None:
        """Close the connections."""
        if self._owns_client:
            self._client.close()


class _RedisSubscription:
    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._news = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        try:
            self._news.subscribe(channel)
            # The answer means that news from here on arrives; only then may all be read.
            self._news.get_message(ignore_subscribe_messages=False, timeout=5.0)
        except BaseException:
            self._news.close()
            raise

    def next(self, timeout: float) -> bytes | None:
        message = self._news.get_message(timeout=timeout)
        return message["data"] if message is not None and message["type"] == "message" else None

    def close(self) -> None:
        self._news.close()
