"""The enrolled keys in Redis: written by the orchestrator, read by processes without a database."""

from __future__ import annotations

import itertools

import redis

from tether.broker.connections import raise_if_refused
from tether.broker.keys import Keys
from tether.discovery.trust.trusted_keys import NOTHING_ENROLLED, Trust


class RedisEnrolment:
    """The mirror of the database's keys in Redis. It owns no connection."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        """
        Args:
          client: Answers in bytes.
          keys: The namespace.
        """
        self._client = client
        self._keys = keys
        self._known = NOTHING_ENROLLED

    def look(self) -> Trust | None:
        """The keys as they are now: the same object while nothing changes.

        None where nobody answers. Where Redis has lost them, those last known: they are back soon.
        """
        try:
            version = self._client.get(self._keys.trust_version)
            if version is not None and int(version) != self._known.version:
                self._known = self._read()
        except redis.RedisError:
            return None
        return self._known

    def _read(self) -> Trust:
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.get(self._keys.trust_version)
            pipeline.hgetall(self._keys.trust)
            pipeline.smembers(self._keys.revoked)
            version, enrolled, revoked = pipeline.execute()
        return Trust(
            enrolled={key.decode(): name.decode() for key, name in enrolled.items()},
            revoked=frozenset(worker.decode() for worker in revoked),
            version=int(version or 0),
        )

    def holds(self, trust: Trust) -> bool:
        """Whether Redis has these keys, as far as their version and their numbers tell.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.get(self._keys.trust_version)
            pipeline.hlen(self._keys.trust)
            pipeline.scard(self._keys.revoked)
            version, enrolled, revoked = pipeline.execute()
        return (int(version or 0), enrolled, revoked) == (
            trust.version,
            len(trust.enrolled),
            len(trust.revoked),
        )

    def write(self, trust: Trust) -> None:
        """Put these keys in the place of whatever Redis has, in one step.

        Raises:
          OUTAGE_ERRORS: Redis is away: it may have been carried out, or not.
        """
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.delete(self._keys.trust, self._keys.revoked)
            if trust.enrolled:
                pipeline.hset(self._keys.trust, items=list(itertools.chain(*trust.enrolled.items())))
            if trust.revoked:
                pipeline.sadd(self._keys.revoked, *sorted(trust.revoked))
            pipeline.set(self._keys.trust_version, trust.version)
            try:
                pipeline.execute()
            except redis.ResponseError as error:
                raise_if_refused(error)
                raise
