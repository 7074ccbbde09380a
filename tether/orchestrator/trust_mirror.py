"""Keeps the enrolled keys in Redis as the database has them, and takes jobs from revoked workers."""

from __future__ import annotations

from tether.broker.pools import Pools
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.trusted_keys import Trust
from tether.store.fleet_keys import current_trust, trust_version
from tether.store.store import Store
from tether.telemetry.logs import get_logger

INTERVAL_SECONDS = 1.0


class MirrorTrust:
    """One look: writes Redis where it differs. Jobs are taken after each change, and once at the start."""

    name = "trust-mirror"

    def __init__(self, store: Store, enrolment: RedisEnrolment, pools: Pools) -> None:
        self._store = store
        self._enrolment = enrolment
        self._pools = pools
        self._trust: Trust | None = None
        self._enforced: Trust | None = None
        self._log = get_logger("tether.orchestrator")

    def __call__(self) -> float:
        trust = self._trust
        if trust is None or self._store.read(trust_version) != trust.version:
            trust = self._trust = self._store.read(current_trust)
        if not self._enrolment.holds(trust):
            self._enforced = None
            self._enrolment.write(trust)
            self._log.info("Redis has the keys that count.", keys=len(trust.enrolled))
        if self._enforced is not trust:
            # What is drawn from here on is refused by the script itself.
            for worker, became in self._pools.take_from_revoked(trust.revoked):
                self._log.warning("A job was taken from a revoked worker.", worker=worker, job_is=became)
            self._enforced = trust
        return INTERVAL_SECONDS
