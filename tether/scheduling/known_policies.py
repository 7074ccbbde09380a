"""What a process knows of the policies of tenants: what the database had a moment ago."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from tether.ids import TenantId
from tether.policies.document import NO_POLICY
from tether.policies.kept import TenantPolicy, kept_policy
from tether.store.policies import policy_of, policy_revisions
from tether.store.store import Store

FRESH_POLICIES_SECONDS = 1.0
"""Maximum age of what is known."""

MAX_KNOWN_POLICIES = 4_096
"""Documents that are remembered: those of tenants that were asked for last."""

REVISIONS_PER_READ = 1_000


class KnownPolicies:
    """Looks once a second which policies were set since, whoever asks, and reads a document when its tenant
    is asked for. Thread-safe.

    All that is remembered of every tenant is the number of its newest version. So neither many tenants nor
    large documents cost a submission more.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """
        Args:
          clock: Seconds of a monotonic clock.
        """
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._newest: dict[TenantId, int] = {}
        self._read: OrderedDict[TenantId, tuple[int, TenantPolicy]] = OrderedDict()
        self._revision = 0
        self._looked_at: float | None = None

    def of_tenant(self, tenant: TenantId | None) -> TenantPolicy:
        """Return what holds for a tenant. Nobody's jobs, and those of tenants without a policy, may do
        everything.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        if tenant is None:
            return NO_POLICY
        if not self._is_fresh():
            self._look()
        with self._lock:
            version = self._newest.get(tenant)
            if version is None:
                return NO_POLICY
            known = self._read.get(tenant)
            if known is not None and known[0] == version:
                self._read.move_to_end(tenant)
                return known[1]
        return self._read_document(tenant, version)

    def at_hand(self, tenant: TenantId) -> TenantPolicy | None:
        """The same, where it is known without asking the database; else None. Never blocks."""
        if not self._is_fresh():
            return None
        with self._lock:
            version = self._newest.get(tenant)
            if version is None:
                return NO_POLICY
            known = self._read.get(tenant)
            return known[1] if known is not None and known[0] == version else None

    def _is_fresh(self) -> bool:
        looked_at = self._looked_at
        return looked_at is not None and 0 <= self._clock() - looked_at < FRESH_POLICIES_SECONDS

    def _is_too_old(self) -> bool:
        looked_at = self._looked_at
        return looked_at is None or not 0 <= self._clock() - looked_at < 2 * FRESH_POLICIES_SECONDS

    def _look(self) -> None:
        # One looks. Who comes meanwhile goes by what is known, which is a moment older; but all wait where
        # nothing is known, or what is known is too old.
        if not self._looking.acquire(blocking=self._is_too_old()):
            return
        try:
            if self._is_fresh():
                return
            now = self._clock()
            while True:
                found = self._store.read(policy_revisions, self._revision, REVISIONS_PER_READ)
                with self._lock:
                    for each in found:
                        if each.tenant_id is not None:
                            self._newest[each.tenant_id] = each.version
                        self._revision = each.revision
                if len(found) < REVISIONS_PER_READ:
                    break
            self._looked_at = now
        finally:
            self._looking.release()

    def _read_document(self, tenant: TenantId, version: int) -> TenantPolicy:
        row = self._store.read(policy_of, tenant, version)
        policy = kept_policy(version, None if row is None else row.document)
        with self._lock:
            self._read[tenant] = (version, policy)
            self._read.move_to_end(tenant)
            if len(self._read) > MAX_KNOWN_POLICIES:
                self._read.popitem(last=False)
        return policy
