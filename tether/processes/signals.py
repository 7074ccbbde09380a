"""The signals that a supervisor hears, as events of its selector."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

_MAX_AT_ONCE = 64


class SignalPipe:
    """Hands on signals that the process receives while :meth:`heard` lasts, and those that threads
    :meth:`send`. It owns a pipe, until :meth:`heard` ends.
    """

    def __init__(self) -> None:
        self._sending = threading.Lock()
        self._arrived, self._arriving = os.pipe()
        for descriptor in (self._arrived, self._arriving):
            os.set_blocking(descriptor, False)

    def send(self, number: int) -> None:
        """Hand on a signal as if the process had received it. From any thread, also before or after."""
        with self._sending:
            if self._arriving >= 0:
                os.write(self._arriving, bytes([number]))

    @contextlib.contextmanager
    def heard(self, numbers: Sequence[signal.Signals]) -> Iterator[int]:
        """While this lasts, hear these signals; belongs in the main thread. What it yields can be read while
        signals wait to be :meth:`taken`."""
        # In this order: a signal in between is heard.
        waker = signal.set_wakeup_fd(self._arriving)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        # Who started this process may have set that ends of children are ignored: none would be known.
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            yield self._arrived
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(waker)
            with self._sending:
                os.close(self._arrived)
                os.close(self._arriving)
                self._arriving = -1

    def taken(self) -> bytes:
        """The numbers of signals that wait, oldest first."""
        return os.read(self._arrived, _MAX_AT_ONCE)
