"""The client that talks to a gateway over HTTP."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tether.client import http_submission
from tether.client.backend import (
    Deliver,
    JobPage,
    JobStatus,
    ModelInfo,
    Submitted,
    Subscription,
    check_job_id,
    check_offset,
    check_page,
)
from tether.client.documents import model_from_json, page_from_json, status_from_json
from tether.client.endpoint import Endpoint
from tether.client.http_answers import read
from tether.client.http_calls import Call, HttpCalls
from tether.client.http_streams import HttpStream
from tether.client.http_thread import HttpThread
from tether.client.patience import Pace
from tether.errors import InvalidRequest
from tether.jobs import JobFilter, JobRequest, JobState

_Value = TypeVar("_Value")


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
    ) -> None:
        """
        Args:
          pace: How calls are tried again that did not succeed.
          read_timeout: Longest wait for the next bytes of an answer, in seconds.
          silence: The same for a stream, whose gateway sends a sign of life every 15 s.
        """
        self._calls = HttpCalls(endpoint, pace or Pace(), read_timeout, silence)
        self._thread = HttpThread(self._calls.open_session)
        # Whoever forgets to close a client shall not keep its thread. Programs' ends are seen to elsewhere.
        weakref.finalize(self, self._thread.stop).atexit = False

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        """See :meth:`~tether.client.backend.Backend.submit`.

        Where an answer was lost it is submitted again with the same keys. ``is_new`` is then the gateway's
        word, and True for every job whose retry token was made here.
        """
        if not requests:
            return []
        # Here and not on the loop: a large submission shall not hold up streams.
        parcels = [http_submission.pack(request) for request in requests]
        return self._thread.call(lambda session: http_submission.submit(session, self._calls, parcels))

    def status(self, job_id: str) -> JobStatus:
        check_job_id(job_id)
        return self._read(Call("GET", f"/v1/jobs/{job_id}"), status_from_json)

    def cancel(self, job_id: str) -> JobState:
        check_job_id(job_id)
        return self._read(Call("DELETE", f"/v1/jobs/{job_id}"), _state_of)

    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        check_page(cursor, limit)
        query = [*_query_of(job_filter), ("limit", str(limit))]
        if cursor is not None:
            query.append(("cursor", cursor))
        return self._read(Call("GET", "/v1/jobs", query), page_from_json)

    def models(self) -> list[ModelInfo]:
        return self._read(Call("GET", "/v1/models"), _models_of)

    def _read(self, call: Call, reader: Callable[[Any], _Value]) -> _Value:
        answer = self._thread.call(lambda session: self._calls.answer(session, call))
        return read(reader, answer, self._calls.place)

    def follow(self, job_id: str, offset: int, deliver: Deliver) -> Subscription:
        """See :meth:`~tether.client.backend.Backend.follow`. Once it is open, the stream is followed whatever
        happens to the gateway, until its last event or a refusal."""
        check_offset(offset)
        check_job_id(job_id)
        stream = HttpStream(self._thread, self._calls, job_id, offset, deliver)
        try:
            self._thread.call(stream.open)
        except BaseException:
            stream.close()
            raise
        return stream

    def close(self) -> None:
        """End the thread and close the connections. Calls under way raise :class:`ClientClosed`, which every
        open stream is told as its last. May be repeated."""
        self._thread.close()


def _state_of(value: Any) -> JobState:
    return JobState(value["state"])


def _models_of(value: Any) -> list[ModelInfo]:
    return [model_from_json(one) for one in value["data"]]


def _query_of(job_filter: JobFilter) -> list[tuple[str, str]]:
    """A filter as the query of an address.

    Raises:
      InvalidRequest: It cannot be one.
    """
    query = [("state", state.value) for state in job_filter.states]
    if job_filter.model is not None:
        query.append(("model", job_filter.model))
    for name, value in job_filter.labels.items():
        if "=" in name:
            raise InvalidRequest(
                f"jobs with the label {name[:100]!r} cannot be asked for at a gateway: an equals sign ends a "
                "label's name there"
            )
        query.append(("label", f"{name}={value}"))
    for name, moment in (
        ("created_after", job_filter.created_after),
        ("created_before", job_filter.created_before),
    ):
        if moment is not None:
            query.append((name, str(moment)))
    return query
