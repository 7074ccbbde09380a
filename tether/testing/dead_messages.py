"""The fake's dead messages of plain actors: it runs none, so there are none."""

from __future__ import annotations

from tether.dead_messages import (
    DeadMessage,
    DeadMessagePage,
    DeadMessagePurge,
    DeadMessageRetry,
    DeadQueue,
    check_message_limit,
    message_place_of,
    no_such_message,
)


class FakeDeadMessagePort:
    """See :class:`~tether.client.dead_message_port.DeadMessagePort`."""

    def queues(self) -> list[DeadQueue]:
        return []

    def find(self, queue: str, cursor: str | None, limit: int, payloads: bool = False) -> DeadMessagePage:
        check_message_limit(limit)
        message_place_of(cursor)
        return DeadMessagePage((), None)

    def message(self, queue: str, retry_token: str) -> DeadMessage:
        raise no_such_message(queue)

    def retry(self, queue: str, retry_token: str, force: bool = False) -> DeadMessageRetry:
        raise no_such_message(queue)

    def purge(
        self, queue: str, retry_token: str | None, died_before: int | None, limit: int
    ) -> DeadMessagePurge:
        check_message_limit(limit)
        return DeadMessagePurge(0)
