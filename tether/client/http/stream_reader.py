"""The thread that reads all streams of a client."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from typing import Protocol

from tether.client.lifetime import closed
from tether.errors import TetherError
from tether.threads import OwnedThread

MAX_TICK_SECONDS = 1.0
"""So often at least it is looked which streams have been silent for too long."""


class ReadStream(Protocol):
    """A stream as its reader sees it. All its methods are called on the reader's thread, and none blocks."""

    due: float
    """When something is to have come, in seconds of the monotonic clock."""

    def begin_to_poll(self) -> int:
        """The number of the socket that is to be polled for it."""

    def read(self) -> bool:
        """Take what has come. Answers whether it is to be read on."""

    def overdue(self) -> None:
        """Nothing has come for too long. It is not read on."""

    def leave(self) -> bool:
        """Go on elsewhere, where it is not read on. Answers whether it could; else it is asked again soon."""


class StreamReader:
    """Owns the thread ``tether-http-streams``, from the first stream until it is stopped. With a thread for
    each, a thousand streams would spend most of their time on taking turns."""

    def __init__(self, tick: float) -> None:
        """
        Args:
          tick: So often it is looked whether streams are overdue, in seconds.
        """
        self._tick = min(tick, MAX_TICK_SECONDS)
        # Reentrant: a client that is forgotten is stopped wherever garbage is collected, here too.
        self._lock = threading.RLock()
        self._coming: deque[ReadStream] = deque()
        self._leaving: deque[ReadStream] = deque()
        self._read: dict[int, ReadStream] = {}
        self._is_stopping = False
        self._poll: select.epoll | None = None
        self._bell = -1
        self.thread = OwnedThread("http-streams", self._run, ask_to_stop=self.ask_to_stop)

    def add(self, stream: ReadStream) -> None:
        """Have it read from now on, on any thread.

        Raises:
          ClientClosed: The reader was stopped. It does not have the stream.
          TetherError: The process has no file or no thread for the reader, which does not have the stream.
        """
        with self._lock:
            if self._is_stopping:
                raise closed()
            try:
                self._begin()
            except (OSError, RuntimeError) as error:
                raise TetherError(
                    f"the stream cannot be read: the process has no thread or no file for it ({error})"
                ) from None
            self._coming.append(stream)
            os.eventfd_write(self._bell, 1)

    def _begin(self) -> None:
        if self._poll is None:
            poll = select.epoll()
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            poll.register(self._bell, select.EPOLLIN)
            self._poll = poll
        self.thread.start()

    def ask_to_stop(self) -> None:
        """Let the thread end soon: the streams that it has go on elsewhere."""
        with self._lock:
            self._is_stopping = True
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        try:
            self._read_all()
        finally:
            # After an error, too: nobody may wait for what is never read.
            self._end()

    def _read_all(self) -> None:
        assert self._poll is not None
        looks_at = time.monotonic() + self._tick
        while not self._is_stopping:
            for number, _ in self._poll.poll(max(looks_at - time.monotonic(), 0.0)):
                if number == self._bell:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._bell)
                    self._take_coming()
                elif number in self._read:
                    self._step(number)
            if (now := time.monotonic()) >= looks_at:
                looks_at = now + self._tick
                self._look(now)

    def _take_coming(self) -> None:
        assert self._poll is not None
        while self._coming:
            stream = self._coming.popleft()
            number = stream.begin_to_poll()
            self._read[number] = stream
            self._poll.register(number, select.EPOLLIN)
            # Something may have come together with the response's head.
            self._step(number)

    def _step(self, number: int) -> None:
        if not self._read[number].read():
            self._drop(number)

    def _look(self, now: float) -> None:
        for number, stream in list(self._read.items()):
            if stream.due <= now:
                stream.overdue()
                self._drop(number)
        for _ in range(len(self._leaving)):
            self._leave(self._leaving.popleft())

    def _drop(self, number: int) -> None:
        assert self._poll is not None
        stream = self._read.pop(number)
        self._poll.unregister(number)
        self._leave(stream)

    def _leave(self, stream: ReadStream) -> None:
        if not stream.leave():
            self._leaving.append(stream)

    def _end(self) -> None:
        with self._lock:
            self._is_stopping = True
            rest = [*self._read.values(), *self._coming, *self._leaving]
            assert self._poll is not None
            self._poll.close()
            os.close(self._bell)
            self._bell = -1
        for stream in rest:
            stream.overdue()
            stream.leave()
