"""Many jobs at once, as programs change them: ``Tether.many_jobs``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypedDict, Unpack

from tether.client.change_port import JobChangePort
from tether.job_changes import JobChange, cancellable
from tether.job_filters import make_filter
from tether.jobs import JobFilter

JOBS_AT_ONCE = 100
"""Jobs that are changed by one request."""


class JobOptions(TypedDict, total=False):
    """Which jobs. All that are given must match.

    ``pool`` is the one that has them, or had them last; ``tenant`` is for operators; ``created_after``
    (inclusive) and ``created_before`` (exclusive) need a time zone.
    """

    state: str | Sequence[str]
    model: str | None
    labels: Mapping[str, str] | None
    pool: str | None
    tenant: str | None
    created_after: datetime | None
    created_before: datetime | None


class ManyJobs:
    """Jobs, changed by filter. Thread-safe.

    The newest jobs come first, and what is submitted after a call has begun is not touched by it.
    """

    def __init__(self, port: JobChangePort) -> None:
        self._port = port

    def cancel(self, *, dry_run: bool = False, **which: Unpack[JobOptions]) -> Iterator[JobChange]:
        """Cancel all jobs that match and have not ended, a batch at a time, and yield what came of each. One
        that cannot be cancelled stops no other: its ``error`` says why. A running job ends once its worker
        has received the cancellation.

        Args:
          dry_run: Only yield the jobs that would be cancelled.
          which: See :class:`JobOptions`. Without any, all jobs are meant.

        Raises:
          InvalidRequest: An argument is invalid; the message says why.
        """
        return self._cancel(cancellable(make_filter(**which)), dry_run)

    def _cancel(self, job_filter: JobFilter, dry_run: bool) -> Iterator[JobChange]:
        cursor = None
        while True:
            batch = self._port.cancel_where(job_filter, dry_run, cursor, JOBS_AT_ONCE)
            yield from batch.changes
            cursor = batch.next_cursor
            if cursor is None:
                return
