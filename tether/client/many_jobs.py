"""Many jobs at once, as programs change them: ``Tether.many_jobs``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypedDict, Unpack

from tether.client.change_port import JobChangePort
from tether.client.chosen import check_chosen
from tether.job_changes import JobChange, JobChanges, cancellable, read_priority, reprioritisable
from tether.job_filters import make_filter

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

    def cancel(
        self, *, all: bool = False, dry_run: bool = False, **which: Unpack[JobOptions]
    ) -> Iterator[JobChange]:
        """Cancel all jobs that match and have not ended, a batch at a time, and yield what came of each. One
        that cannot be cancelled stops no other: its ``error`` says why. A running job ends once its worker
        has received the cancellation.

        Args:
          dry_run: Only yield the jobs that would be cancelled.
          all: Every job is meant; instead of filters.
          which: See :class:`JobOptions`.

        Raises:
          InvalidRequest: An argument is invalid, or nothing says which jobs; the message says why.
        """
        check_chosen(which, all)
        chosen = cancellable(make_filter(**which))
        return _in_batches(lambda cursor: self._port.cancel_where(chosen, dry_run, cursor, JOBS_AT_ONCE))

    def reprioritise(
        self, priority: str, *, all: bool = False, dry_run: bool = False, **which: Unpack[JobOptions]
    ) -> Iterator[JobChange]:
        """Give all jobs that match and have not ended another priority, a batch at a time, and yield what
        came of each. One that cannot be changed stops no other: its ``error`` says why. A waiting job keeps
        its age; a running one goes on, and its next attempt has the new priority.

        Args:
          priority: ``interactive``, ``standard`` or ``batch``.
          dry_run: Only yield the jobs that would be changed.
          all: Every job is meant; instead of filters.
          which: See :class:`JobOptions`.

        Raises:
          InvalidRequest: An argument is invalid, or nothing says which jobs; the message says why.
        """
        wanted = read_priority(priority)
        check_chosen(which, all)
        chosen = reprioritisable(make_filter(**which))
        return _in_batches(
            lambda cursor: self._port.reprioritise_where(chosen, wanted, dry_run, cursor, JOBS_AT_ONCE)
        )


def _in_batches(change: Callable[[str | None], JobChanges]) -> Iterator[JobChange]:
    cursor = None
    while True:
        batch = change(cursor)
        yield from batch.changes
        cursor = batch.next_cursor
        if cursor is None:
            return
