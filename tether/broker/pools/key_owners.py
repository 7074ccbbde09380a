"""Whose a key of pool jobs is, told by its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tether.broker.keys import WAITING_CLASSES


class KeyKind(StrEnum):
    """The kinds of keys that grow with jobs, tenants or workers and have no life of their own.

    Values:
      JOB, STREAM: Of one job.
      LIST: Jobs of a tenant's that wait in a pool.
      TENANTS: Tenants with jobs in a pool.
      IDLE: Workers that wait for a pool.
      SERVED: Counters of tenants in a pool.
      DRAWN: Jobs that a worker runs.
    """

    JOB = "job"
    STREAM = "stream"
    LIST = "list"
    TENANTS = "tenants"
    IDLE = "idle"
    SERVED = "served"
    DRAWN = "drawn"


@dataclass(frozen=True)
class OwnedKey:
    """A key and its owner.

    Attributes:
      name: The whole key.
      owner: What ``pool/tidy.lua`` names it by: a job, a worker, or a pool with what else there is (class,
        tenant).
    """

    kind: KeyKind
    name: bytes
    owner: tuple[bytes, ...]


_SINGLE = {b"job": KeyKind.JOB, b"stream": KeyKind.STREAM, b"drawn": KeyKind.DRAWN}
_CLASSES = frozenset(each.encode() for each in WAITING_CLASSES)


def owned_key(prefix: str, name: bytes) -> OwnedKey | None:
    """Return whose a key is; None where it is none of these kinds.

    Args:
      prefix: What all keys of the namespace begin with, without the colon.
    """
    own_prefix = prefix.encode() + b":"
    if not name.startswith(own_prefix):
        return None
    word, _, rest = name.removeprefix(own_prefix).partition(b":")
    if word in _SINGLE:
        return OwnedKey(_SINGLE[word], name, (rest,)) if rest else None
    # Neither a pool nor a class has a colon in its name; a tenant may.
    owner = tuple(rest.split(b":", 2))
    if word == b"pool" and len(owner) == 2 and owner[1] == b"idle":
        return OwnedKey(KeyKind.IDLE, name, owner[:1])
    if len(owner) < 2 or owner[1] not in _CLASSES:
        return None
    if word == b"served" and len(owner) == 2:
        return OwnedKey(KeyKind.SERVED, name, owner)
    if word == b"pool":
        return OwnedKey(KeyKind.TENANTS if len(owner) == 2 else KeyKind.LIST, name, owner)
    return None
