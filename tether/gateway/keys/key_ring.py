"""Who asks: API keys looked up in the database, and remembered for a moment."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tether.errors import Forbidden, StoreUnavailable, Unauthenticated
from tether.gateway.keys.api_keys import TENANT_SCOPES, Scope, digest_of, is_key
from tether.ids import TenantId
from tether.store.api_keys import key_by_digest, revoked_among
from tether.store.store import Store

FRESH_SECONDS = 2.0
"""For so long a key counts as it was found: so long, at most, a revoked one is good for."""

STALE_SECONDS = 60.0
"""For so long it counts while the database is away."""

MAX_KEYS = 10_000
"""Keys that are remembered."""

_HOW = (
    'send "Authorization: Bearer tk_...", with an API key of this gateway; its operator creates one '
    "(POST /v1/operator/keys, or `tether keys create`)"
)

_FOR_OPERATORS = (
    ", or ask as an operator: under /v1/operator, or with --all-tenants of `tether jobs` and `tether dlq`"
)


@dataclass(frozen=True)
class Caller:
    """Who asks, by which key."""

    tenant_id: TenantId
    key_id: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Check that the key is good for this.

        Raises:
          Forbidden: It is not.
        """
        is_tenants = scope in TENANT_SCOPES and Scope.ADMIN in self.scopes
        if scope not in self.scopes and not is_tenants:
            has = ", ".join(sorted(self.scopes))
            is_operators = scope in TENANT_SCOPES and Scope.OPERATOR in self.scopes
            raise Forbidden(
                f"the API key {self.key_id} lacks the scope {scope.value!r} (it has: {has}): use another key"
                + (_FOR_OPERATORS if is_operators else "")
            )

    def revoked_error(self) -> Unauthenticated:
        """What a caller is told whose key was revoked meanwhile."""
        return _revoked_error(self.key_id)


class KeyRing:
    """Authenticates callers by their keys, with a cache. Thread-safe.

    Keys are looked up and cached by their digests, never in plain text. The timing of a look-up may reveal
    how similar a digest is to a known one. But an attacker cannot choose the digest of a made-up key, and a
    digest does not lead back to a key.

    Unknown keys are not cached: a new key is valid immediately, and made-up ones evict nothing. While the
    database is unavailable, a key that was looked up within :data:`STALE_SECONDS` is accepted: an outage
    does not reject recent callers, and a key that is revoked during it stays valid for that long.

    Args:
      clock: Monotonic seconds.
      max_keys: Maximum number of cached keys; the least recently used one is evicted first.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._store = store
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Caller, float]] = OrderedDict()

    def cached(self, header: str | None) -> Caller | None:
        """The caller with this ``Authorization`` header, where that was found a moment ago. Never blocks.

        Raises:
          Unauthenticated: The header holds no key.
        """
        return self._remembered(digest_of(_key_in(header)), FRESH_SECONDS)

    def caller(self, header: str | None) -> Caller:
        """Return the caller with this ``Authorization`` header, from the database. Blocks: never call it on
        an event loop.

        Raises:
          Unauthenticated: The header has no key, or an unknown or revoked one.
          StoreUnavailable: The database is unavailable, and the key is not cached.
        """
        digest = digest_of(_key_in(header))
        # What is found is as old as the question: the key may be revoked before the answer is here.
        asked_at = self._clock()
        try:
            key = self._store.read(key_by_digest, digest)
        except StoreUnavailable:
            known = self._remembered(digest, STALE_SECONDS)
            if known is None:
                raise
            return known
        if key is None or key.revoked_at is not None:
            with self._lock:
                self._known.pop(digest, None)
            if key is None:
                raise Unauthenticated(f"unknown API key: {_HOW}")
            raise _revoked_error(key.key_id)
        caller = Caller(key.tenant_id, key.key_id, frozenset(set(Scope) & set(key.scopes)))
        with self._lock:
            self._known[digest] = (caller, asked_at)
            self._known.move_to_end(digest)
            if len(self._known) > self._max_keys:
                self._known.popitem(last=False)
        return caller

    def revoked(self, key_ids: Collection[str]) -> set[str]:
        """Return the revoked ones of these keys, from the database. Blocks.

        It is for open streams, whose keys are not sent again.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        return self._store.read(revoked_among, key_ids)

    def _remembered(self, digest: str, seconds: float) -> Caller | None:
        with self._lock:
            known = self._known.get(digest)
            if known is None or self._clock() - known[1] >= seconds:
                return None
            self._known.move_to_end(digest)
            return known[0]


def _revoked_error(key_id: str) -> Unauthenticated:
    return Unauthenticated(f"the API key {key_id} was revoked: use another key")


def _key_in(header: str | None) -> str:
    if not header:
        raise Unauthenticated(f"missing API key: {_HOW}")
    scheme, _, key = header.strip().partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated(f"the header Authorization does not use the scheme Bearer: {_HOW}")
    if not is_key(key):
        raise Unauthenticated(f"malformed API key: {_HOW}")
    return key
