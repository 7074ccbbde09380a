"""Many jobs at once for programs on an event loop: ``AsyncTether.many_jobs``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Unpack

from tether.client.async_calls import AsyncCalls
from tether.client.change_port import JobChangePort
from tether.client.many_jobs import JOBS_AT_ONCE, JobOptions
from tether.job_changes import JobChange, cancellable
from tether.job_filters import make_filter
from tether.jobs import JobFilter


class AsyncManyJobs:
    """:class:`ManyJobs` for programs on an event loop."""

    def __init__(self, port: JobChangePort, calls: AsyncCalls) -> None:
        self._port = port
        self._calls = calls

    def cancel(self, *, dry_run: bool = False, **which: Unpack[JobOptions]) -> AsyncIterator[JobChange]:
        """See :meth:`ManyJobs.cancel`."""
        return self._cancel(cancellable(make_filter(**which)), dry_run)

    async def _cancel(self, job_filter: JobFilter, dry_run: bool) -> AsyncIterator[JobChange]:
        cursor = None
        while True:
            batch = await self._calls.call(self._port.cancel_where, job_filter, dry_run, cursor, JOBS_AT_ONCE)
            for change in batch.changes:
                yield change
            cursor = batch.next_cursor
            if cursor is None:
                return
