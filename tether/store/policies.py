"""Policies of tenants: each version that was set is kept, and the newest counts.

A document is kept as the text that it was set as. Who reads it may be an older program than the one that set
it: what it makes of the text is decided where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, func, insert, select, text

from tether.errors import PolicyConflict, TenantNotFound
from tether.ids import TenantId
from tether.store.bad_rows import decoded, undecoded
from tether.store.bulk import is_postgres
from tether.store.rows import AnyRow
from tether.store.schema import policies, tenants


class PolicyRow(NamedTuple):
    """A version of a tenant's policy.

    Attributes:
      version: From 1, rising for each tenant.
      document: As JSON; None where the column holds no text.
      created_at: When it was set, in milliseconds since the epoch.
      created_by: By whom: see :class:`~tether.store.audit.Act`.
    """

    tenant_id: TenantId
    version: int
    document: str | None
    created_at: int
    created_by: str


class PolicyRevision(NamedTuple):
    """That a tenant has a version of its policy. A greater revision was committed later, of all tenants.
    ``tenant_id`` is None where the column holds no text: such a row is of no tenant."""

    tenant_id: TenantId | None
    version: int
    revision: int


def policy_of(connection: Connection, tenant_id: TenantId, version: int | None = None) -> PolicyRow | None:
    """Return a version of a tenant's policy, the newest where none is named; None where there is none."""
    query = _policies(is_postgres(connection)).where(policies.c.tenant_id == tenant_id)
    if version is not None:
        query = query.where(policies.c.version == version)
    row = connection.execute(query.order_by(policies.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else _policy_row(row)


def policy_revisions(connection: Connection, after: int, limit: int) -> Sequence[PolicyRevision]:
    """Return what was set after a revision, in its order: of all tenants, and no more than ``limit``."""
    found = connection.execute(_revisions(is_postgres(connection)), {"after": after, "limit": limit})
    return [PolicyRevision(_tenant_in(row.tenant_id), row.version, row.revision) for row in found]


def _tenant_in(value: object) -> TenantId | None:
    text = decoded(value)
    return None if text is None else TenantId(text)


def set_policy(
    connection: Connection,
    tenant_id: TenantId,
    document: str,
    created_by: str,
    now_ms: int,
    if_version: int | None = None,
) -> PolicyRow | TenantNotFound | PolicyConflict:
    """Set a tenant's policy: it gets the next version.

    Args:
      document: As JSON.
      if_version: The version that it is to have before; 0 where there is to be none. None for any.

    Returns:
      The new version, or why nothing was written.
    """
    if is_postgres(connection):
        # One after the other until each is committed: who reads on from a revision has missed none before it.
        connection.execute(text("LOCK TABLE policies IN SHARE ROW EXCLUSIVE MODE"))
    if (
        connection.execute(select(tenants.c.tenant_id).where(tenants.c.tenant_id == tenant_id)).first()
        is None
    ):
        return TenantNotFound(f"there is no tenant {tenant_id[:80]!r}: create it first")
    of_tenant = select(func.max(policies.c.version)).where(policies.c.tenant_id == tenant_id)
    version = connection.execute(of_tenant).scalar_one() or 0
    if if_version not in (None, version):
        return PolicyConflict(
            f"the policy of tenant {tenant_id!r} has version {version}, not {if_version}: look at what it is "
            "now, and set it again"
        )
    newest = connection.execute(select(func.max(policies.c.revision))).scalar_one() or 0
    row = PolicyRow(tenant_id, version + 1, document, now_ms, created_by)
    connection.execute(insert(policies), {**row._asdict(), "revision": newest + 1})
    return row


def _policy_row(row: AnyRow) -> PolicyRow:
    return PolicyRow(
        TenantId(row.tenant_id),
        row.version,
        decoded(row.document),
        row.created_at,
        decoded(row.created_by) or "",
    )


@cache
def _policies(postgres: bool) -> Select[Any]:
    return select(
        policies.c.tenant_id,
        policies.c.version,
        policies.c.created_at,
        undecoded(postgres, policies.c.document),
        undecoded(postgres, policies.c.created_by),
    )


@cache
def _revisions(postgres: bool) -> Select[Any]:
    columns = (undecoded(postgres, policies.c.tenant_id), policies.c.version, policies.c.revision)
    query = select(*columns).where(policies.c.revision > bindparam("after"))
    return query.order_by(policies.c.revision).limit(bindparam("limit"))
