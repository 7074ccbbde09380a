"""Jobs of any tenant, as `tether jobs` asks for them with an operator's API key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tether.ids import JobId, TenantId
from tether.jobs import JobState
from tether.statuses import JobStatus

if TYPE_CHECKING:
    from tether.client.http.operator import OperatorClient
    from tether.explanations import JobPlacements
    from tether.histories import JobHistory
    from tether.job_filters import JobFilter

JOBS_PER_REQUEST = 100


class OwnedJob(NamedTuple):
    """A job, and whose it is."""

    tenant_id: TenantId
    status: JobStatus


class OperatorJobs:
    """An operator's side of jobs. What it changes is in the gateway's audit log."""

    def __init__(self, client: OperatorClient) -> None:
        self._client = client

    def matching(self, job_filter: JobFilter) -> Iterator[OwnedJob]:
        """The jobs that a filter lets through, newest first."""
        from tether.client.job_lists import page_query

        cursor: str | None = None
        while True:
            query = page_query(job_filter, cursor, JOBS_PER_REQUEST)
            if job_filter.tenant_id is not None:
                query.append(("tenant", job_filter.tenant_id))
            page = self._client.ask("GET", "jobs", query=query)
            yield from self._client.understood(lambda found: [_owned(one) for one in found["data"]], page)
            cursor = self._client.understood(lambda found: found["next_cursor"], page)
            if cursor is None:
                return

    def one(self, job_id: JobId) -> OwnedJob:
        """One job.

        Raises:
          JobNotFound: There is none.
        """
        return self._client.understood(_owned, self._client.ask("GET", "jobs", job_id))

    def history(self, job_id: JobId) -> JobHistory:
        """Every attempt of a job.

        Raises:
          JobNotFound: There is none.
        """
        from tether.client.documents import history_from_json

        found = self._client.ask("GET", "jobs", job_id, "attempts")
        return self._client.understood(history_from_json, found)

    def placements(self, job_id: JobId) -> JobPlacements:
        """How a job came to its pools.

        Raises:
          JobNotFound: There is none.
        """
        from tether.client.documents import placements_from_json

        found = self._client.ask("GET", "jobs", job_id, "placements")
        return self._client.understood(placements_from_json, found)

    def job(self, job_id: JobId) -> OperatorJob:
        """What changes one job."""
        return OperatorJob(self._client, job_id)


class OperatorJob:
    """One job of any tenant."""

    def __init__(self, client: OperatorClient, job_id: JobId) -> None:
        self._client = client
        self.job_id = job_id

    def cancel(self) -> JobState:
        """Request cancellation, and return its state.

        Raises:
          JobNotFound: There is none.
        """
        return self._state("DELETE")

    def reprioritise(self, priority: str) -> JobState:
        """Give it another priority, and return its state.

        Raises:
          JobNotFound: There is none.
          JobEnded: It has ended.
        """
        return self._state("PATCH", priority=priority)

    def _state(self, method: str, **values: str) -> JobState:
        answer = self._client.ask(method, "jobs", self.job_id, values=values or None)
        return self._client.understood(lambda found: JobState(found["state"]), answer)


def _owned(document: dict[str, object]) -> OwnedJob:
    from tether.client.documents import status_from_json

    return OwnedJob(TenantId(str(document["tenant_id"])), status_from_json(document))
