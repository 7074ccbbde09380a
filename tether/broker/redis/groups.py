"""Streams that a group of readers works off: each entry by one of them, and by another when that one dies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from tether.broker.redis.connections import without_retries
from tether.broker.redis.memory_limit import write_past_limit

_PATIENCE_SECONDS = 6.0
"""Time limit of a socket over which a reader waits for entries, which is less."""

RawEntry = tuple[bytes, dict[bytes, bytes]]


class GroupReader:
    """One member of the group that works off a stream. The group is made when it is first read.

    It owns one connection; :meth:`close` closes it.
    """

    def __init__(self, client: redis.Redis, stream: str, group: str, member: str) -> None:
        self.client = without_retries(client, socket_timeout=_PATIENCE_SECONDS)
        self._owns_client = self.client is not client
        self._stream = stream
        self._group = group
        self._member = member
        self._claimed_until: Any = "0-0"

    def close(self) -> None:
        """Close the connection."""
        if self._owns_client:
            self.client.close()

    def read(self, count: int, wait_ms: int) -> list[RawEntry]:
        """The next entries, after waiting for the first where ``wait_ms`` is not 0."""
        try:
            answer = self._read(count, wait_ms)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._make_group()
            answer = self._read(count, wait_ms)
        return _present(answer[0][1]) if answer else []

    def _read(self, count: int, wait_ms: int) -> Any:
        return self.client.xreadgroup(
            self._group, self._member, {self._stream: ">"}, count=count, block=wait_ms or None
        )

    def claim(self, count: int, idle_ms: int) -> list[RawEntry]:
        """Entries that were read and not acknowledged for so long; from where the last claim ended."""
        try:
            # 6.2 answers two parts, 7 and later three: the entries are the second in both.
            answer: Any = self.client.xautoclaim(
                self._stream, self._group, self._member, idle_ms, self._claimed_until, count=count
            )
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return []
        self._claimed_until = answer[0]
        return _present(answer[1])

    def acknowledge(self, entry_ids: Iterable[bytes | str]) -> None:
        """Say that entries are done with."""
        ids = list(entry_ids)
        if ids:
            self.client.xack(self._stream, self._group, *ids)

    def trim(self) -> None:
        """Remove the entries before the first that is not acknowledged, or not read yet."""
        try:
            groups: Any = self.client.xinfo_groups(self._stream)
        except redis.ResponseError:
            return
        group = next((each for each in groups if each["name"] == self._group.encode()), None)
        if group is None:
            return
        oldest = group["last-delivered-id"]
        if group["pending"]:
            summary: Any = self.client.xpending(self._stream, self._group)
            oldest = summary["min"] or oldest
        self.client.xtrim(self._stream, minid=oldest, approximate=True)

    def _make_group(self) -> None:
        try:
            # Nothing that ends would be settled before Redis has memory again, and then none would come free.
            write_past_limit(
                self.client, self._stream, "XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM"
            )
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _present(entries: Iterable[tuple[bytes | None, dict[bytes, bytes] | None]]) -> list[RawEntry]:
    # What was removed while somebody had it in hand, Redis 6.2 answers as nothing.
    return [(entry_id, fields or {}) for entry_id, fields in entries if entry_id is not None]
