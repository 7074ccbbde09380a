"""The port of plain actors' dead messages."""

from __future__ import annotations

from typing import Protocol

from tether.client.message_calls import message_purge_body, message_query, message_retry_body
from tether.client.operations import over_http
from tether.dead_messages import (
    DeadMessage,
    DeadMessagePage,
    DeadMessagePurge,
    DeadMessageRetry,
    DeadQueue,
)


class DeadMessagePort(Protocol):
    """Dead messages of plain actors, for operators: looked at, retried, purged."""

    @over_http("GET", "/v1/operator/dead-messages")
    def queues(self) -> list[DeadQueue]:
        """The queues that have dead messages."""

    @over_http("GET", "/v1/operator/dead-messages/{queue}", query=message_query)
    def find(self, queue: str, cursor: str | None, limit: int, payloads: bool = False) -> DeadMessagePage:
        """A page of a queue's dead messages, the newest first.

        Raises:
          InvalidName: A queue cannot have that name.
          InvalidRequest: The cursor or the limit is not possible.
        """

    @over_http("GET", "/v1/operator/dead-messages/{queue}/{retry_token}")
    def message(self, queue: str, retry_token: str) -> DeadMessage:
        """One dead message, whole.

        Raises:
          RetryTokenUnknown: There is none.
        """

    @over_http("POST", "/v1/operator/dead-messages:retry", body=message_retry_body)
    def retry(self, queue: str, retry_token: str, force: bool = False) -> DeadMessageRetry:
        """Put a dead message back into its queue.

        Args:
          force: Also where it cannot be read.

        Raises:
          RetryTokenUnknown: There is none.
          LetterNotRetryable: It cannot be read.
          LetterDamaged: Its bytes are lost.
        """

    @over_http("POST", "/v1/operator/dead-messages:purge", body=message_purge_body)
    def purge(
        self, queue: str, retry_token: str | None, died_before: int | None, limit: int
    ) -> DeadMessagePurge:
        """Remove the dead message that has a token; without one, the oldest that died before a time.

        Raises:
          InvalidRequest: The limit is not possible.
        """
