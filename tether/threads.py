"""Threads that have an owner: each is named, started once, and ended within a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import structlog

STOP_SECONDS = 60.0
"""How long an owner waits for its thread to end, unless it says otherwise."""


def _nothing() -> None:
    return


def _log() -> structlog.stdlib.BoundLogger:
    # Loaded when there is something to say: the command line starts without it.
    from tether.telemetry.logs import get_logger

    return get_logger("tether.threads")


class OwnedThread:
    """The thread ``tether-<name>``, from :meth:`start` to :meth:`stop`. Safe to use from many threads.

    Whoever makes it owns it, and stops it. It is a daemon: a program that ends without that does not hang.
    """

    def __init__(
        self, name: str, run: Callable[[], object], *, ask_to_stop: Callable[[], object] = _nothing
    ) -> None:
        """
        Args:
          name: Of the thread, without ``tether-``.
          run: What the thread does. What it raises is logged, and ends the thread.
          ask_to_stop: Called by :meth:`stop`, at each call: lets ``run`` return soon.
        """
        self.name = f"tether-{name}"
        self._run = run
        self._ask_to_stop = ask_to_stop
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether it is this thread that asks."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start the thread. A second call does nothing.

        Raises:
          RuntimeError: The system has no thread to give; a later call may succeed.
        """
        with self._lock:
            if self._thread is None:
                # Known before it runs: it may ask at once whether it is the current one.
                self._thread = threading.Thread(target=self._carry_out, name=self.name, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None
                    raise

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds. From the thread itself it does not wait.

        Returns:
          Whether there is no such thread now.
        """
        with self._lock:
            thread = self._thread
        if thread is None:
            return True
        if thread is not threading.current_thread():
            thread.join(timeout)
        return not thread.is_alive()

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """Ask the thread to end and wait for that, at most ``timeout`` seconds. May be repeated, and called
        where it was never started.

        Returns:
          Whether there is no such thread now. Where there still is, that is logged.
        """
        self._ask_to_stop()
        has_ended = self.join(timeout)
        if not has_ended and not self.is_current:
            _log().error("A thread does not stop. Continuing without it.", thread=self.name, seconds=timeout)
        return has_ended

    def _carry_out(self) -> None:
        try:
            self._run()
        except Exception:
            _log().exception("A thread ended by an error.", thread=self.name)
