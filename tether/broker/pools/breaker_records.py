"""What Redis keeps of breakers: attempts that ended lately, what was decided, and what readers are told."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis

from tether.broker.pools.pools import Pools
from tether.broker.redis.connections import each_answer, is_wrong_type, raise_if_refused

MAX_ATTEMPTS_NOTED = 4_096
"""Attempts of a breaker that are kept, at most. Where there are more, those of tenants that have many go."""

MAX_BREAKERS = 4_096
"""Breakers that are looked at, those with the newest attempts."""

KEPT_MS = 7 * 86_400_000
"""A breaker that was not written for so long is forgotten, with its baseline."""


class BreakerRecord(NamedTuple):
    """What is kept of a breaker.

    Attributes:
      now: Milliseconds of Redis's clock.
      write: The number of the write that it is from; 0 where there is none.
      kept: What was written; None where nothing was, or what stands there is not ours.
      attempts: Those that ended lately, the oldest first.
    """

    now: int
    write: int = 0
    kept: bytes | None = None
    attempts: Sequence[bytes] = ()


class BreakerRecords:
    """Reads and writes them. Thread-safe. All methods raise ``OUTAGE_ERRORS`` where Redis is away."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._client = pools.client
        self._keys = pools.keys

    def names(self, since: int) -> list[str]:
        """The breakers with attempts since a time, by Redis's clock, and those that are not closed."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zremrangebyscore(self._keys.breakers, "-inf", f"({since}")
        pipeline.zrange(self._keys.breakers, 0, MAX_BREAKERS - 1, desc=True)
        pipeline.hkeys(self._keys.open_breakers)
        answers = each_answer(pipeline)
        self._put_right({self._keys.breakers: answers[1], self._keys.open_breakers: answers[2]})
        found = [name for answer in answers[1:] if not isinstance(answer, Exception) for name in answer]
        return sorted({name.decode(errors="replace") for name in found})

    def told(self) -> dict[str, bytes]:
        """What readers are told of the breakers that are not closed, by name."""
        try:
            found: Any = self._client.hgetall(self._keys.open_breakers)
        except redis.ResponseError as error:
            raise_if_refused(error)
            return {}
        return {name.decode(errors="replace"): text for name, text in found.items()}

    def read(self, names: Sequence[str]) -> dict[str, BreakerRecord]:
        """What is kept of breakers, by name. What is not ours costs itself alone."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.time()
        for name in names:
            pipeline.hmget(self._keys.breaker(name), "write", "kept")
            pipeline.lrange(self._keys.breaker_attempts(name), 0, -1)
        (seconds, microseconds), *answers = each_answer(pipeline)
        now = seconds * 1000 + microseconds // 1000
        found: dict[str, BreakerRecord] = {}
        for name, values, attempts in zip(names, answers[::2], answers[1::2], strict=True):
            self._put_right({self._keys.breaker(name): values, self._keys.breaker_attempts(name): attempts})
            write, kept = (None, None) if isinstance(values, Exception) else values
            number = int(write) if write is not None and write.isdigit() and len(write) < 16 else 0
            found[name] = BreakerRecord(
                now, number, kept, () if isinstance(attempts, Exception) else attempts
            )
        return found

    def write(self, name: str, record: BreakerRecord, kept: bytes, told: bytes) -> bool:
        """Write what was made of a record. Return whether nobody was faster.

        Args:
          told: What readers are told; empty where the breaker is closed.
        """
        return bool(self._pools.run_script("pool/write_breaker", name, record.write, kept, told, KEPT_MS))

    def note(self, attempts: Mapping[str, Sequence[bytes]], life_ms: int, per_tenant: int) -> None:
        """Note attempts that ended, by breaker.

        Args:
          per_tenant: Attempts of each tenant that are kept, at most, where not all can be.
          life_ms: They say nothing any more after so long.
        """
        for name, texts in attempts.items():
            # What one breaker's keys refuse is no reason not to note the attempts of others.
            with contextlib.suppress(redis.ResponseError):
                self._pools.run_script(
                    "pool/note_attempts", name, MAX_ATTEMPTS_NOTED, per_tenant, life_ms, *texts
                )

    def _put_right(self, answers: Mapping[str, Any]) -> None:
        """Throw away what is of another type than ours: nobody can read it."""
        misfits = [key for key, answer in answers.items() if is_wrong_type(answer)]
        if misfits:
            self._client.delete(*misfits)
