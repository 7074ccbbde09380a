"""Dead messages of plain actors as clients see them: what Dramatiq's queues keep of what failed for good."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from tether.errors import InvalidRequest, RetryTokenUnknown

MAX_DEAD_MESSAGES = 200
"""Dead messages of a page, and of one purge."""

_PLACE = re.compile(r"(-?(?:inf|[0-9][0-9.e+]{0,39}))-([A-Za-z0-9_.~%-]{1,1000})\Z", re.ASCII)


class MessagePlace(NamedTuple):
    """Where a dead message stands: when it died, as Redis has it, and its id in Redis."""

    died_at: str
    redis_id: bytes


@dataclass(frozen=True, kw_only=True)
class DeadMessage:
    """A message of a plain actor that is not tried again by itself. Times are milliseconds since the epoch.

    Attributes:
      retry_token: Retries it once. If it dies again, it has another one.
      size: Bytes of the message; None if they are lost.
      message_id, actor: Of the message, where it can be read.
      error: What its last attempt ended with, where the message tells.
      expires_at: When it will be removed; None if never.
      problem: Why it cannot be read or shown; None if it can.
      payload: The message as it is in Redis, in base64; empty where it was not asked for, or is too large.
    """

    queue: str
    retry_token: str
    died_at: int
    size: int | None = None
    message_id: str | None = None
    actor: str | None = None
    error: str | None = None
    expires_at: int | None = None
    problem: str | None = None
    payload: str = ""


@dataclass(frozen=True)
class DeadMessagePage:
    """Some dead messages of a queue, newest first, and the cursor of the next page; None on the last one."""

    messages: tuple[DeadMessage, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class DeadQueue:
    """A queue of plain actors that has dead messages. Times are milliseconds since the epoch.

    Attributes:
      count: Number of them.
      oldest_at: When the oldest died.
      retention_ms: Age at which they are removed, as ``broker.dead_message_ttl`` says; None if never.
    """

    queue: str
    count: int
    oldest_at: int | None = None
    retention_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class DeadMessageRetry:
    """What came of retrying a dead message.

    Attributes:
      is_new: Whether this call put it back into its queue. False: an earlier one did, with the same token.
    """

    queue: str
    retry_token: str
    is_new: bool


@dataclass(frozen=True)
class DeadMessagePurge:
    """Number of dead messages that were purged."""

    purged: int


def token_at(place: MessagePlace) -> str:
    """The retry token, and cursor, of a dead message."""
    return f"{place.died_at}-{quote_from_bytes(place.redis_id, safe='')}"


def message_place_of(cursor: object) -> MessagePlace | None:
    """The place that a cursor stands for; None without a cursor.

    Raises:
      InvalidRequest: It is none.
    """
    if cursor is None:
        return None
    match = _PLACE.match(cursor) if isinstance(cursor, str) else None
    if match is None:
        raise InvalidRequest(
            f"cursor={repr(cursor)[:100]} was not returned by a previous page: use next_cursor of that page"
        )
    return MessagePlace(match[1], unquote_to_bytes(match[2]))


def message_at(queue: str, retry_token: object) -> MessagePlace:
    """The place that a retry token stands for.

    Raises:
      RetryTokenUnknown: It is none.
    """
    match = _PLACE.match(retry_token) if isinstance(retry_token, str) else None
    if match is None:
        raise no_such_message(queue)
    return MessagePlace(match[1], unquote_to_bytes(match[2]))


def no_such_message(queue: str) -> RetryTokenUnknown:
    """The error where a queue has no dead message with a token."""
    return RetryTokenUnknown(
        f"queue {queue!r} has no dead message with this retry token: it was retried or purged, has expired, "
        f"or never was: `tether dlq list --queue {queue}` lists those there are"
    )


def check_message_limit(limit: object) -> None:
    """Check the limit of a page or purge.

    Raises:
      InvalidRequest: It is not possible.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_DEAD_MESSAGES:
        raise InvalidRequest(
            f"limit={repr(limit)[:100]} is invalid: limit must be an integer from 1 to {MAX_DEAD_MESSAGES}"
        )
