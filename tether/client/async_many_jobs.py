"""Many jobs at once for programs on an event loop: ``AsyncTether.many_jobs``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Unpack

from tether.client.async_calls import AsyncCalls
from tether.client.change_port import JobChangePort
from tether.client.chosen import check_chosen
from tether.client.many_jobs import JOBS_AT_ONCE, JobOptions
from tether.job_changes import JobChange, JobChanges, cancellable, read_priority, reprioritisable
from tether.job_filters import make_filter


class AsyncManyJobs:
    """:class:`ManyJobs` for programs on an event loop."""

    def __init__(self, port: JobChangePort, calls: AsyncCalls) -> None:
        self._port = port
        self._calls = calls

    def cancel(
        self, *, all: bool = False, dry_run: bool = False, **which: Unpack[JobOptions]
    ) -> AsyncIterator[JobChange]:
        """See :meth:`ManyJobs.cancel`."""
        check_chosen(which, all)
        chosen = cancellable(make_filter(**which))
        return self._in_batches(lambda cursor: self._port.cancel_where(chosen, dry_run, cursor, JOBS_AT_ONCE))

    def reprioritise(
        self, priority: str, *, all: bool = False, dry_run: bool = False, **which: Unpack[JobOptions]
    ) -> AsyncIterator[JobChange]:
        """See :meth:`ManyJobs.reprioritise`."""
        wanted = read_priority(priority)
        check_chosen(which, all)
        chosen = reprioritisable(make_filter(**which))
        return self._in_batches(
            lambda cursor: self._port.reprioritise_where(chosen, wanted, dry_run, cursor, JOBS_AT_ONCE)
        )

    async def _in_batches(self, change_some: Callable[[str | None], JobChanges]) -> AsyncIterator[JobChange]:
        cursor = None
        while True:
            batch = await self._calls.call(change_some, cursor)
            for change in batch.changes:
                yield change
            cursor = batch.next_cursor
            if cursor is None:
                return
