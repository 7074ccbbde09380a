"""Dead letters as programs use them: ``Tether.dead_letters``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TypedDict, Unpack

from tether.client.chosen import check_chosen
from tether.client.letter_port import LetterPort
from tether.dead_letters import (
    DeadLetter,
    LetterDetails,
    LetterFilter,
    LetterPurge,
    LetterRetry,
    LetterSummary,
)
from tether.errors import LetterDamaged
from tether.ids import JobId
from tether.letter_filters import make_letter_filter

LETTERS_AT_ONCE = 100
"""Dead letters that are fetched, retried or purged by one request."""


class LetterOptions(TypedDict, total=False):
    """Which dead letters. All that are given must match.

    ``state`` is ``open`` (the default), ``retried`` or ``all``; ``tenant`` is for operators;
    ``created_after`` (inclusive) and ``created_before`` (exclusive) are when the jobs died, and need a time
    zone.
    """

    state: str
    reason: str | None
    model: str | None
    pool: str | None
    tenant: str | None
    created_after: datetime | None
    created_before: datetime | None


MAX_NAMED = 10
"""Letters that could not be purged which an error names."""


def with_batch(total: LetterPurge, batch: LetterPurge) -> LetterPurge:
    """What came of purging until now, and of a further batch."""
    return LetterPurge(total.purged + batch.purged, None, (*total.failed, *batch.failed))


def number_purged(total: LetterPurge) -> int:
    """How many letters were purged.

    Raises:
      LetterDamaged: Some could not be.
    """
    failed = total.failed
    if not failed:
        return total.purged
    more = f" and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
    raise LetterDamaged(
        f"{total.purged} dead letters were purged, {len(failed)} could not be, since what the database keeps "
        f"of them is damaged: those of jobs {', '.join(failed[:MAX_NAMED])}{more}"
    )


class DeadLetters:
    """Dead letters: list, show, retry and purge them. Thread-safe."""

    def __init__(self, port: LetterPort) -> None:
        self._port = port

    def list(self, **which: Unpack[LetterOptions]) -> Iterator[DeadLetter]:
        """Iterate over dead letters, newest first. Pages are fetched as you go.

        Args:
          which: See :class:`LetterOptions`.

        Raises:
          InvalidRequest: An argument is invalid; the message says why.
        """
        return self._list(make_letter_filter(**which))

    def _list(self, letter_filter: LetterFilter) -> Iterator[DeadLetter]:
        cursor = None
        while True:
            page = self._port.find(letter_filter, cursor, LETTERS_AT_ONCE)
            yield from page.letters
            cursor = page.next_cursor
            if cursor is None:
                return

    def show(self, job_id: str) -> LetterDetails:
        """Return the dead letter of a job, with the chain of retries that it belongs to.

        Raises:
          JobNotFound: This cannot be the id of a job.
          LetterNotFound: There is none.
        """
        return self._port.letter(JobId(job_id))

    def retry(self, retry_token: str, *, force: bool = False) -> LetterRetry:
        """Retry the job whose dead letter has this token, as a new job with the same correlation id. A token
        makes one job only: used again, the answer is that job, with ``is_new`` False.

        Args:
          force: Also where the letter says that a retry would fail.

        Raises:
          RetryTokenUnknown: There is no such token, or it is another tenant's.
          RetryTokenSpent: The letter was purged or has expired, or the job that the token made was deleted.
          LetterNotRetryable: The letter says that a retry would fail.
          LetterDamaged: What is needed of the dead job is gone, or cannot be read.
          TetherError: The submission was refused, as any can be.
        """
        return self._port.retry(retry_token, force)

    def retry_where(
        self, *, all: bool = False, force: bool = False, **which: Unpack[LetterOptions]
    ) -> Iterator[LetterRetry]:
        """Retry all open letters that match, a batch at a time, and yield what came of each. One that cannot
        be retried stops no other: its ``error`` says why.

        Args:
          all: Every open letter is meant; instead of filters.
          force: Also where the letter says that a retry would fail.
          which: See :class:`LetterOptions`.

        Raises:
          InvalidRequest: An argument is invalid, or nothing says which letters; the message says why.
        """
        check_chosen(which, all)
        return self._retry_where(make_letter_filter(**which), force)

    def _retry_where(self, letter_filter: LetterFilter, force: bool) -> Iterator[LetterRetry]:
        cursor = None
        while True:
            batch = self._port.retry_where(letter_filter, force, cursor, LETTERS_AT_ONCE)
            yield from batch.retries
            cursor = batch.next_cursor
            if cursor is None:
                return

    def purge(self, *, all: bool = False, **which: Unpack[LetterOptions]) -> int:
        """Purge all open letters that match, a batch at a time, and return how many. Their tokens make no
        jobs any more.

        Args:
          all: Every open letter is meant; instead of filters.
          which: See :class:`LetterOptions`.

        Raises:
          InvalidRequest: An argument is invalid, or nothing says which letters; the message says why.
          LetterDamaged: Some could not be purged; the message names them. All others that match were.
        """
        check_chosen(which, all)
        letter_filter, cursor, total = make_letter_filter(**which), None, LetterPurge(0, None)
        while True:
            batch = self._port.purge(letter_filter, cursor, LETTERS_AT_ONCE)
            total, cursor = with_batch(total, batch), batch.next_cursor
            if cursor is None:
                return number_purged(total)

    def summary(self) -> LetterSummary:
        """Return how many open letters there are, and when they expire."""
        return self._port.summary()
