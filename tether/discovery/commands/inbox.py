"""Commands over Redis: an inbox for each worker, and a channel that says that something was put into one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import redis

from tether.broker.connections import OUTAGE_ERRORS, raise_if_refused, without_retries
from tether.broker.keys import Keys
from tether.discovery.commands.command import LONGEST_LIFE_MS, Command
from tether.telemetry.logs import get_logger

MOST_WAITING = 64
"""Commands in one inbox; the oldest make room."""

LONGEST_LISTEN_SECONDS = 0.25
"""How long the thread may take to notice that it shall stop."""

PAUSE_AFTER_OUTAGE_SECONDS = 0.5
_ANSWER_SECONDS = 5.0


def send_command(client: redis.Redis, keys: Keys, command: Command, envelope: bytes) -> None:
    """Put a command into its worker's inbox, and tell those who follow.

    Raises:
      OUTAGE_ERRORS: Redis is away: it may have been sent, or not. To send the same again does no harm.
    """
    inbox = keys.inbox(command.target)
    with client.pipeline(transaction=True) as pipeline:
        pipeline.rpush(inbox, envelope)
        pipeline.ltrim(inbox, -MOST_WAITING, -1)
        pipeline.pexpire(inbox, LONGEST_LIFE_MS)
        pipeline.publish(keys.fleet_commands, envelope)
        try:
            pipeline.execute()
        except redis.ResponseError as error:
            raise_if_refused(error)
            raise


class CommandFollower:
    """Hands on commands as they come, the same one perhaps several times, and none of them verified.

    It owns the thread ``tether-commands``, from :meth:`start` to :meth:`stop`, and goes on through outages.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        on_command: Callable[[bytes], object],
        *,
        worker: str | None = None,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          on_command: Called in the thread with each envelope. What it raises is logged.
          worker: Whose inbox is read too: at the start, after outages, and in each interval.
          interval: Seconds.
          clock: Seconds.
        """
        self._client = without_retries(client)
        self._owns_client = self._client is not client
        self._keys = keys
        self._on_command = on_command
        self._worker = worker
        self._interval = interval
        self._clock = clock
        self._log = get_logger("tether.commands")
        self._is_away = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tether-commands", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close the connections."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._owns_client:
            self._client.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except OUTAGE_ERRORS as error:
                if not self._is_away:
                    self._log.warning("Commands cannot be read from Redis. Going on.", error=str(error))
                self._is_away = True
            except Exception:
                self._log.exception("Reading commands failed. Going on.")
            self._stopping.wait(PAUSE_AFTER_OUTAGE_SECONDS)

    def _follow(self) -> None:
        news: Any = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        with closing(news):
            news.subscribe(self._keys.fleet_commands)
            # The answer means that commands from here on arrive; only then may the inbox be read.
            news.get_message(ignore_subscribe_messages=False, timeout=_ANSWER_SECONDS)
            read_at = self._clock()
            while not self._stopping.is_set():
                if self._clock() >= read_at:
                    self._read_inbox()
                    read_at = self._clock() + self._interval
                self._is_away = False
                message = news.get_message(timeout=LONGEST_LISTEN_SECONDS)
                if message is not None and message["type"] == "message":
                    self._hand_on(message["data"])

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
