"""The port of dead letters."""

from __future__ import annotations

from typing import Protocol

from tether.client.letter_calls import letter_batch_body, letter_query, letter_retry_body
from tether.client.letter_documents import letter_page_from_json, retries_from_json
from tether.client.operations import over_http
from tether.dead_letters import (
    LetterDetails,
    LetterFilter,
    LetterPage,
    LetterPurge,
    LetterRetries,
    LetterRetry,
    LetterSummary,
)
from tether.ids import JobId


class LetterPort(Protocol):
    """Dead letters: looked at, retried, purged."""

    @over_http("GET", "/v1/dead-letters", query=letter_query, read=letter_page_from_json)
    def find(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        """A page of dead letters, the newest first.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """

    @over_http("GET", "/v1/dead-letters/{job_id}")
    def letter(self, job_id: JobId) -> LetterDetails:
        """The dead letter of a job.

        Raises:
          JobNotFound: This cannot be the id of a job.
          LetterNotFound: There is none.
        """

    @over_http("POST", "/v1/dead-letters:retry", body=letter_retry_body)
    def retry(self, retry_token: str, force: bool = False) -> LetterRetry:
        """Retry the dead letter that has this token, as a new job; if the token was used, answer its job.

        Args:
          force: Also where the letter says that a retry would fail.

        Raises:
          RetryTokenUnknown: There is no such token, or it is another tenant's.
          RetryTokenSpent: The letter was purged or has expired, or the job that the token made was deleted.
          LetterNotRetryable: It is none that can succeed.
          LetterDamaged: What is needed of the dead job is gone, or cannot be read.
          TetherError: The submission was refused, as any can be.
        """

    @over_http("POST", "/v1/dead-letters:retry-where", body=letter_batch_body, read=retries_from_json)
    def retry_where(
        self, letter_filter: LetterFilter, force: bool, cursor: str | None, limit: int
    ) -> LetterRetries:
        """Retry a batch of open dead letters, each by itself. The next batch begins at the cursor.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """

    @over_http("POST", "/v1/dead-letters:purge", body=letter_batch_body)
    def purge(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPurge:
        """Purge a batch of open dead letters. The next batch begins at the cursor. One that cannot be purged
        stops no other: the answer names it.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """

    @over_http("GET", "/v1/dead-letters:summary")
    def summary(self) -> LetterSummary:
        """How many open dead letters there are, and when they expire."""
