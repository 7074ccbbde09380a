"""What operators see and do of policies: the documents of the command and of the gateway's routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tether.errors import PolicyConflict, PolicyNotFound, TenantNotFound
from tether.ids import TenantId
from tether.policies.differences import policy_differences
from tether.policies.document import Policy
from tether.policies.kept import UnreadablePolicy, kept_policy
from tether.policies.reading import policy_document, policy_text
from tether.store.audit import Act, Audited
from tether.store.policies import PolicyRow, policy_of, set_policy
from tether.store.store import Store
from tether.store.tenants import tenant

ActMaker = Callable[[str, str, TenantId, Mapping[str, Any]], Act]
"""Returns the act of whoever asks: from an action, its target, the tenant and details."""

MAX_FIELDS_NOTED = 20
"""Changed fields that the audit log names."""


class PolicyControl:
    """Shows and sets policies. Blocks; safe to use from many threads. All methods raise TenantNotFound, and
    StoreUnavailable where the database is away."""

    def __init__(self, store: Store, act: ActMaker, now_ms: Callable[[], int]) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch.
        """
        self._store = store
        self._act = act
        self._now_ms = now_ms

    def show(self, tenant_id: TenantId, version: int | None = None) -> dict[str, Any]:
        """Return a version of a tenant's policy, the newest where none is named. Where none was ever set,
        that is version 0, which allows everything.

        Raises:
          PolicyNotFound: It has no such version.
        """
        row = self._row(tenant_id, version or None)
        if row is None and version:
            raise PolicyNotFound(
                f"the policy of tenant {tenant_id!r} has no version {version}: `tether policies show "
                f"{tenant_id}` tells the newest"
            )
        return _shown(tenant_id, row)

    def set(self, tenant_id: TenantId, policy: Policy, if_version: int | None = None) -> dict[str, Any]:
        """Set a tenant's policy, with an entry in the audit log. Return it as :meth:`show` does, and what
        has changed.

        Args:
          if_version: The version that it is to have now; 0 where it is to have none. None for any.

        Raises:
          PolicyConflict: It has another one.
        """
        former = self._row(tenant_id)
        differences = _differences(former, policy)
        fields = [each["path"] for each in differences[:MAX_FIELDS_NOTED]]
        act = self._act("policies.set", tenant_id, tenant_id, {"fields": fields})
        text = policy_text(policy)

        def write(connection: Any) -> PolicyRow | TenantNotFound | PolicyConflict:
            return set_policy(connection, tenant_id, text, act.actor, self._now_ms(), if_version)

        row = Audited(self._store, self._now_ms).write(act, write)
        return {**_shown(tenant_id, row), "differences": differences}

    def diff(self, tenant_id: TenantId, policy: Policy) -> dict[str, Any]:
        """Return what would change if this were set. Nothing is written."""
        former = self._row(tenant_id)
        return {
            "object": "policy_diff",
            "tenant_id": tenant_id,
            "version": 0 if former is None else former.version,
            "differences": _differences(former, policy),
        }

    def _row(self, tenant_id: TenantId, version: int | None = None) -> PolicyRow | None:
        row = self._store.read(policy_of, tenant_id, version)
        if row is None and self._store.read(tenant, tenant_id) is None:
            raise TenantNotFound(
                f"there is no tenant {tenant_id[:80]!r}: `tether tenants list` and GET /v1/operator/tenants "
                "show all"
            )
        return row


def _shown(tenant_id: TenantId, row: PolicyRow | None) -> dict[str, Any]:
    kept = None if row is None else kept_policy(row.version, row.document)
    return {
        "object": "policy",
        "tenant_id": tenant_id,
        "version": 0 if row is None else row.version,
        "document": _document_in(row),
        "problem": kept.reason if isinstance(kept, UnreadablePolicy) else None,
        "created_at": None if row is None else row.created_at,
        "created_by": None if row is None else row.created_by,
    }


def _document_in(row: PolicyRow | None) -> dict[str, Any] | None:
    """The document as it is kept, if it is an object: also one that this program does not understand."""
    if row is None:
        return {}
    try:
        document = json.loads(row.document or "")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _differences(former: PolicyRow | None, policy: Policy) -> list[dict[str, Any]]:
    differences = policy_differences(_document_in(former) or {}, policy_document(policy))
    return [each._asdict() for each in differences]
