"""Reads streams and learns which of them have changed since, on one connection, however many they are.

Redis tells a connection that tracks its reads (``CLIENT TRACKING``, Redis 6) once when a key changes that was
read; reading it again renews that. So news cost the same whether ten streams are followed or ten thousand: a
blocking ``XREAD`` would name all of them each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tether.broker.redis.connections import OUTAGE_ERRORS

LIMIT_SECONDS = 2.0
"""What a reply may take. Nothing blocks in Redis, and what has ended is in the database as well."""

_LIMITS = ("socket_timeout", "socket_connect_timeout")

Entry = tuple[bytes, dict[bytes, bytes]]


class StreamWatch:
    """One connection, used by one thread. It connects when it is first used, and reconnects after an outage.

    Every method but :meth:`close` raises ``OUTAGE_ERRORS`` if Redis is unavailable. Nothing is watched any
    more then: all streams must be read again.
    """

    def __init__(self, client: redis.Redis) -> None:
        """
        Args:
          client: Whose server to read from.
        """
        pool = client.connection_pool
        self._kind = pool.connection_class
        given = pool.connection_kwargs
        limits = {name: min(given.get(name) or LIMIT_SECONDS, LIMIT_SECONDS) for name in _LIMITS}
        self._settings = {
            **given,
            **limits,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 3,
            "decode_responses": False,
        }
        self._connection: Any = None
        self._changed: set[bytes] = set()
        self._all_changed = False

    def read(self, cursors: Mapping[bytes, str], max_entries: int) -> dict[bytes, Sequence[Entry]]:
        """The next entries of each stream, and watch them all from here on."""
        keys, ids = list(cursors), list(cursors.values())
        answer = self._ask("XREAD", "COUNT", max_entries, "STREAMS", *keys, *ids)
        return {
            key: [(entry_id, _pairs(fields)) for entry_id, fields in entries]
            for key, entries in (answer or {}).items()
        }

    def wait(self, seconds: float) -> set[bytes] | None:
        """Which streams that were read have changed since, after waiting for the first; None is all."""
        try:
            connection = self._open()
            while connection.can_read(0 if self._changed or self._all_changed else seconds):
                connection.read_response(push_request=True)
                seconds = 0
        except BaseException:
            self.close()
            raise
        changed, self._changed = self._changed, set()
        all_changed, self._all_changed = self._all_changed, False
        return None if all_changed else changed

    def close(self) -> None:
        """Close the connection. It may be used again."""
        connection, self._connection = self._connection, None
        self._changed, self._all_changed = set(), False
        if connection is not None:
            with contextlib.suppress(*OUTAGE_ERRORS, OSError):
                connection.disconnect()

    def _ask(self, *command: Any) -> Any:
        try:
            connection = self._open()
            connection.send_command(*command)
            return connection.read_response()
        except redis.ResponseError:
            raise
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        if self._connection is None:
            connection = self._kind(**self._settings)
            connection.connect()
            connection._parser.set_invalidation_push_handler(self._note)
            connection.send_command("CLIENT", "TRACKING", "ON")
            connection.read_response()
            self._connection = connection
        return self._connection

    def _note(self, message: Sequence[Any]) -> None:
        keys = message[1]
        if keys is None:
            # The database was emptied.
            self._all_changed = True
        else:
            self._changed.update(keys)


def _pairs(fields: Any) -> dict[bytes, bytes]:
    return fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
