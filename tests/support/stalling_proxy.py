"""A way to a server that can be stalled (bytes are accepted, and nothing is forwarded) or cut."""

import os
import selectors
import socket
import threading
from collections import deque

from support.waiting import PATIENCE_SECONDS

CHUNK = 65_536


class StallingProxy:
    """Forwards connections to a port on loopback. It owns the thread ``stalling-proxy`` until :meth:`close`.

    While it is stalled, what either side sends is kept. What a client that is gone has sent is dropped when
    it goes on, or delivered all the same, late. While it is cut, connections are closed as soon as they are
    made.
    """

    def __init__(self, port):
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._is_stalled = self._is_cut = False
        self._pairs = {}
        self._orders = deque()
        self._ordered, self._order = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._ordered, selectors.EVENT_READ, self._obey)
        self._thread = threading.Thread(target=self._run, name="stalling-proxy", daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def stall(self):
        """Forward nothing that comes from now on."""
        self._do(self._begin_stall)

    def holds(self, data):
        """Whether something was sent since it stalled that has these bytes in it."""
        return any(data in b"".join(end.held) for end in list(self._pairs.values()))

    def go_on(self, *, late):
        """Forward again. ``late``: also what clients that are gone by now had sent."""
        self._do(lambda: self._end_stall(late))

    def cut(self):
        """Close all connections, and any that is made from now on."""
        self._do(self._begin_cut)

    def heal(self):
        """Connections that are made from now on are forwarded again."""
        self._do(self._end_cut)

    def close(self):
        self._do(None)
        self._thread.join()
        self._selector.close()
        for one in (*self._pairs, self._listener):
            one.close()
        os.close(self._ordered)
        os.close(self._order)

    def _do(self, order):
        done = threading.Event()
        self._orders.append((order, done))
        os.write(self._order, b"!")
        assert done.wait(PATIENCE_SECONDS), "the proxy's thread is gone"

    # The thread's side.

    def _run(self):
        is_open = True
        while is_open:
            for key, _ in self._selector.select():
                is_open = key.data() is not False and is_open

    def _obey(self):
        os.read(self._ordered, 1)
        order, done = self._orders.popleft()
        if order is not None:
            order()
        done.set()
        return order is not None

    def _accept(self):
        client, _ = self._listener.accept()
        if self._is_cut:
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self._server_port))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one, other in ((client, server), (server, client)):
            self._pairs[one] = _End(other)
            self._selector.register(one, selectors.EVENT_READ, lambda one=one: self._forward(one))

    def _forward(self, one):
        if one not in self._pairs:
            # It was cut by an order that came together with what it sent.
            return
        try:
            data = one.recv(CHUNK)
        except ConnectionError:
            data = b""
        end = self._pairs[one]
        if not data:
            self._selector.unregister(one)
            end.is_gone = True
        if self._is_stalled:
            end.held.append(data)
        else:
            self._send(one, data)

    def _send(self, one, data):
        end = self._pairs[one]
        try:
            if data:
                end.other.sendall(data)
            else:
                end.other.shutdown(socket.SHUT_WR)
        except OSError:
            end.held.clear()

    def _begin_cut(self):
        self._is_cut = True
        for one, end in self._pairs.items():
            if not end.is_gone:
                self._selector.unregister(one)
            one.close()
        self._pairs.clear()

    def _end_cut(self):
        self._is_cut = False

    def _begin_stall(self):
        self._is_stalled = True

    def _end_stall(self, late):
        self._is_stalled = False
        for one, end in list(self._pairs.items()):
            held, end.held = end.held, []
            for data in held:
                if late or not end.is_gone or not data:
                    self._send(one, data)
        for one in [
            one for one, end in self._pairs.items() if end.is_gone and self._pairs[end.other].is_gone
        ]:
            del self._pairs[one]
            one.close()


class _End:
    """One end of a connection: what it sent while nothing was forwarded, and whether it is gone."""

    def __init__(self, other):
        self.other = other
        self.held = []
        self.is_gone = False
