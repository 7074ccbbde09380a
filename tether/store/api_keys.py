"""API keys: who may ask on whose behalf. Only a key's digest is kept, never the key."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, true, update

from tether.ids import TenantId
from tether.store.rows import AnyRow
from tether.store.schema import api_keys

MAX_GOOD_KEYS = 1_000
"""API keys that a tenant's admins may have at once."""

MAX_REVOKED_KEYS = 1_000
"""Revoked ones of a tenant that are kept. Of the others the audit log tells."""


@dataclass(frozen=True)
class ApiKey:
    """What is kept of an API key. Times are milliseconds since the epoch.

    Attributes:
      key_id: What it is called by; not a secret.
      digest: SHA-256 of the whole key, in hexadecimal.
      prefix: Its first characters, to recognize it by.
      scopes: What it is good for, by name.
      name: What it is for, in its owner's words; may be empty.
    """

    key_id: str
    tenant_id: TenantId
    digest: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: int
    revoked_at: int | None = None
    name: str = ""


def add_key(connection: Connection, key: ApiKey) -> None:
    """Keep a new key. Its tenant must be there: without one the database refuses the key."""
    connection.execute(insert(api_keys), {**vars(key), "scopes": ",".join(key.scopes)})


def has_room_for_key(connection: Connection, tenant_id: TenantId, *, without_scope: str) -> bool:
    """Return whether a tenant may have another key, and forget its keys that were revoked long ago.

    Args:
      without_scope: Keys with this scope are not counted, and never forgotten.
    """
    theirs = _are_of(tenant_id, without_scope)
    revoked = select(api_keys.c.key_id).where(theirs, api_keys.c.revoked_at.is_not(None))
    newest_first = revoked.order_by(api_keys.c.revoked_at.desc(), api_keys.c.key_id)
    old = newest_first.offset(MAX_REVOKED_KEYS)
    connection.execute(delete(api_keys).where(api_keys.c.key_id.in_(old)))
    good = select(func.count()).where(theirs, api_keys.c.revoked_at.is_(None))
    return connection.execute(good).scalar_one() < MAX_GOOD_KEYS


def revoke_key(
    connection: Connection,
    key_id: str,
    tenant_id: TenantId | None,
    now_ms: int,
    *,
    without_scope: str | None = None,
) -> ApiKey | None:
    """Revoke a key; one that was revoked stays so. None where there is none, or not of this tenant.

    Args:
      tenant_id: Whose it must be; None for anybody's.
      without_scope: A key with this scope is none.
    """
    of_this = (api_keys.c.key_id == key_id) & _are_of(tenant_id, without_scope)
    connection.execute(
        update(api_keys).where(of_this, api_keys.c.revoked_at.is_(None)).values(revoked_at=now_ms)
    )
    row = connection.execute(select(api_keys).where(of_this)).one_or_none()
    return None if row is None else _key(row)


def keys_of(
    connection: Connection, tenant_id: TenantId | None, *, without_scope: str | None = None
) -> list[ApiKey]:
    """A tenant's keys, or everybody's, the oldest first, revoked ones among them.

    Args:
      without_scope: Keys with this scope are left out.
    """
    query = select(api_keys).where(_are_of(tenant_id, without_scope))
    query = query.order_by(api_keys.c.created_at, api_keys.c.key_id)
    return [_key(row) for row in connection.execute(query)]


def owner_of_key(connection: Connection, key_id: str) -> TenantId | None:
    """The tenant of a key; None where there is no such key."""
    query = select(api_keys.c.tenant_id).where(api_keys.c.key_id == key_id)
    return connection.execute(query).scalar_one_or_none()


def key_by_digest(connection: Connection, digest: str) -> ApiKey | None:
    """The key with this digest, or None."""
    row = connection.execute(select(api_keys).where(api_keys.c.digest == digest)).one_or_none()
    return None if row is None else _key(row)


def revoked_among(connection: Connection, key_ids: Collection[str]) -> set[str]:
    """Those of the keys that are good no longer: revoked, or not there."""
    good = select(api_keys.c.key_id).where(api_keys.c.key_id.in_(key_ids), api_keys.c.revoked_at.is_(None))
    return set(key_ids) - set(connection.execute(good).scalars())


def _are_of(tenant_id: TenantId | None, without_scope: str | None) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [true()]
    if tenant_id is not None:
        conditions.append(api_keys.c.tenant_id == tenant_id)
    if without_scope is not None:
        # No scope's name is a part of another's.
        conditions.append(~api_keys.c.scopes.contains(without_scope, autoescape=True))
    return and_(*conditions)


def _key(row: AnyRow) -> ApiKey:
    return ApiKey(**{**row._mapping, "scopes": tuple(row.scopes.split(","))})
