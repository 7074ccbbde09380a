"""Makes connections: addresses are tried, TLS is begun where it is wanted."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl

HEAD_START_SECONDS = 0.25
"""Of one address before the next is tried beside it."""


class HostAddress(NamedTuple):
    """An address of a host, and its family."""

    family: int
    address: tuple[Any, ...]


class Deadline:
    """Until when something is waited for: for each step, and for all of them together."""

    def __init__(self, each: float, ends_at: float) -> None:
        """
        Args:
          each: Longest wait for one step, in seconds.
          ends_at: When all is over, in seconds of the monotonic clock.
        """
        self.each = each
        self.ends_at = ends_at

    def left(self) -> float:
        """Seconds that the next step may take.

        Raises:
          TimeoutError: None are left.
        """
        left = min(self.each, self.ends_at - time.monotonic())
        if left <= 0:
            raise TimeoutError
        return left


class HttpSocket:
    """One socket from its making to its end. Another thread may :meth:`abort` it at any time: then whoever
    waits for it goes on at once, and finds it ended."""

    def __init__(self) -> None:
        # Reentrant, as that of the connections is.
        self._lock = threading.RLock()
        self._sockets: list[socket.socket] = []
        """Those that are tried; from then on the one that was first."""
        self._is_aborted = False
        self._nothing_yet: tuple[type[OSError], ...] = (BlockingIOError,)

    def connect(self, addresses: Sequence[HostAddress], deadline: Deadline) -> None:
        """Connect to the first address that answers. The next one is tried too where one is slow or fails, as
        RFC 8305 says: a host may have addresses that lead nowhere.

        Raises:
          OSError: None can be reached; that of the last that failed.
        """
        waiting = list(addresses)
        trying: dict[int, socket.socket] = {}
        failed: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        poll = select.poll()
        while waiting or trying:
            if waiting:
                try:
                    begun = self._begin(waiting.pop(0))
                except ConnectionAbortedError:
                    raise
                except OSError as error:
                    failed = error
                    continue
                trying[begun.fileno()] = begun
                poll.register(begun, select.POLLOUT)
            left = deadline.left()
            ready = poll.poll(1000 * (min(left, HEAD_START_SECONDS) if waiting else left))
            self._check()
            for number, _ in ready:
                found = trying.pop(number)
                code = found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    self._keep(found)
                    return
                poll.unregister(number)
                self._drop(found)
                failed = OSError(code, os.strerror(code))
        raise failed

    def _begin(self, address: HostAddress) -> socket.socket:
        made = socket.socket(address.family, socket.SOCK_STREAM)
        with self._lock:
            self._sockets.append(made)
        made.setblocking(False)
        code = made.connect_ex(address.address)
        # Looked at only now: an abort from here on wakes the wait.
        self._check()
        if code not in (0, errno.EINPROGRESS):
            self._drop(made)
            raise OSError(code, os.strerror(code))
        return made

    def _keep(self, kept: socket.socket) -> None:
        kept.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            others = [each for each in self._sockets if each is not kept]
            self._sockets = [kept]
        for other in others:
            other.close()

    def _drop(self, dropped: socket.socket) -> None:
        with self._lock:
            self._sockets.remove(dropped)
        dropped.close()

    def _check(self) -> None:
        if self._is_aborted:
            raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))

    def secure(self, context: ssl.SSLContext, host: str, deadline: Deadline) -> None:
        """Begin TLS.

        Raises:
          OSError: It failed.
        """
        import ssl

        self._nothing_yet = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        with self._lock:
            (plain,) = self._sockets
            secured = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            self._sockets = [secured]
        self._check()
        secured.settimeout(deadline.left())
        secured.do_handshake()

    def receive(self, size: int, deadline: Deadline) -> bytes:
        """What comes next; nothing at the end."""
        (connected,) = self._sockets
        connected.settimeout(deadline.left())
        return connected.recv(size)

    def begin_to_poll(self) -> int:
        """From now on only :meth:`receive_now` is called. Answers the socket's number, for others to poll."""
        (connected,) = self._sockets
        connected.setblocking(False)
        return connected.fileno()

    def receive_now(self, size: int) -> bytes | None:
        """What has come; nothing at the end, None where nothing has yet. ``size`` is that of a record of TLS
        at least: then nothing is left that a poll would not show."""
        (connected,) = self._sockets
        try:
            return connected.recv(size)
        except self._nothing_yet:
            return None

    def send(self, data: memoryview, deadline: Deadline) -> int:
        """Send a part of it. Answers how many bytes that were."""
        (connected,) = self._sockets
        connected.settimeout(deadline.left())
        return connected.send(data)

    def poll(self, events: int, seconds: float) -> int:
        """Which of poll's events are there within so many seconds."""
        poll = select.poll()
        poll.register(self._sockets[0], events)
        return next((found for _, found in poll.poll(seconds * 1000)), 0)

    def abort(self) -> None:
        """End it, from any thread. It is still to be closed by whoever uses it."""
        with self._lock:
            self._is_aborted = True
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    # That of TLS would touch what another thread uses.
                    socket.socket.shutdown(each, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. Nobody else may be using it any more."""
        with self._lock:
            for each in self._sockets:
                each.close()
