"""Trusted keys of workers: those that were enrolled, and those that were revoked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, case, select, update

from tether.discovery.announcements.presence import worker_id
from tether.discovery.trust.trusted_keys import NOTHING_ENROLLED, TrustSnapshot
from tether.errors import InvalidRequest, StoreError
from tether.ids import WorkerId
from tether.store.bulk import insert_into, is_postgres
from tether.store.schema import core, fleet_keys

if TYPE_CHECKING:
    from tether.store.store import Store

MAX_WORKER_NAME_CHARACTERS = 100
"""Characters of the name of a key."""

_VERSION = "trust"


def check_worker_name(name: object) -> str | None:
    """The same name, which a key may have; None leaves it as it is.

    Raises:
      InvalidRequest: It is too long, or cannot be printed, or could not stand in an address.
    """
    if name is None:
        return name
    if not (isinstance(name, str) and len(name) <= MAX_WORKER_NAME_CHARACTERS and name.isprintable()):
        raise InvalidRequest(
            f"the name of a worker's key must be at most {MAX_WORKER_NAME_CHARACTERS} printable characters"
        )
    # Routes have names in them.
    if name in (".", "..") or "/" in name:
        raise InvalidRequest("the name of a worker's key cannot be . or .., and cannot have a slash")
    return name


@dataclass(frozen=True)
class FleetKey:
    """The key of a worker. Times are milliseconds since the epoch.

    Attributes:
      pub_key: Its Ed25519 public key in hexadecimal.
      worker_id: The worker's id, which is derived from it.
      name: Display name; may be empty.
      added_at: When it was enrolled, or when it was revoked if it never was.
    """

    pub_key: str
    worker_id: WorkerId
    name: str
    added_at: int
    revoked_at: int | None = None


def enrol(
    connection: Connection,
    pub_key: str,
    name: str | None,
    now_ms: int,
    *,
    lifts_revocation: bool = False,
) -> FleetKey:
    """Trust a key. One that is already trusted is unchanged.

    Args:
      name: None keeps its name.
      lifts_revocation: Whether a revoked key is trusted again. Without, it stays revoked, with its name.

    Returns:
      The key as it is now.
    """
    enrol_new(connection, {pub_key: name or ""}, now_ms)
    this = fleet_keys.c.pub_key == pub_key
    changed = 0
    if lifts_revocation:
        lift = update(fleet_keys).where(this, fleet_keys.c.revoked_at.is_not(None)).values(revoked_at=None)
        changed += connection.execute(lift).rowcount
    if name is not None:
        is_other = (fleet_keys.c.name != name) & fleet_keys.c.revoked_at.is_(None)
        changed += connection.execute(update(fleet_keys).where(this, is_other).values(name=name)).rowcount
    if changed:
        _raise_version(connection, now_ms)
    return _key(connection, pub_key)


def enrol_new(connection: Connection, names: Mapping[str, str], now_ms: int) -> int:
    """Enrol the keys (key: name) that are neither enrolled nor revoked. The others are unchanged.

    Returns:
      Number of new keys.
    """
    added = sum(_add(connection, pub_key, name, now_ms) for pub_key, name in sorted(names.items()))
    if added:
        _raise_version(connection, now_ms)
    return added


def revoke(connection: Connection, pub_key: str, now_ms: int) -> FleetKey:
    """Revoke a key, even if it is trusted elsewhere. One that was revoked stays so.

    A key that was never enrolled is recorded, too: a configuration may list it.

    Returns:
      The key as it is now.
    """
    _add(connection, pub_key, "", now_ms)
    is_good = (fleet_keys.c.pub_key == pub_key) & fleet_keys.c.revoked_at.is_(None)
    if connection.execute(update(fleet_keys).where(is_good).values(revoked_at=now_ms)).rowcount:
        _raise_version(connection, now_ms)
    return _key(connection, pub_key)


def all_fleet_keys(connection: Connection) -> list[FleetKey]:
    """All keys, the oldest first, revoked ones among them."""
    query = select(fleet_keys).order_by(fleet_keys.c.added_at, fleet_keys.c.pub_key)
    return [FleetKey(**row._mapping) for row in connection.execute(query)]


def trust_version(connection: Connection) -> int:
    """Return a number that is incremented with each change of the keys; 0 before the first."""
    value = connection.execute(select(core.c.value).where(core.c.name == _VERSION)).scalar_one_or_none()
    return 0 if value is None else value


def current_trust(connection: Connection) -> TrustSnapshot:
    """Return the trusted and the revoked keys."""
    # Read before the keys: what changes in between is seen as a change later, and not missed.
    version = trust_version(connection)
    keys = all_fleet_keys(connection)
    return TrustSnapshot(
        enrolled={key.pub_key: key.name for key in keys if key.revoked_at is None},
        revoked=frozenset(key.worker_id for key in keys if key.revoked_at is not None),
        version=version,
    )


class StoreEnrolment:
    """The enrolled keys as the database has them, for processes that have one."""

    def __init__(self, store: Store) -> None:
        """
        Args:
          store: Opened and closed by whoever made it.
        """
        self._store = store
        self._known = NOTHING_ENROLLED

    def look(self) -> TrustSnapshot | None:
        """Return the current keys: the same object while nothing changes. None without the database."""
        try:
            if self._store.read(trust_version) != self._known.version:
                self._known = self._store.read(current_trust)
        except StoreError:
            return None
        return self._known


def _add(connection: Connection, pub_key: str, name: str, now_ms: int) -> bool:
    row = FleetKey(pub_key, worker_id(pub_key), name, now_ms)
    statement = insert_into(is_postgres(connection), fleet_keys).values(**vars(row))
    added = statement.on_conflict_do_nothing(index_elements=[fleet_keys.c.pub_key])
    return connection.execute(added.returning(fleet_keys.c.pub_key)).first() is not None


def _key(connection: Connection, pub_key: str) -> FleetKey:
    row = connection.execute(select(fleet_keys).where(fleet_keys.c.pub_key == pub_key)).one()
    return FleetKey(**row._mapping)


def _raise_version(connection: Connection, now_ms: int) -> None:
    # Not only counted: a database that was put back to an older state then goes on with numbers of its own.
    insert = insert_into(is_postgres(connection), core).values(name=_VERSION, value=now_ms)
    after = case((core.c.value < now_ms, now_ms), else_=core.c.value + 1)
    connection.execute(insert.on_conflict_do_update(index_elements=[core.c.name], set_={"value": after}))
