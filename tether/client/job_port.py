"""The port of jobs."""

from __future__ import annotations

from typing import Protocol

from tether.client.job_lists import page_query
from tether.client.operations import over_http
from tether.client.ports import SubmissionPort
from tether.client.submission_documents import request_to_json
from tether.explanations import Explanation, JobPlacements
from tether.histories import JobHistory
from tether.ids import JobId
from tether.job_filters import JobFilter
from tether.jobs import JobRequest, JobState
from tether.statuses import JobPage, JobStatus


class JobPort(SubmissionPort, Protocol):
    """Jobs: submitted, looked at, cancelled."""

    @over_http("GET", "/v1/jobs/{job_id}")
    def status(self, job_id: JobId) -> JobStatus:
        """What is known of a job.

        Raises:
          JobNotFound: There is no such job.
        """

    @over_http("GET", "/v1/jobs/{job_id}/attempts")
    def history(self, job_id: JobId) -> JobHistory:
        """What became of a job's attempts.

        Raises:
          JobNotFound: There is no such job.
        """

    @over_http("GET", "/v1/jobs/{job_id}/placements")
    def placements(self, job_id: JobId) -> JobPlacements:
        """How a job came to its pools.

        Raises:
          JobNotFound: There is no such job.
        """

    @over_http("POST", "/v1/explain", body=request_to_json)
    def explain(self, request: JobRequest) -> Explanation:
        """Where a job would be placed now, and why. None is made.

        Raises:
          TetherError: It would be refused.
        """

    @over_http("DELETE", "/v1/jobs/{job_id}", read=lambda document: JobState(document["state"]))
    def cancel(self, job_id: JobId) -> JobState:
        """Ask for a job's end. Answers the state it is in then.

        Raises:
          JobNotFound: There is no such job.
        """

    @over_http("GET", "/v1/jobs", query=page_query)
    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        """A page of jobs, the newest first.

        Args:
          cursor: That of the page before; None for the first.
          limit: Most jobs to answer, up to ``MAX_JOBS_PER_PAGE``.

        Raises:
          InvalidRequest: The cursor or the limit is not possible.
        """
