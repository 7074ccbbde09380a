"""Connections to one gateway: each is used by one call or stream at a time, and kept for the next."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from tether.client.forks import check_process
from tether.client.http.connecting import Deadline, HttpSocket
from tether.client.http.exchanges import ANSWERED, ConnectionEnded, HttpExchange, HttpRequest
from tether.client.http.look_ups import look_up
from tether.client.http.wire import write_request
from tether.client.lifetime import closed
from tether.errors import TetherError
from tether.threads import OwnedThread

if TYPE_CHECKING:
    import ssl

CONNECT_SECONDS = 10.0
KEPT_SECONDS = 15.0
"""How long a connection that nobody uses is kept."""

MAX_KEPT = 100


class HttpConnections:
    """Owns the connections to one gateway, from their first use to :meth:`stop`. Safe to use from many
    threads: each call is made on the thread that wants it."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]]) -> None:
        """
        Args:
          headers: Sent with every request.
        """
        parts = urlsplit(url)
        self.is_secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self.is_secure else 80)
        name = self._host if self._host.isascii() else self._host.encode("idna").decode()
        shown = f"[{name}]" if ":" in name else name
        place = f"{shown}:{parts.port}" if parts.port else shown
        self._headers = (("host", place), *headers)
        self._prefix = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        self._process = os.getpid()
        # Reentrant: a client that is forgotten is stopped wherever garbage is collected, here too.
        self._lock = threading.RLock()
        self.is_stopped = False
        """Whether nothing is sent any more."""
        self._kept: list[tuple[float, HttpSocket]] = []
        self._used: set[HttpSocket] = set()
        self._waits: weakref.WeakSet[threading.Event] = weakref.WeakSet()
        self._context: ssl.SSLContext | None = None
        self.deliverer: OwnedThread | None = None
        """The thread on which streams' events are delivered: it must not wait for anything."""

    def check(self) -> None:
        """
        Raises:
          ClientClosed: The client was closed, or belongs to the process that this one was forked from.
        """
        check_process(self._process)
        if self.is_stopped:
            raise closed()

    def new_wait(self) -> threading.Event:
        """What somebody waits for: also set when the client is closed."""
        wait = threading.Event()
        with self._lock:
            self._waits.add(wait)
            if self.is_stopped:
                wait.set()
        return wait

    def open(
        self,
        request: HttpRequest,
        each: float,
        ends_at: float,
        attend: Callable[[HttpSocket], object] = lambda used: None,
    ) -> HttpExchange:
        """Send a request, and receive the head of its response. The exchange belongs to the caller.

        Args:
          each: Longest wait for the next bytes, in seconds.
          ends_at: When all is over, in seconds of the monotonic clock.
          attend: Called with each socket before it is used, for who may want to abort it.

        Raises:
          OSError, BadResponse: There is no such response.
          ClientClosed: The client was closed, before or meanwhile.
        """
        self.check()
        if self.deliverer is not None and self.deliverer.is_current:
            raise TetherError(
                "a blocking call was made on the thread that delivers stream events, which would hold up "
                "all streams: call from another thread"
            )
        try:
            try:
                return self._exchange(self._take_kept(), request, Deadline(each, ends_at), attend)
            except ConnectionEnded as error:
                if not error.is_stale:
                    raise
                # The server had closed it while nobody used it: the request was not seen, or is known by its
                # keys.
                return self._exchange(None, request, Deadline(each, ends_at), attend)
        except (OSError, ValueError):
            self.check()
            raise

    def _exchange(
        self,
        kept: HttpSocket | None,
        request: HttpRequest,
        deadline: Deadline,
        attend: Callable[[HttpSocket], object],
    ) -> HttpExchange:
        used = kept or self._new_socket()
        attend(used)
        exchange = HttpExchange(used, self._give_back, was_kept=kept is not None, is_secure=self.is_secure)
        try:
            if kept is None:
                self._connect(used, Deadline(CONNECT_SECONDS, deadline.ends_at))
            target = self._prefix + request.target
            headers = (*self._headers, *request.headers)
            head = write_request(request.method, target, headers, request.body)
            exchange.send(head, request.body, deadline)
            exchange.receive_head(deadline)
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _take_kept(self) -> HttpSocket | None:
        while True:
            with self._lock:
                if not self._kept:
                    return None
                since, found = self._kept.pop()
                self._used.add(found)
            # What can be read of it is its end, or nothing that was asked for.
            if time.monotonic() - since < KEPT_SECONDS and not found.poll(ANSWERED, 0):
                return found
            self._give_back(found, False)

    def _new_socket(self) -> HttpSocket:
        made = HttpSocket()
        with self._lock:
            self._used.add(made)
            if self.is_stopped:
                made.abort()
        return made

    def _connect(self, made: HttpSocket, deadline: Deadline) -> None:
        made.connect(look_up(self._host, self._port, deadline, self.new_wait()), deadline)
        if self.is_secure:
            # A dot at the end says that a name is whole. No certificate has it.
            made.secure(self._tls(), self._host.removesuffix("."), deadline)

    def _tls(self) -> ssl.SSLContext:
        # Loaded when used: it takes long.
        import ssl

        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context()
                self._context.set_alpn_protocols(["http/1.1"])
            return self._context

    def _give_back(self, used: HttpSocket, is_reusable: bool) -> None:
        with self._lock:
            self._used.discard(used)
            is_kept = is_reusable and not self.is_stopped and len(self._kept) < MAX_KEPT
            now = time.monotonic()
            if is_kept:
                self._kept.append((now, used))
            # The newest are taken first: the others would never be looked at again.
            idle = [each for since, each in self._kept if now - since >= KEPT_SECONDS]
            del self._kept[: len(idle)]
        if not is_kept:
            used.close()
        for each in idle:
            each.close()

    def stop(self) -> None:
        """End all connections: calls and streams that are under way find them ended, and nobody waits any
        longer. May be repeated."""
        if os.getpid() != self._process:
            # Copies: their ends here are no ends to the process that they belong to, nor is its lock.
            for _, copy in self._kept:
                copy.close()
            return
        with self._lock:
            self.is_stopped = True
            kept, self._kept = self._kept, []
            used, waits = list(self._used), list(self._waits)
        for _, each in kept:
            each.close()
        for one in used:
            one.abort()
        for wait in waits:
            wait.set()
