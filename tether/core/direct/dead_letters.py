"""Dead letters, straight from the database."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from tether.client.lifetime import Lifetime
from tether.core.control_plane import ControlPlane
from tether.core.direct.letter_retries import LetterRetrier
from tether.dead_letters import (
    DeadLetter,
    LetterDetails,
    LetterFilter,
    LetterPage,
    LetterPurge,
    LetterRetries,
    LetterRetry,
    LetterState,
    LetterSummary,
    check_letter_limit,
    cursor_of,
    place_of,
)
from tether.errors import InvalidRequest, LetterNotFound
from tether.ids import JobId, TenantId
from tether.job_names import check_job_id
from tether.letter_filters import check_open
from tether.store.dead_letters import dead_letter, letters_at, open_letters, scan_letters, with_expiry
from tether.store.letter_changes import LetterClosing, close_letters
from tether.store.letter_retries import TokenOwner, retry_chain
from tether.telemetry.logs import get_logger

MAX_COUNTED_LETTERS = 10_000
"""Open letters that a summary counts."""

_log = get_logger("tether.core")

EVERY_TENANT = TenantId("*")
"""The party that readings of all tenants' letters are, among those that wait for lists."""


class DirectLetterPort:
    """See :class:`~tether.client.letter_port.LetterPort`.

    Args:
      tenant: Whose letters; None for all tenants'.
    """

    def __init__(self, plane: ControlPlane, lifetime: Lifetime, tenant: TenantId | None) -> None:
        self._plane = plane
        self._lifetime = lifetime
        self._tenant = tenant
        self._retrier = LetterRetrier(plane, tenant)
        self._retention_ms = plane.settings.jobs.dead_letter_retention

    def find(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        with self._plane.list_reads.turn(self._tenant or EVERY_TENANT):
            return self.find_in_turn(letter_filter, cursor, limit)

    def find_in_turn(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        """Like :meth:`find`, for a caller that holds a turn of the control plane's ``list_reads``."""
        check_letter_limit(limit)
        wanted, after = self._mine(letter_filter), place_of(cursor)

        def read(connection: Connection) -> LetterPage:
            found = scan_letters(connection, wanted, after, limit)
            letters = tuple(map(self._shown, letters_at(connection, found.places)))
            return LetterPage(letters, None if found.after is None else cursor_of(found.after))

        with self._lifetime.call():
            return self._plane.store.read(read)

    def letter(self, job_id: JobId) -> LetterDetails:
        check_job_id(job_id)

        def read(connection: Connection) -> LetterDetails | None:
            found = dead_letter(connection, job_id, self._tenant)
            if found is None:
                return None
            chain = tuple(retry_chain(connection, job_id, self._tenant))
            return LetterDetails(**vars(self._shown(found)), chain=chain)

        with self._lifetime.call():
            found = self._plane.store.read(read)
        if found is None:
            raise LetterNotFound(
                f"there is no dead letter of job {job_id}, or the job belongs to another tenant: "
                "`tether dlq list` lists those there are"
            )
        return found

    def retry(self, retry_token: str, force: bool = False) -> LetterRetry:
        with self._lifetime.call():
            return self._retrier.retry(retry_token, force=force)

    def retry_where(
        self, letter_filter: LetterFilter, force: bool, cursor: str | None, limit: int
    ) -> LetterRetries:
        check_letter_limit(limit)
        wanted, after = self._open(letter_filter), place_of(cursor)
        with self._lifetime.call():
            found = self._plane.store.read(scan_letters, wanted, after, limit)
            retries = self._retrier.retry_each([place.job_id for place in found.places], force=force)
        return LetterRetries(tuple(retries), None if found.after is None else cursor_of(found.after))

    def purge(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPurge:
        check_letter_limit(limit)
        wanted, after = self._open(letter_filter), place_of(cursor)
        now_ms = self._plane.clock.now_ms()
        with self._lifetime.call():
            found = self._plane.store.read(scan_letters, wanted, after, limit)
            closings = [LetterClosing(place.job_id, LetterState.PURGED, now_ms) for place in found.places]
            answers = self._plane.store.write_each(close_letters, closings)
        failed = []
        for place, answer in zip(found.places, answers, strict=True):
            if isinstance(answer, Exception):
                _log.error("A dead letter could not be purged.", job=place.job_id, error=repr(answer))
                failed.append(place.job_id)
        purged = sum(answer is True for answer in answers)
        return LetterPurge(purged, None if found.after is None else cursor_of(found.after), tuple(failed))

    def owner_of(self, retry_token: str) -> TokenOwner | None:
        """Whose letter has this token; None if there is none, or not of this tenant."""
        with self._lifetime.call():
            return self._retrier.owner_of(retry_token)

    def summary(self) -> LetterSummary:
        with self._lifetime.call():
            count, oldest = self._plane.store.read(open_letters, self._tenant, MAX_COUNTED_LETTERS)
        retention = self._retention_ms
        return LetterSummary(
            open=count,
            is_exact=count < MAX_COUNTED_LETTERS,
            oldest_at=None if oldest is None else oldest.created_at,
            retention_ms=retention,
            next_expiry_at=None if oldest is None or retention is None else oldest.created_at + retention,
        )

    def _shown(self, letter: DeadLetter) -> DeadLetter:
        return with_expiry(letter, self._retention_ms)

    def _mine(self, letter_filter: LetterFilter) -> LetterFilter:
        if self._tenant is None:
            return letter_filter
        if letter_filter.tenant_id not in (None, self._tenant):
            raise InvalidRequest("only operators can ask for another tenant's dead letters")
        return replace(letter_filter, tenant_id=self._tenant)

    def _open(self, letter_filter: LetterFilter) -> LetterFilter:
        check_open(letter_filter)
        return self._mine(letter_filter)
