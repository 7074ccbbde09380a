"""The port of jobs that are changed many at once."""

from __future__ import annotations

from typing import Protocol

from tether.client.change_calls import change_body
from tether.client.change_documents import changes_from_json
from tether.client.operations import over_http
from tether.job_changes import JobChanges
from tether.jobs import JobFilter


class JobChangePort(Protocol):
    """Many jobs, changed by filter: a batch a call."""

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
