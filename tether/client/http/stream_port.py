"""Opens streams over HTTP, and ends them with their client."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from tether.client.http.stream_reader import StreamReader
from tether.ids import JobId
from tether.job_names import check_job_id

if TYPE_CHECKING:
    from tether.client.http.calls import HttpCalls
    from tether.client.http.streams import HttpStream
    from tether.streams.events import Deliver, StreamSubscription


class HttpStreamPort:
    """See :class:`~tether.client.ports.StreamPort`. Owns the streams that are followed, to :meth:`close`."""

    def __init__(self, calls: HttpCalls) -> None:
        self._calls = calls
        self.reader = StreamReader(calls.silence)
        calls.connections.deliverer = self.reader.thread
        self._lock = threading.Lock()
        self._streams: set[HttpStream] = set()

    def follow(
        self, job_id: JobId, offset: int, deliver: Deliver, *, within: float | None = None
    ) -> StreamSubscription:
        """See :meth:`~tether.client.ports.StreamPort.follow`.

        Once it is open, the stream is followed whatever happens to the gateway, until its last event or a
        refusal.
        """
        # Loaded when there is a job to follow, which runs meanwhile.
        from tether.client.http.streams import HttpStream
        from tether.streams.events import check_offset

        check_offset(offset)
        check_job_id(job_id)
        stream = HttpStream(self._calls, self.reader, job_id, offset, deliver, self._forget)
        with self._lock:
            self._streams.add(stream)
        stream.open(within)
        return stream

    def _forget(self, stream: HttpStream) -> None:
        with self._lock:
            self._streams.discard(stream)

    def close(self, timeout: float | None = None) -> None:
        """End the threads of streams, once the connections were stopped.

        Args:
          timeout: Longest wait, in seconds.
        """
        ends_at = math.inf if timeout is None else time.monotonic() + timeout
        self.reader.ask_to_stop()
        with self._lock:
            streams = list(self._streams)
        self.reader.thread.join(_left(ends_at))
        for stream in streams:
            stream.join(_left(ends_at))


def _left(ends_at: float) -> float | None:
    return None if math.isinf(ends_at) else max(ends_at - time.monotonic(), 0.0)
