"""Jobs over HTTP: what is more than one call."""

from __future__ import annotations

from collections.abc import Sequence

from tether.client.http import submission as http_submission
from tether.client.http.ports import HttpPort
from tether.jobs import JobRequest
from tether.statuses import Submitted


class HttpSubmissions(HttpPort):
    """Submits over HTTP, for :class:`~tether.client.ports.JobPort`."""

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        """See :meth:`~tether.client.ports.JobPort.submit`.

        Where an answer was lost it is submitted again with the same keys. ``is_new`` is then the gateway's
        word, and True for every job whose retry token was made here.
        """
        if not requests:
            return []
        parcels = [http_submission.make_parcel(request) for request in requests]
        return http_submission.submit(self._calls, parcels)
