"""Keeps copies of open dead letters in Dramatiq's layout, and retries what its tools send from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from tether.broker.letter_copies import LetterCopies
from tether.core.direct.letter_retries import LetterRetrier
from tether.dead_letters import OPEN_LETTERS, LetterRetry
from tether.ids import JobId
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.store.dead_letters import letters_at, scan_letters
from tether.store.store import Store
from tether.telemetry.logs import get_logger

LETTER_COPIES = "letter-copies"
"""The name of the loop."""

MAX_COPIES = 1_000
"""The newest open letters have copies, so many at most."""

COPIES_AT_ONCE = 100

MAX_PRESENT = 10 * MAX_COPIES
"""Copies that are looked at, of however many that tools may have made."""

PAUSE_SECONDS = 0.05
"""Between two parts of what there is to copy."""


class CopyLetters:
    """Makes the copies what the database's letters are: it needs no memory, whatever Redis lost."""

    def __init__(
        self,
        store: Store,
        copies: LetterCopies,
        retry: Callable[[Sequence[JobId]], list[LetterRetry]],
        *,
        max_copies: int = MAX_COPIES,
    ) -> None:
        """
        Args:
          retry: Retries the letters of dead jobs, each once.
          max_copies: Copies of the newest letters that there are at most.
        """
        self._store = store
        self._copies = copies
        self._retry = retry
        self._max_copies = max_copies
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        retrier = LetterRetrier(plane, None)
        return cls(
            plane.store,
            LetterCopies(plane.client, plane.keys),
            lambda job_ids: retrier.retry_each(job_ids, force=False),
        )

    def __call__(self) -> float:
        self._retry_sent()
        return IDLE if self._copy() else PAUSE_SECONDS

    def _retry_sent(self) -> None:
        sent = self._copies.sent()
        if not sent:
            return
        # A letter is retried once, whether this is done again or by somebody else at the same time.
        for retried in self._retry(list(dict.fromkeys(each.job_id for each in sent))):
            if retried.error is None:
                self._log.info(
                    "A dead letter was retried, since a tool of Dramatiq's requeued its copy.",
                    job=retried.job_id,
                    retried_as=retried.retried_as,
                )
            else:
                self._log.warning(
                    "A tool of Dramatiq's requeued the copy of a dead letter that cannot be retried.",
                    job=retried.job_id,
                    code=retried.error.code,
                    error=retried.error.message,
                )
        self._copies.drop_sent(sent)

    def _copy(self) -> bool:
        """Change some of the copies. Return whether they are complete now."""
        wanted = self._store.read(scan_letters, OPEN_LETTERS, None, self._max_copies).places
        whole, halves = self._copies.present(MAX_PRESENT)
        ids = {place.job_id.encode() for place in wanted}
        missing = [place for place in wanted if place.job_id.encode() not in whole]
        letters = self._store.read(letters_at, missing[:COPIES_AT_ONCE])
        surplus = sorted((whole | halves) - ids)[:MAX_PRESENT]
        gone, rest = surplus[:COPIES_AT_ONCE], surplus[COPIES_AT_ONCE:]
        if gone or letters:
            self._copies.change(gone, letters)
        return not rest and len(missing) <= COPIES_AT_ONCE
