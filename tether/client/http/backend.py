"""The client that talks to a gateway over HTTP."""

from __future__ import annotations

import time
import weakref

from tether.client.endpoint import Endpoint
from tether.client.http.calls import HttpCalls
from tether.client.http.jobs import HttpSubmissions
from tether.client.http.patience import Pace
from tether.client.http.ports import over_http_port
from tether.client.http.streams import HttpStreamPort
from tether.client.http.thread import CallLimit, HttpThread
from tether.client.ports import JobPort, ModelPort

_HttpJobPort = over_http_port(JobPort, by_hand=HttpSubmissions)
_HttpModelPort = over_http_port(ModelPort)


class HttpBackend:
    """Carries calls to a gateway. It owns one thread, ``tether-http``, from its first call to :meth:`close`,
    on which all its calls and streams share connections."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        pace: Pace | None = None,
        read_timeout: float = 30.0,
        silence: float = 45.0,
        within: float | None = None,
    ) -> None:
        """
        Args:
          pace: How calls are tried again that did not succeed.
          read_timeout: Longest wait for the next bytes of an answer, in seconds.
          silence: The same for a stream, whose gateway sends a sign of life every 15 s.
          within: Seconds from now after which no call waits any longer, nor the opening of a stream; None
            where there is no such end.
        """
        self._calls = HttpCalls(endpoint, pace or Pace(), read_timeout, silence)
        limit = None if within is None else CallLimit(time.monotonic() + within, self._calls.late)
        self._thread = HttpThread(self._calls.open_session, limit)
        self.job_port: JobPort = _HttpJobPort(self._thread, self._calls)
        self.stream_port = HttpStreamPort(self._thread, self._calls)
        self.model_port: ModelPort = _HttpModelPort(self._thread, self._calls)
        # Whoever forgets to close a client shall not keep its thread. Programs' ends are seen to elsewhere.
        weakref.finalize(self, self._thread.stop).atexit = False

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def close(self) -> None:
        """End the thread and close the connections. Calls under way raise :class:`ClientClosed`, which every
        open stream is told as its last. May be repeated."""
        self._thread.close()
