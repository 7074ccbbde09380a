"""Tells the queue that processes of workers have ended: what they ran goes on at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from tether.broker.keys import Keys
from tether.broker.pools.redis_port import RedisWorkerPort
from tether.broker.redis.connections import OUTAGE_ERRORS, connect
from tether.config.settings import Settings
from tether.discovery.trust.process_life import ProcessLife, lives_in
from tether.errors import EpochChanged
from tether.ids import BootId
from tether.processes.child_events import ChildEnded, ChildEvent
from tether.threads import OwnedThread

RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
"""So long after it ended nobody asks any more how a process did."""

MAX_WORDS = 1_024
"""Words that wait for Redis; the oldest ones give way."""


class _Word(NamedTuple):
    boot_id: BootId
    process: str
    how: str
    until: float


class ProcessEnds:
    """Says for processes that have ended what they cannot say themselves, as often as it takes.

    Owns the thread ``tether-process-ends``, from :meth:`start` to :meth:`stop`, and a connection to Redis
    while there is something to say.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
          settings: Where Redis is, and where the lives of workers' processes are written down.
          clock: Monotonic seconds.
        """
        self._settings = settings
        self._clock = clock
        self._changed = threading.Condition()
        self._words: deque[_Word] = deque(maxlen=MAX_WORDS)
        self._is_stopped = False
        self._log = structlog.stdlib.get_logger("tether.processes")
        self._thread = OwnedThread("process-ends", self._run, ask_to_stop=self._ask_to_stop)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, after one try to say what was not said."""
        self._thread.stop()

    def __enter__(self) -> ProcessEnds:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def tell_of_child(self, pid: int, how: str) -> None:
        """A child has ended. Where it was no worker that draws jobs, this does nothing.

        Args:
          how: See :func:`~tether.processes.ends.how_it_ended`.
        """
        folder = Path(self._settings.presence.identity_dir)
        for life in lives_in(folder):
            if life.pid == pid:
                self.tell(life, how)

    def tell(self, life: ProcessLife, how: str) -> None:
        """Say that a process has ended, and how. Does not block."""
        until = self._clock() + PATIENCE_SECONDS
        with self._changed:
            self._words.extend(_Word(boot_id, life.process, how, until) for boot_id in life.boot_ids)
            self._changed.notify_all()

    def _ask_to_stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._words or self._is_stopped)
                if not self._words:
                    return
            try:
                self._say_all()
            except OUTAGE_ERRORS as error:
                with self._changed:
                    if self._is_stopped:
                        self._log.warning(
                            "The ends of processes could not be told: leases say what goes on elsewhere.",
                            why=str(error),
                        )
                        return
                    self._changed.wait_for(lambda: self._is_stopped, RETRY_SECONDS)

    def _say_all(self) -> None:
        settings = self._settings
        keys = Keys(settings.redis.namespace, settings.redis.hash_tag)
        with contextlib.closing(connect(settings.redis.url)) as client:
            while self._words:
                word = self._words[0]
                if self._clock() < word.until:
                    self._say(RedisWorkerPort(client, keys, word.boot_id, settings.jobs.lease), word)
                with self._changed, contextlib.suppress(IndexError):
                    if self._words[0] == word:
                        self._words.popleft()

    def _say(self, port: RedisWorkerPort, word: _Word) -> None:
        with contextlib.closing(port):
            for _ in range(2):
                port.hello()
                try:
                    is_believed = port.gone(word.boot_id, word.process, word.how)
                except EpochChanged:
                    continue
                self._log.info(
                    "Told that a process ended.", worker=word.boot_id, how=word.how, ok=is_believed
                )
                return


def tell_of_end(ends: ProcessEnds, event: ChildEvent) -> None:
    """What a supervisor's ``on_event`` does for the queue: tell the ends of workers' processes."""
    if isinstance(event, ChildEnded) and event.pid is not None:
        ends.tell_of_child(event.pid, event.end)
