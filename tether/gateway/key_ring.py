"""Who asks: API keys looked up in the database, and remembered for a moment."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tether.errors import Forbidden, StoreUnavailable, Unauthenticated
from tether.gateway.api_keys import Scope, digest_of, is_key
from tether.store.api_keys import key_by_digest, revoked_among
from tether.store.store import Store

FRESH_SECONDS = 2.0
"""For so long a key counts as it was found: so long, at most, a revoked one is good for."""

STALE_SECONDS = 60.0
"""For so long it counts while the database is away."""

MOST_KEYS = 10_000
"""Keys that are remembered."""

_HOW = 'send "Authorization: Bearer tk_...", with a key that `tether keys create` made'


@dataclass(frozen=True)
class Caller:
    """Who asks, by which key."""

    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Check that the key is good for this.

        Raises:
          Forbidden: It is not.
        """
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            has = ", ".join(sorted(self.scopes))
            raise Forbidden(
                f"the API key {self.key_id} lacks the scope {scope.value!r} (it has: {has}): use another one"
            )

    def revoked_error(self) -> Unauthenticated:
        """What a caller is told whose key was revoked meanwhile."""
        return _revoked_error(self.key_id)


class KeyRing:
    """Finds callers by their keys. Safe to use from many threads.

    Keys are looked up and remembered by their digests, never as they are. How long a look-up takes may tell
    how far a digest is like one that is known. But nobody can choose the digest of a key that they make up,
    and a digest does not lead back to a key.

    Keys that are not known are not remembered: one that is made counts at once, and made-up ones push out
    nobody. While the database is away, a key that was found within :data:`STALE_SECONDS` counts as it was
    found then: an outage turns away nobody who was here a moment ago, and a key that is revoked on the other
    side of it is good for that long.

    Args:
      clock: Seconds, from any start.
      most_keys: Most keys that are remembered; the one that was not used for the longest time goes first.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_keys: int = MOST_KEYS,
    ) -> None:
        self._store = store
        self._most_keys = most_keys
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
        """The caller with this ``Authorization`` header, as the database says now. Blocks: never call it on
        an event loop.

        Raises:
          Unauthenticated: The header holds no key, or one that is not known or was revoked.
          StoreUnavailable: The database is away, and the key was not found lately.
        """
        digest = digest_of(_key_in(header))
        # What is found is as old as the question: the key may be revoked before the answer is here.
        asked_at = self._clock()
        try:
            found = self._store.read(key_by_digest, digest)
        except StoreUnavailable:
            known = self._remembered(digest, STALE_SECONDS)
            if known is None:
                raise
            return known
        if found is None or found.revoked_at is not None:
            with self._lock:
                self._known.pop(digest, None)
            if found is None:
                raise Unauthenticated(f"no such API key is known here: {_HOW}")
            raise _revoked_error(found.key_id)
        caller = Caller(found.tenant_id, found.key_id, frozenset(set(Scope) & set(found.scopes)))
        with self._lock:
            self._known[digest] = (caller, asked_at)
            self._known.move_to_end(digest)
            if len(self._known) > self._most_keys:
                self._known.popitem(last=False)
        return caller

    def revoked(self, key_ids: Collection[str]) -> set[str]:
        """Those of the keys that are good no longer, as the database says now. Blocks.

        It is for streams that are open, whose keys nobody shows again.

        Raises:
          StoreUnavailable: The database is away.
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
    return Unauthenticated(f"the API key {key_id} was revoked: use another one")


def _key_in(header: str | None) -> str:
    if not header:
        raise Unauthenticated(f"there is no API key: {_HOW}")
    scheme, _, key = header.strip().partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated(f"the header Authorization is of another kind than Bearer: {_HOW}")
    if not is_key(key):
        raise Unauthenticated(f"what is sent is no API key of Tether's, or not all of one: {_HOW}")
    return key
