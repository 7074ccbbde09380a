"""Keeps the enrolled keys in Redis as the database has them, and takes jobs from revoked workers."""

from __future__ import annotations

from typing import Self

from tether.broker.pools.pools import Pools
from tether.discovery.trust.enrolment import RedisEnrolment
from tether.discovery.trust.trusted_keys import TrustSnapshot
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.store.fleet_keys import current_trust, trust_version
from tether.store.store import Store
from tether.telemetry.logs import get_logger


class MirrorTrust:
    """One look: writes Redis where it differs. Jobs are taken after each change, and once at the start."""

    def __init__(self, store: Store, enrolment: RedisEnrolment, pools: Pools) -> None:
        self._store = store
        self._enrolment = enrolment
        self._pools = pools
        self._trust: TrustSnapshot | None = None
        self._enforced: TrustSnapshot | None = None
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        return cls(plane.store, RedisEnrolment(plane.pools.client, plane.keys), plane.pools)

    def __call__(self) -> float:
        trust = self._trust
        if trust is None or self._store.read(trust_version) != trust.version:
            trust = self._trust = self._store.read(current_trust)
        if not self._enrolment.holds(trust):
            self._enforced = None
            self._enrolment.write(trust)
            self._log.info("Trusted keys were written to Redis.", keys=len(trust.enrolled))
        if self._enforced is not trust:
            # What is drawn from here on is refused by the script itself.
            for boot_id, became in self._pools.take_from_revoked(trust.revoked):
                self._log.warning("A job was taken from a revoked worker.", worker=boot_id, job_is=became)
            self._enforced = trust
        return IDLE
