"""The port of changes of jobs that were submitted: of many at once, and of one."""

from __future__ import annotations

from typing import Protocol

from tether.client.change_calls import change_body, priority_body, reprioritise_body
from tether.client.change_documents import changes_from_json
from tether.client.operations import over_http
from tether.ids import JobId
from tether.job_changes import JobChanges
from tether.job_filters import JobFilter
from tether.jobs import JobState, Priority


class JobChangePort(Protocol):
    """Jobs, changed by filter, a batch a call; or one by its id."""

    @over_http(
        "PATCH",
        "/v1/jobs/{job_id}",
        body=priority_body,
        read=lambda document: JobState(document["state"]),
    )
    def reprioritise(self, job_id: JobId, priority: Priority) -> JobState:
        """Give a job another priority. Answers the state it is in then: where it runs, its next attempt has
        that priority.

        Raises:
          JobNotFound: There is no such job.
          JobEnded: It has ended.
        """

    @over_http("POST", "/v1/jobs:reprioritise-where", body=reprioritise_body, read=changes_from_json)
    def reprioritise_where(
        self, job_filter: JobFilter, priority: Priority, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        """Give a batch of the jobs that match and have not ended another priority, the newest first, each by
        itself. The next batch begins at the cursor.

        Args:
          dry_run: Only tell which ones it would be.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """

    @over_http("POST", "/v1/jobs:cancel-where", body=change_body, read=changes_from_json)
    def cancel_where(
        self, job_filter: JobFilter, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        """Cancel a batch of the jobs that match and have not ended, the newest first, each by itself. The
        next batch begins at the cursor.

        Args:
          dry_run: Only tell which ones it would be.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """
