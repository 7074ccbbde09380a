"""Gateways in this process, with keys for whoever asks."""

import contextlib
import threading

from support.api_keys import add_api_key
from support.waiting import PATIENCE_SECONDS
from tether.gateway.keys.api_keys import Scope
from tether.gateway.server.listening import listen
from tether.gateway.server.server import GatewayServer


class RunningGateway:
    """A gateway on a thread. It can be stopped and started again at the same port."""

    def __init__(self, settings):
        self.settings = settings
        self.port = 0
        self._keys = {}
        self._server = self._thread = None
        self.start()

    def start(self):
        listening = listen("127.0.0.1", self.port)
        self.port = listening.getsockname()[1]
        ready = threading.Event()
        self._server = GatewayServer(self.settings, listening, on_ready=ready.set)
        self._thread = threading.Thread(target=self._server.run, name="gateway")
        self._thread.start()
        assert ready.wait(PATIENCE_SECONDS)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def key(self, tenant="default", scopes=(Scope.SUBMIT, Scope.READ)):
        """The API key of a tenant with these scopes; the same for the same."""
        place = (tenant, tuple(scopes))
        if place not in self._keys:
            self._keys[place] = add_api_key(self.settings, tenant, scopes)[0]
        return self._keys[place]

    def stop(self, *, is_replaced=False):
        self._server.stop(is_replaced=is_replaced)
        self._thread.join()

    def restart(self):
        self.stop()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self.stop()
