"""Dead messages of plain queues in Redis, in Dramatiq's own layout: read, retried, purged."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import redis

from tether.broker.keys import Keys, check_queue_name
from tether.broker.scripts import BROKER_SCRIPTS, rows
from tether.dead_messages import (
    DeadMessage,
    DeadMessagePage,
    DeadMessagePurge,
    DeadMessageRetry,
    DeadQueue,
    MessagePlace,
    check_message_limit,
    message_at,
    message_place_of,
    no_such_message,
    token_at,
)
from tether.errors import InvalidName, LetterDamaged, LetterNotRetryable

MAX_READ_BYTES = 256 * 1024
"""Of a message that is read for a list."""

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
"""Of a message that is shown or exported whole."""

PAGE_BYTES = 4 * 1024 * 1024

MAX_SCANNED = 1_000
"""Rounds of a search for queues, of 2,000 keys each."""

_MAX_TEXT = 500


class DeadMessages:
    """Those of one namespace. Blocks; raises redis-py's errors."""

    def __init__(self, client: redis.Redis, keys: Keys, *, retention_ms: int | None) -> None:
        """
        Args:
          retention_ms: Age at which workers remove them; None if never.
        """
        self._client: Any = client
        self._keys = keys
        self._retention_ms = retention_ms

    def queues(self) -> list[DeadQueue]:
        """The queues that have dead messages, by name: this goes through the keys of Redis."""
        prefix, names, cursor = f"{self._keys.prefix}:".encode(), set(), 0
        for _ in range(MAX_SCANNED):
            cursor, found = self._client.scan(cursor, match=f"{self._keys.prefix}:*.XQ", count=2_000)
            names |= {key.removeprefix(prefix).removesuffix(b".XQ").decode(errors="replace") for key in found}
            if cursor == 0:
                break
        return [queue for name in sorted(names) if (queue := self._queue(name)) is not None]

    def _queue(self, name: str) -> DeadQueue | None:
        try:
            letters = f"{self._keys.prefix}:{check_queue_name(name)}.XQ"
            count = self._client.zcard(letters)
            oldest = self._client.zrange(letters, 0, 0, withscores=True)
        except (InvalidName, redis.ResponseError):
            # Copies of jobs' letters, or no queue.
            return None
        if not count or not oldest:
            return None
        return DeadQueue(
            queue=name,
            count=count,
            oldest_at=_milliseconds(oldest[0][1]),
            retention_ms=self._retention_ms,
        )

    def find(self, queue: str, cursor: str | None, limit: int, payloads: bool = False) -> DeadMessagePage:
        """A page of a queue's dead messages, the newest first.

        Raises:
          InvalidName: Users' queues cannot have that name.
          InvalidRequest: The cursor or the limit is not possible.
        """
        check_queue_name(queue)
        check_message_limit(limit)
        after = message_place_of(cursor) or ("", b"")
        longest = MAX_PAYLOAD_BYTES if payloads else MAX_READ_BYTES
        more, *found = self._run("dead_list", queue, "", "", *after, limit, PAGE_BYTES, longest)
        messages: list[DeadMessage] = []
        last: MessagePlace | None = None
        for redis_id, died_at, size, data in rows(found, 4):
            last = MessagePlace(died_at.decode(), redis_id)
            messages.append(self._message(queue, last, size, data, with_payload=payloads))
        return DeadMessagePage(tuple(messages), token_at(last) if more and last is not None else None)

    def message(self, queue: str, retry_token: str) -> DeadMessage:
        """One dead message, whole.

        Raises:
          InvalidName: Users' queues cannot have that name.
          RetryTokenUnknown: There is none.
        """
        place = message_at(check_queue_name(queue), retry_token)
        found = self._run("dead_one", queue, place.redis_id, place.died_at, MAX_PAYLOAD_BYTES)
        if not found:
            raise no_such_message(queue)
        return self._message(queue, place, *found, with_payload=True)

    def retry(self, queue: str, retry_token: str, force: bool = False) -> DeadMessageRetry:
        """Put a dead message back into its queue, as it is: once for each token.

        Args:
          force: Also where it cannot be read here, as with an encoder of the program's own.

        Raises:
          InvalidName: Users' queues cannot have that name.
          RetryTokenUnknown: There is none.
          LetterNotRetryable: It cannot be read here.
          LetterDamaged: Its bytes are lost.
        """
        place = message_at(check_queue_name(queue), retry_token)
        if not force:
            found = self._run("dead_one", queue, place.redis_id, place.died_at, MAX_PAYLOAD_BYTES)
            problem = self._message(queue, place, *found, with_payload=False).problem if found else None
            if problem is not None and found[0] >= 0:
                raise LetterNotRetryable(
                    f"this dead message of queue {queue!r} {problem}: retry it by force (--force, or "
                    "force=true) if the program's workers can read it"
                )
        answer = self._run("dead_retry", queue, place.redis_id, place.died_at)
        if answer == 0:
            raise no_such_message(queue)
        if answer < 0:
            raise LetterDamaged(f"the bytes of this dead message of queue {queue!r} are lost: purge it")
        return DeadMessageRetry(queue=queue, retry_token=retry_token, is_new=answer == 1)

    def purge(
        self, queue: str, retry_token: str | None, died_before: int | None, limit: int
    ) -> DeadMessagePurge:
        """Remove the dead message that has a token; without one, the oldest that died before a time.

        Raises:
          InvalidName: Users' queues cannot have that name.
          InvalidRequest: The limit is not possible.
        """
        check_queue_name(queue)
        check_message_limit(limit)
        if retry_token is not None:
            place = message_at(queue, retry_token)
            return DeadMessagePurge(self._run("dead_purge", queue, "one", place.redis_id, place.died_at))
        before = "" if died_before is None else died_before
        return DeadMessagePurge(self._run("dead_purge", queue, before, "", limit))

    def _message(
        self, queue: str, place: MessagePlace, size: int, data: bytes, *, with_payload: bool
    ) -> DeadMessage:
        died_at = _milliseconds(float(place.died_at))
        content: dict[str, Any] = {}
        problem = None
        if size < 0:
            problem = "has lost its bytes"
        elif len(data) < size:
            problem = f"is too large to be read here ({size} bytes)"
        else:
            content, problem = _content(data)
        options = content.get("options")
        traceback = options.get("traceback") if isinstance(options, dict) else None
        return DeadMessage(
            queue=queue,
            retry_token=token_at(place),
            died_at=died_at,
            size=None if size < 0 else size,
            message_id=_text(content.get("message_id")),
            actor=_text(content.get("actor_name")),
            error=_text(traceback.rstrip().rpartition("\n")[2]) if isinstance(traceback, str) else None,
            expires_at=None if self._retention_ms is None else died_at + self._retention_ms,
            problem=problem,
            payload=base64.b64encode(data).decode() if with_payload else "",
        )

    def _run(self, script: str, *arguments: Any) -> Any:
        return BROKER_SCRIPTS.run(self._client, script, self._keys.heartbeats, *arguments)


def _content(data: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}, "is no JSON"
    if not isinstance(content, dict) or not isinstance(content.get("actor_name"), str):
        return {}, "is no message of Dramatiq's"
    return content, None


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT].encode(errors="replace").decode() if isinstance(value, str) else None


def _milliseconds(score: float) -> int:
    return int(min(max(score, 0), 2**53)) if math.isfinite(score) else 0
