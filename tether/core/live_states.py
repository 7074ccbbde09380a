"""The states of jobs that Redis owns, if it responds in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import redis

from tether.broker.keys import Keys
from tether.broker.pools.known_jobs import KnownJob, known_jobs
from tether.broker.pools.live_attempts import LiveAttempts, live_attempts
from tether.broker.redis.connections import OUTAGE_ERRORS, without_retries
from tether.discovery.over_redis.load_failures import read_load_failures
from tether.ids import JobId, WorkerId

PATIENCE_SECONDS = 1.0
"""How long an answer is waited for: a status without it is as the database has it."""

FAILURES_SECONDS = 1.0
"""For so long why models cannot be loaded is told as it was read. Workers say it every few seconds."""

REST_SECONDS = 2.0
"""For so long Redis is not asked again after it did not answer."""


class LiveStates:
    """Asks Redis on connections of its own, which :meth:`close` closes. Safe to use from many threads."""

    def __init__(
        self, client: redis.Redis, keys: Keys, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
          client: Whose server to ask.
        """
        self._client = without_retries(
            client, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )
        self._owns_client = self._client is not client
        self._keys = keys
        self._clock = clock
        self._away_until = 0.0
        self._failures: tuple[float, Mapping[WorkerId, Mapping[str, str]]] = 0.0, {}

    def known(self, job_ids: Sequence[JobId]) -> Mapping[JobId, KnownJob | None]:
        """What Redis knows of each job, without those whose hash is unreadable; nothing while Redis is
        unavailable."""
        if not job_ids or self.is_away():
            return {}
        try:
            found = known_jobs(self._client, self._keys, job_ids)
        except OUTAGE_ERRORS:
            self.note_away()
            return {}
        return {
            job_id: known
            for job_id, known in zip(job_ids, found, strict=True)
            if not isinstance(known, Exception)
        }

    def attempts(self, job_id: JobId) -> LiveAttempts | None:
        """What Redis knows of a job's attempts; None where it knows nothing of the job, or is unavailable."""
        if self.is_away():
            return None
        try:
            return live_attempts(self._client, self._keys, job_id)
        except OUTAGE_ERRORS:
            self.note_away()
            return None

    def load_failures(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Mapping[str, str]]:
        """Why these workers cannot load models, by the models' names, as of less than a second ago; nothing
        while Redis is unavailable."""
        told_until, found = self._failures
        if self._clock() < told_until:
            return found
        if not workers or self.is_away():
            return {}
        try:
            found = read_load_failures(self._client, self._keys, workers)
        except OUTAGE_ERRORS:
            self.note_away()
            return {}
        self._failures = self._clock() + FAILURES_SECONDS, found
        return found

    def is_away(self) -> bool:
        """Whether Redis did not answer a moment ago."""
        return self._clock() < self._away_until

    def note_away(self) -> None:
        """Record that Redis did not respond."""
        self._away_until = self._clock() + REST_SECONDS

    def close(self) -> None:
        """Close the connections."""
        if self._owns_client:
            self._client.close()
