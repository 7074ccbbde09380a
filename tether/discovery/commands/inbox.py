"""Commands over Redis: an inbox for each worker, and a channel that says that something was put into one.

A worker hears there as well what else it would find out by itself, only later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import OUTAGE_ERRORS, without_retries
from tether.broker.scripts import Scripts
from tether.discovery.commands.command import MAX_LIFE_MS, Command
from tether.ids import WorkerId
from tether.loops import Loop, Outage
from tether.telemetry.logs import get_logger
from tether.threads import STOP_SECONDS

MAX_WAITING = 64
"""Commands in one inbox; the oldest make room."""

MAX_LISTEN_SECONDS = 0.25
"""How long the thread may take to notice that it shall stop."""

_ANSWER_SECONDS = 5.0

NO_HINTS: Mapping[str, Callable[[], object]] = MappingProxyType({})

_SCRIPTS = Scripts(Path(__file__).with_name("lua"))


def send_command(client: redis.Redis, keys: Keys, command: Command, envelope: bytes) -> None:
    """Put a command into its worker's inbox, and tell those who follow; at Redis's memory limit too.

    Raises:
      OUTAGE_ERRORS: Redis is away: it may have been sent, or not. To send the same again does no harm.
    """
    inbox = keys.inbox(command.target)
    _SCRIPTS.run(client, "send", inbox, envelope, keys.fleet_commands, MAX_WAITING, MAX_LIFE_MS)


class CommandFollower:
    """Hands on commands as they come, the same one perhaps several times, and none of them verified.

    It owns the thread ``tether-commands``, from :meth:`start` to :meth:`stop`, and goes on through outages.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        on_command: Callable[[bytes], object],
        *,
        worker: WorkerId | None = None,
        hints: Mapping[str, Callable[[], object]] = NO_HINTS,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          on_command: Called in the thread with each envelope. What it raises is logged.
          worker: Whose inbox is read too: at the start, after outages, and in each interval.
          hints: Further channels, and what is called in the thread where something is said in one; at the
            start and after outages too, as it may have been said before. It must be quick, and raise nothing.
          interval: Seconds.
          clock: Seconds.
        """
        self._client = without_retries(client)
        self._owns_client = self._client is not client
        self._keys = keys
        self._on_command = on_command
        self._worker = worker
        self._hints = {channel.encode(): act for channel, act in hints.items()}
        self._interval = interval
        self._clock = clock
        self._log = get_logger("tether.commands")
        self._channel: Any = None
        self._read_at = 0.0
        self.loop = Loop(
            "commands",
            self._step,
            at_end=self._unsubscribe,
            outage=Outage(
                OUTAGE_ERRORS,
                self._log,
                begins="Commands cannot be read from Redis. Continuing.",
                ends="Commands are read from Redis again.",
            ),
            log=self._log,
        )

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, waiting for that at most ``timeout`` seconds, and close the connections."""
        self.loop.stop(timeout)
        if self._owns_client:
            self._client.close()

    def _step(self) -> float:
        try:
            self._listen()
        except BaseException:
            self._unsubscribe()
            raise
        return 0

    def _listen(self) -> None:
        if self._channel is None:
            self._channel = self._subscribe()
            self._read_at = self._clock()
            for act in self._hints.values():
                act()
        if self._clock() >= self._read_at:
            self._read_inbox()
            self._read_at = self._clock() + self._interval
        message = self._channel.get_message(timeout=MAX_LISTEN_SECONDS)
        if message is None or message["type"] != "message":
            return
        hint = self._hints.get(message["channel"])
        if hint is not None:
            hint()
        else:
            self._hand_on(message["data"])

    def _subscribe(self) -> Any:
        channel: Any = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        try:
            channel.subscribe(self._keys.fleet_commands, *self._hints)
            # The answers mean that what is said from here on arrives; only then may the inbox be read.
            for _ in range(1 + len(self._hints)):
                channel.get_message(ignore_subscribe_messages=False, timeout=_ANSWER_SECONDS)
        except BaseException:
            channel.close()
            raise
        return channel

    def _unsubscribe(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _read_inbox(self) -> None:
        if self._worker is None:
            return
        waiting: list[Any] = self._client.lrange(self._keys.inbox(self._worker), 0, -1)
        for envelope in waiting:
            self._hand_on(envelope)

    def _hand_on(self, envelope: bytes) -> None:
        try:
            self._on_command(envelope)
        except Exception:
            self._log.exception("A command failed.")
