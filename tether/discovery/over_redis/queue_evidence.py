"""Reads from Redis what workers were seen to do there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import without_retries
from tether.broker.scripts import Scripts, rows
from tether.discovery.fleet.liveness import Appearance, Draws, Evidence
from tether.ids import PoolName, WorkerId

_SCRIPTS = Scripts(Path(__file__).with_name("lua"))
_WORDS_OF_KIND = {b"d": 4, b"m": 4, b"r": 3, b"c": 3}


class QueueEvidence:
    """Safe to use from many threads. :meth:`close` closes its connections."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        """
        Args:
          client: Returns bytes.
        """
        self._key = keys.seen
        self._client = without_retries(client)
        self._owns_client = self._client is not client

    def read(self) -> Evidence:
        """
        Raises:
          OUTAGE_ERRORS: Redis cannot be asked now.
        """
        return read_evidence(_SCRIPTS.run(self._client, "evidence", self._key))

    def close(self) -> None:
        """Close the connections."""
        if self._owns_client:
            self._client.close()


def read_evidence(answer: Sequence[bytes | None]) -> Evidence:
    """The reply of the script ``evidence``. What cannot be read in it is left out."""
    now, seen, since, paused, resumed = answer
    asked: dict[Draws, int] = {}
    missed: dict[Draws, int] = {}
    renewed: dict[WorkerId, int] = {}
    copied: dict[WorkerId, int] = {}
    for kind, *words in _acts((seen or b"").split()):
        worker, at = WorkerId(words[0].decode("ascii", "replace")), _number(words[-1])
        if len(words) == 2:
            (renewed if kind == b"r" else copied)[worker] = at
        else:
            draws = Draws(worker, PoolName(words[1].decode("ascii", "replace")))
            (asked if kind == b"d" else missed)[draws] = at
    words = (since or b"").split()
    known = {
        WorkerId(worker.decode("ascii", "replace")): Appearance(*map(_number, times))
        for worker, *times in rows(words[: len(words) // 4 * 4], 4)
    }
    return Evidence(
        now=_number(now),
        asked=asked,
        missed=missed,
        renewed=renewed,
        copied=copied,
        known=known,
        paused=_number(paused),
        resumed=_number(resumed),
    )


def _acts(words: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    place = 0
    while place < len(words):
        count = _WORDS_OF_KIND.get(words[place], 0)
        if not count or place + count > len(words):
            return
        yield words[place : place + count]
        place += count


def _number(text: bytes | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
