"""Dead messages of plain actors as operators' programs use them: ``Tether.dead_messages``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tether.client.dead_message_port import DeadMessagePort
from tether.dead_messages import DeadMessage, DeadMessageRetry, DeadQueue
from tether.requests.options import moment_ms

MESSAGES_AT_ONCE = 100
"""Dead messages that are fetched or purged by one request."""


class DeadQueues:
    """Dead messages of plain actors: list, show, retry and purge them, for operators. Thread-safe."""

    def __init__(self, port: DeadMessagePort) -> None:
        self._port = port

    def queues(self) -> list[DeadQueue]:
        """Return the queues that have dead messages."""
        return self._port.queues()

    def list(self, queue: str, *, payloads: bool = False) -> Iterator[DeadMessage]:
        """Iterate over a queue's dead messages, newest first. Pages are fetched as you go.

        Args:
          payloads: Whether each comes with its bytes, in base64.

        Raises:
          InvalidName: A queue cannot have that name.
        """
        cursor = None
        while True:
            page = self._port.find(queue, cursor, MESSAGES_AT_ONCE, payloads)
            yield from page.messages
            cursor = page.next_cursor
            if cursor is None:
                return

    def show(self, queue: str, retry_token: str) -> DeadMessage:
        """Return one dead message, with its bytes in base64.

        Raises:
          RetryTokenUnknown: There is none with this token.
        """
        return self._port.message(queue, retry_token)

    def retry(self, queue: str, retry_token: str, *, force: bool = False) -> DeadMessageRetry:
        """Put a dead message back into its queue, once: used again within an hour, a token says that it was.

        Args:
          force: Also where Tether cannot read the message.

        Raises:
          RetryTokenUnknown: There is none with this token.
          LetterNotRetryable: It cannot be read.
          LetterDamaged: Its bytes are lost.
        """
        return self._port.retry(queue, retry_token, force)

    def purge(
        self, queue: str, retry_token: str | None = None, *, died_before: datetime | None = None
    ) -> int:
        """Remove the dead message that has a token; without one, all that died before a time, or all that
        there are. Return how many.

        Raises:
          InvalidName: A queue cannot have that name.
        """
        before = None if died_before is None else moment_ms("died_before", died_before)
        count = 0
        while True:
            purged = self._port.purge(queue, retry_token, before, MESSAGES_AT_ONCE).purged
            count += purged
            if purged < MESSAGES_AT_ONCE:
                return count
