"""A balancer of TCP connections in front of gateways: each goes to the first of them that takes it."""

import contextlib
import socket
import threading

from support.waiting import PATIENCE_SECONDS

CHUNK = 65_536


class Balancer:
    """Forwards connections to ports on loopback. It owns the thread ``balancer``, and two for each
    connection, which end with that.

    Attributes:
      ports: Where to, in this order; it may be changed at any time.
    """

    def __init__(self, *ports):
        self.ports = list(ports)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                if server is None:
                    client.close()
                    continue
                for one, other in ((client, server), (server, client)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=_forward, args=(one, other), name="balanced", daemon=True).start()

    def _connect(self):
        for port in list(self.ports):
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        return None

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _forward(one, other):
    one.settimeout(None)
    try:
        while data := one.recv(CHUNK):
            other.sendall(data)
    except OSError:
        # A reset goes on as one.
        with contextlib.suppress(OSError):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        return
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
