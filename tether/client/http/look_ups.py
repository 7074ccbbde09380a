"""Looks up the names of hosts. Nothing can end a look-up that was begun: all who want a name share it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from dataclasses import dataclass, field

from tether.client.http.connecting import Deadline, HostAddress
from tether.threads import OwnedThread

ANOTHER_AFTER_SECONDS = 10.0
"""A look-up that takes so long may never end, while another one would: it is begun beside it. The pause
doubles with each: of a name that is never found there are about fifteen after a day."""


def look_up(host: str, port: int, deadline: Deadline, done: threading.Event) -> list[HostAddress]:
    """Addresses of a host, in the order in which they are to be tried.

    A look-up runs on a thread of its own, ``tether-http-lookup``, which ends with it.

    Args:
      done: Set once there is an answer, or by whoever does not want to wait for it any more.

    Raises:
      OSError: There are none, or not in time.
    """
    name = host.encode("ascii") if host.isascii() else host.encode("idna")
    if _is_address(host):
        return _addresses(name, port, socket.AI_NUMERICHOST)
    wanted = _Wanted(done)
    look_ups = _of_this_process.want((name, port), wanted)
    try:
        if not done.wait(deadline.left()):
            raise TimeoutError
    finally:
        look_ups.leave(wanted)
    if wanted.found is None:
        raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
    if isinstance(wanted.found, OSError):
        raise wanted.found
    return wanted.found


@dataclass(eq=False)
class _Wanted:
    """Somebody who waits for an answer."""

    done: threading.Event
    found: list[HostAddress] | OSError | None = None


@dataclass
class _LookUps:
    """Those of one name that are under way, and who waits for whichever ends first."""

    lock: threading.Lock
    threads: list[OwnedThread] = field(default_factory=list)
    begun_at: float = 0.0
    """The last of them, in seconds of the monotonic clock."""
    wanted: list[_Wanted] = field(default_factory=list)

    def leave(self, wanted: _Wanted) -> None:
        with self.lock, contextlib.suppress(ValueError):
            self.wanted.remove(wanted)

    def is_another_due(self, now: float) -> bool:
        count = len(self.threads)
        return not count or now - self.begun_at >= ANOTHER_AFTER_SECONDS * 2 ** (count - 1)


class _SharedLookUps:
    """All that are under way in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_names: dict[tuple[bytes, int], _LookUps] = {}

    def want(self, place: tuple[bytes, int], wanted: _Wanted) -> _LookUps:
        """Wait for a name's addresses, together with whoever waits for them already.

        Raises:
          OSError: There is no thread for that.
        """
        now = time.monotonic()
        with self._lock:
            look_ups = self._of_names.setdefault(place, _LookUps(self._lock))
            look_ups.threads = [each for each in look_ups.threads if each.is_alive]
            if look_ups.is_another_due(now):
                self._begin(place, look_ups, now)
            look_ups.wanted.append(wanted)
        return look_ups

    def _begin(self, place: tuple[bytes, int], look_ups: _LookUps, now: float) -> None:
        thread = OwnedThread("http-lookup", lambda: self._run(place, look_ups))
        look_ups.threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            look_ups.threads.remove(thread)
            if not look_ups.threads:
                del self._of_names[place]
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        look_ups.begun_at = now

    def _run(self, place: tuple[bytes, int], look_ups: _LookUps) -> None:
        found: list[HostAddress] | OSError = OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            found = _addresses(*place, 0)
        except OSError as error:
            found = error
        finally:
            with self._lock:
                look_ups.threads = [each for each in look_ups.threads if not each.is_current]
                if not look_ups.threads and self._of_names.get(place) is look_ups:
                    del self._of_names[place]
                told, look_ups.wanted = look_ups.wanted, []
            for each in told:
                each.found = found
                each.done.set()


_of_this_process = _SharedLookUps()


def _forget_the_parent_s() -> None:
    # Its threads are not here, and nobody would ever free a lock that one of them held.
    global _of_this_process
    _of_this_process = _SharedLookUps()


os.register_at_fork(after_in_child=_forget_the_parent_s)


def _addresses(name: bytes, port: int, flags: int) -> list[HostAddress]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    return [HostAddress(family, address) for family, _, _, _, address in found]


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host.partition("%")[0])
            return True
    return False
