"""The enrolled keys in Redis: written by the orchestrator, read by processes without a database."""

from __future__ import annotations

import itertools
from pathlib import Path

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import each_answer
from tether.broker.scripts import Argument, Scripts
from tether.discovery.trust.trusted_keys import NOTHING_ENROLLED, TrustSnapshot
from tether.ids import WorkerId

_SCRIPTS = Scripts(Path(__file__).with_name("lua"))


class RedisEnrolment:
    """The mirror of the database's keys in Redis. It owns no connection."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        """
        Args:
          client: Returns bytes.
          keys: The namespace.
        """
        self._client = client
        self._keys = keys
        self._known = NOTHING_ENROLLED

    def look(self) -> TrustSnapshot | None:
        """Return the current keys: the same object while nothing changes.

        None if Redis is unavailable. If Redis has lost them, the last known: they are restored soon.
        """
        try:
            version = self._client.get(self._keys.trust_version)
            if version is not None and version != str(self._known.version).encode():
                self._known = self._read()
        except (redis.RedisError, ValueError):
            # Also where what it holds cannot be read: the orchestrator replaces that.
            return None
        return self._known

    def _read(self) -> TrustSnapshot:
        # No transaction, which Redis refuses at its memory limit. The version comes first: if the keys change
        # meanwhile, it is an older one, and they are read again.
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.get(self._keys.trust_version)
            pipeline.hgetall(self._keys.trust)
            pipeline.smembers(self._keys.revoked)
            version, enrolled, revoked = pipeline.execute()
        return TrustSnapshot(
            enrolled={
                key.decode(errors="replace"): name.decode(errors="replace") for key, name in enrolled.items()
            },
            revoked=frozenset(WorkerId(worker.decode(errors="replace")) for worker in revoked),
            version=int(version or 0),
        )

    def holds(self, trust: TrustSnapshot) -> bool:
        """Return whether Redis has these keys, judged by their version and number.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.get(self._keys.trust_version)
            pipeline.hlen(self._keys.trust)
            pipeline.scard(self._keys.revoked)
            # What is of another type than we write is not held, and is replaced.
            held = each_answer(pipeline)
        expected = str(trust.version).encode(), len(trust.enrolled), len(trust.revoked)
        return tuple(held) == expected or (not trust.version and held == [None, 0, 0])

    def write(self, trust: TrustSnapshot) -> None:
        """Replace the keys in Redis atomically; at its memory limit too.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable: it may or may not have been executed.
        """
        enrolled = itertools.chain(*trust.enrolled.items())
        arguments: list[Argument] = [trust.version, len(trust.enrolled), *enrolled, *sorted(trust.revoked)]
        _SCRIPTS.run(self._client, "write", self._keys.trust, *arguments)
