"""Dead letters for programs on an event loop: ``AsyncTether.dead_letters``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Unpack

from tether.client.async_calls import AsyncCalls
from tether.client.chosen import check_chosen
from tether.client.dead_letters import LETTERS_AT_ONCE, LetterOptions, number_purged, with_batch
from tether.client.letter_port import LetterPort
from tether.dead_letters import (
    DeadLetter,
    LetterDetails,
    LetterFilter,
    LetterPurge,
    LetterRetry,
    LetterSummary,
)
from tether.ids import JobId
from tether.letter_filters import make_letter_filter


class AsyncDeadLetters:
    """:class:`DeadLetters` for programs on an event loop."""

    def __init__(self, port: LetterPort, calls: AsyncCalls) -> None:
        self._port = port
        self._calls = calls

    def list(self, **which: Unpack[LetterOptions]) -> AsyncIterator[DeadLetter]:
        """See :meth:`DeadLetters.list`."""
        return self._list(make_letter_filter(**which))

    async def _list(self, letter_filter: LetterFilter) -> AsyncIterator[DeadLetter]:
        cursor = None
        while True:
            page = await self._calls.call(self._port.find, letter_filter, cursor, LETTERS_AT_ONCE)
            for letter in page.letters:
                yield letter
            cursor = page.next_cursor
            if cursor is None:
                return

    async def show(self, job_id: str) -> LetterDetails:
        """See :meth:`DeadLetters.show`."""
        return await self._calls.call(self._port.letter, JobId(job_id))

    async def retry(self, retry_token: str, *, force: bool = False) -> LetterRetry:
        """See :meth:`DeadLetters.retry`."""
        return await self._calls.call(self._port.retry, retry_token, force)

    def retry_where(
        self, *, all: bool = False, force: bool = False, **which: Unpack[LetterOptions]
    ) -> AsyncIterator[LetterRetry]:
        """See :meth:`DeadLetters.retry_where`."""
        check_chosen(which, all)
        return self._retry_where(make_letter_filter(**which), force)

    async def _retry_where(self, letter_filter: LetterFilter, force: bool) -> AsyncIterator[LetterRetry]:
        cursor = None
        while True:
            batch = await self._calls.call(
                self._port.retry_where, letter_filter, force, cursor, LETTERS_AT_ONCE
            )
            for one in batch.retries:
                yield one
            cursor = batch.next_cursor
            if cursor is None:
                return

    async def purge(self, *, all: bool = False, **which: Unpack[LetterOptions]) -> int:
        """See :meth:`DeadLetters.purge`."""
        check_chosen(which, all)
        letter_filter, cursor, total = make_letter_filter(**which), None, LetterPurge(0, None)
        while True:
            batch = await self._calls.call(self._port.purge, letter_filter, cursor, LETTERS_AT_ONCE)
            total, cursor = with_batch(total, batch), batch.next_cursor
            if cursor is None:
                return number_purged(total)

    async def summary(self) -> LetterSummary:
        """See :meth:`DeadLetters.summary`."""
        return await self._calls.call(self._port.summary)
