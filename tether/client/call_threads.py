"""Threads for blocking calls. A program may end without waiting for them."""

from __future__ import annotations

import functools
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from tether.threads import OwnedThread

_Answer = TypeVar("_Answer")


class CallThreads:
    """Owns the threads ``tether-<name>_<n>``, from the first call to :meth:`close`. Safe to use from many
    threads.

    Those of :class:`concurrent.futures.ThreadPoolExecutor` are waited for at a program's end, however long a
    call takes; these are not.
    """

    def __init__(self, name: str, most: int) -> None:
        """
        Args:
          most: Calls that are under way at once. Others wait.
        """
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[OwnedThread] = []
        self._is_closed = False
        # Threads know what they take from alone: who is forgotten shall not keep them.
        weakref.finalize(self, self._tasks.put, None).atexit = False

    def submit(self, function: Callable[[], _Answer]) -> Future[_Answer] | None:
        """Begin a call. Answers None where the threads are closed.

        Raises:
          RuntimeError: There is no thread for it.
        """
        future: Future[_Answer] = Future()
        with self._lock:
            if self._is_closed:
                return None
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
                self._start_one()
            self._tasks.put(functools.partial(_carry_out, future, function))
        return future

    def _start_one(self) -> None:
        tasks, idle = self._tasks, self._idle
        thread = OwnedThread(f"{self._name}_{len(self._threads)}", lambda: _work(tasks, idle))
        try:
            thread.start()
        except RuntimeError:
            # The others do it later.
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def close(self, timeout: float | None = None) -> None:
        """End the threads, once their calls have ended. Blocks. May be repeated.

        Args:
          timeout: Longest wait for them, in seconds.
        """
        with self._lock:
            self._is_closed = True
            self._tasks.put(None)
        ends_at = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if ends_at is None else max(ends_at - time.monotonic(), 0.0))


def _work(tasks: queue.SimpleQueue[Callable[[], None] | None], idle: threading.Semaphore) -> None:
    while (task := tasks.get()) is not None:
        task()
        # What it answered is not kept until the next one.
        del task
        idle.release()
    # The others end as well.
    tasks.put(None)


def _carry_out(future: Future[_Answer], function: Callable[[], _Answer]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        answer = function()
    except BaseException as error:
        future.set_exception(error)
        # The error has this frame, which would have the error.
        del future
    else:
        future.set_result(answer)
