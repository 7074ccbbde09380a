"""The client that talks to a gateway over HTTP."""

from __future__ import annotations

import math
import os
import time
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tether.client.endpoint import Endpoint
from tether.client.http.calls import HttpCalls
from tether.client.http.jobs import HttpSubmissions
from tether.client.http.patience import Pace
from tether.client.http.stream_port import HttpStreamPort
from tether.client.http.stream_reader import StreamReader
from tether.client.program_end import close_connections_at_end

if TYPE_CHECKING:
    from tether.client.change_port import JobChangePort
    from tether.client.dead_message_port import DeadMessagePort
    from tether.client.job_port import JobPort
    from tether.client.letter_port import LetterPort
    from tether.client.model_port import ModelPort

EVERY_TENANT = "/v1/operator"
"""Where routes begin that act on what is of all tenants."""


class HttpBackend:
    """Carries calls to a gateway: each on the thread that makes it. It owns the connections, and the thread
    ``tether-http-streams`` that reads all streams, to :meth:`close`."""

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
        ends_at = math.inf if within is None else time.monotonic() + within
        self._process = os.getpid()
        self._calls = HttpCalls(
            endpoint, pace or Pace(), read_timeout=read_timeout, silence=silence, ends_at=ends_at
        )
        self.submission_port = HttpSubmissions(self._calls)
        self.stream_port = HttpStreamPort(self._calls)
        close_connections_at_end(self)
        # Whoever forgets to close a client shall not keep its threads. Programs' ends are seen to elsewhere.
        weakref.finalize(self, _stop, self._process, self._calls, self.stream_port.reader).atexit = False

    # Loaded when they are asked for: who submits a job does not pay for them.

    @cached_property
    def job_port(self) -> JobPort:
        from tether.client.job_port import JobPort

        port: JobPort = self._port(JobPort, by_hand=HttpSubmissions)
        return port

    @cached_property
    def model_port(self) -> ModelPort:
        from tether.client.model_port import ModelPort

        port: ModelPort = self._port(ModelPort)
        return port

    @cached_property
    def change_port(self) -> JobChangePort:
        return self._changes("")

    @cached_property
    def every_change_port(self) -> JobChangePort:
        return self._changes(EVERY_TENANT)

    def _changes(self, under: str) -> JobChangePort:
        from tether.client.change_port import JobChangePort

        port: JobChangePort = self._port(JobChangePort, under=under)
        return port

    @cached_property
    def letter_port(self) -> LetterPort:
        return self._letters("")

    @cached_property
    def every_letter_port(self) -> LetterPort:
        return self._letters(EVERY_TENANT)

    def _letters(self, under: str) -> LetterPort:
        from tether.client.letter_port import LetterPort

        port: LetterPort = self._port(LetterPort, under=under)
        return port

    @cached_property
    def dead_message_port(self) -> DeadMessagePort:
        from tether.client.dead_message_port import DeadMessagePort

        port: DeadMessagePort = self._port(DeadMessagePort)
        return port

    def _port(self, port: type[Any], *, by_hand: type[Any] | None = None, under: str = "") -> Any:
        from tether.client.http.ports import over_http_port

        return over_http_port(port, by_hand, under=under)(self._calls)

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def close(self, timeout: float | None = None) -> None:
        """End the threads and close the connections. Calls under way raise :class:`ClientClosed`, which every
        open stream is told as its last. May be repeated.

        Args:
          timeout: Longest wait for the threads, in seconds.
        """
        self._calls.connections.stop()
        if os.getpid() == self._process:
            self.stream_port.close(timeout)


def _stop(process: int, calls: HttpCalls, reader: StreamReader) -> None:
    calls.connections.stop()
    if os.getpid() == process:
        reader.ask_to_stop()
