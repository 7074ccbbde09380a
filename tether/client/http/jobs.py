"""Submissions over HTTP, which are more than one call."""

from __future__ import annotations

from collections.abc import Sequence

from tether.client.http import submission as http_submission
from tether.client.http.calls import HttpCalls
from tether.jobs import JobRequest, Submitted


class HttpSubmissions:
    """See :class:`~tether.client.ports.SubmissionPort`."""

    def __init__(self, calls: HttpCalls) -> None:
        self._calls = calls

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        """See :meth:`~tether.client.ports.SubmissionPort.submit`.

        Where an answer was lost it is submitted again with the same keys. ``is_new`` is then the gateway's
        word, and True for every job whose retry token was made here.
        """
        if not requests:
            return []
        parcels = [http_submission.make_parcel(request) for request in requests]
        return http_submission.submit(self._calls, parcels)
