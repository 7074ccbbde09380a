"""Dramatiq's Redis broker with every command carried out by a script of ours."""

from __future__ import annotations

import os
import random
import threading
from typing import Any, cast
from uuid import uuid4

import redis
from dramatiq.brokers.redis import MAINTENANCE_SCALE, RedisBroker
from dramatiq.common import q_name

from tether.broker.keys import Keys
from tether.broker.redis.connections import OUTAGE_ERRORS, without_retries
from tether.broker.redis.raw_connections import RawConnections
from tether.broker.redis.severing import make_severable
from tether.broker.scripts import BROKER_SCRIPTS
from tether.errors import ConfigError
from tether.telemetry import metrics


class ScriptedBroker(RedisBroker):
    """The layout and the ``do_*`` commands that Dramatiq's tools know, over the scripts beside this module.

    Attributes:
      keys: The keys of its namespace.
      careful_client: A client that sends each command once.
      lines: The quick way to Redis.
    """

    def __init__(self, keys: Keys, **options: Any) -> None:
        """
        Args:
          keys: The keys of its namespace.
          options: As ``RedisBroker`` takes them.

        Raises:
          ConfigError: The client decodes responses.
        """
        self.keys = keys
        self._owns_client = options.get("client") is None
        super().__init__(namespace=keys.prefix, **options)  # type: ignore[no-untyped-call]  # in Dramatiq
        if self.client.connection_pool.connection_kwargs.get("decode_responses"):
            raise ConfigError(
                "the Redis client of a TetherBroker must not decode responses, since messages are bytes: "
                "create it without decode_responses=True"
            )
        if self._owns_client:
            make_severable(self.client.connection_pool)
        self._thread_state = threading.local()
        self._idle_producers: list[str] = []
        self.open_connections()

    def open_connections(self) -> None:
        """Start with new connections, as a process must that inherited its parent's."""
        self.careful_client = without_retries(self.client)
        self.lines = RawConnections.like(self.careful_client, self.keys.heartbeats)

    def close(self) -> None:
        """Close the connections that the broker opened for itself."""
        self.lines.close()
        if self.careful_client is not self.client:
            self.careful_client.close()
        if self._owns_client:
            # Not those in use: whoever reads a reply over one would get an AttributeError.
            self.client.connection_pool.disconnect(inuse_connections=False)
        super().close()

    def run(self, script: str, *arguments: Any, client: redis.Redis | None = None) -> Any:
        """Run one of the scripts in ``tether/broker/lua`` by the program's client, with its retries."""
        return BROKER_SCRIPTS.run(client or self.client, script, self.keys.heartbeats, *arguments)

    def call(self, script: str, *arguments: Any) -> Any:
        """Run a script that can be sent again on the quick way, and by :meth:`run` where that fails."""
        try:
            return self.lines.run(script, *arguments)
        except OUTAGE_ERRORS:
            return self.run(script, *arguments)

    @property
    def _producer(self) -> str:
        """Name of this thread in Redis: it places one thing at a time, so its last one is enough to know."""
        state = self._thread_state
        if getattr(state, "producer_of", None) != os.getpid():
            state.producer_of, state.producer = os.getpid(), uuid4().hex
        return cast(str, state.producer)

    def do_enqueue(self, queue_name: str, redis_id: str | bytes, data: bytes) -> int:
        self._maybe_maintain()
        # Names are used again, since programs may have a thread for each request.
        try:
            producer = self._idle_producers.pop()
        except IndexError:
            producer = uuid4().hex
        try:
            return cast(int, self.call("enqueue", queue_name, redis_id, data, f"{os.getpid()}-{producer}"))
        finally:
            self._idle_producers.append(producer)

    def do_fetch(self, queue_name: str, count: int) -> list[bytes]:
        answer = self._command("take", queue_name, self.broker_id, count)
        return cast(list[bytes], answer[1::3])

    def do_ack(self, queue_name: str, redis_id: str | bytes, *followers: str | bytes) -> int:
        return self._end("ack", metrics.MESSAGES_ACKNOWLEDGED, queue_name, redis_id, *followers)

    def do_nack(self, queue_name: str, redis_id: str | bytes, *followers: str | bytes) -> int:
        return self._end("nack", metrics.MESSAGES_DEAD_LETTERED, queue_name, redis_id, *followers)

    def _end(
        self, script: str, counter: Any, queue_name: str, redis_id: str | bytes, *followers: str | bytes
    ) -> int:
        broker_id = getattr(self._thread_state, "answers_as", None) or self.broker_id
        held = cast(int, self.call(script, queue_name, broker_id, redis_id, self._producer, *followers))
        if held:
            counter.labels(queue=q_name(queue_name)).inc()
        else:
            metrics.FENCED_WRITES.labels(command=script).inc()
        return held

    def do_requeue(self, queue_name: str, *redis_ids: str | bytes) -> int:
        return cast(int, self._command("requeue", queue_name, self.broker_id, *redis_ids))

    def do_purge(self, queue_name: str) -> int:
        return cast(int, self._command("purge", queue_name, self.broker_id))

    def do_qsize(self, queue_name: str) -> int:
        return cast(int, self._command("qsize", queue_name, self.broker_id))

    def _command(self, script: str, *arguments: Any) -> Any:
        self._maybe_maintain()
        return self.run(script, *arguments)

    def _maybe_maintain(self) -> None:
        if self.maintenance_chance and random.randint(1, MAINTENANCE_SCALE) <= self.maintenance_chance:
            self.maintain()

    def maintain(self) -> None:
        """Look after all queues, as a worker's heartbeat does. Nothing here: a subclass knows of workers."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
