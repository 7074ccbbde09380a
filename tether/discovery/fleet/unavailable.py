"""Workers that have a model and are given no jobs, by what they are: told to whoever finds nobody serving."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from tether.discovery.announcements.presence import WorkerState
from tether.discovery.fleet.fleet import Fleet, Member

CORDONED, DRAINING, UNROUTABLE, REVOKED = "cordoned", "draining", "unroutable", "revoked"

_BY_STATE = {WorkerState.CORDONED: CORDONED, WorkerState.DRAINING: DRAINING}


class RevokedMembers:
    """Members whose keys were revoked while they lived, as long as they announce themselves. Thread-safe."""

    def __init__(self, trusted: Callable[[str], bool], clock: Callable[[], int], expiry_ms: int) -> None:
        """
        Args:
          trusted: Whether announcements of a public key count.
          clock: Milliseconds of the clock that the fleet's times are of.
          expiry_ms: Time without an announcement after which one is gone.
        """
        self._trusted = trusted
        self._clock = clock
        self._expiry_ms = expiry_ms
        self._lock = threading.Lock()
        self._heard_at: dict[str, int] = {}
        self._members: dict[str, Member] = {}

    def counts(self, pub_key: str) -> bool:
        """Whether announcements of a public key count; asked of each one that is heard."""
        counts = self._trusted(pub_key)
        if pub_key in self._members:
            with self._lock:
                if counts:
                    self._forget(pub_key)
                elif pub_key in self._members:
                    self._heard_at[pub_key] = self._clock()
        return counts

    def add(self, before: Fleet, after: Fleet) -> None:
        """The members that are only in ``before`` are revoked."""
        gone = [member for worker, member in before.members.items() if worker not in after.members]
        with self._lock:
            for member in gone:
                self._members[member.presence.pub_key] = member
                self._heard_at[member.presence.pub_key] = member.renewed_at

    def heard(self) -> list[Member]:
        """Those that were heard lately, by their last announcements that counted."""
        too_old = self._clock() - self._expiry_ms
        with self._lock:
            for pub_key in [key for key, at in self._heard_at.items() if at <= too_old]:
                self._forget(pub_key)
            return list(self._members.values())

    def _forget(self, pub_key: str) -> None:
        self._members.pop(pub_key, None)
        self._heard_at.pop(pub_key, None)


def unavailable_workers(fleet: Fleet, revoked: Iterable[Member], now: int) -> Mapping[str, Mapping[str, int]]:
    """How many workers have each model and are given no jobs, by what they are, by the model's digest."""
    counts: dict[str, Counter[str]] = {}
    for worker, member in fleet.members.items():
        if member.expires_at > now and (
            why := UNROUTABLE if worker in fleet.unroutable else _BY_STATE.get(member.presence.state)
        ):
            _count(counts, member, why)
    for member in revoked:
        _count(counts, member, REVOKED)
    return counts


def _count(counts: dict[str, Counter[str]], member: Member, why: str) -> None:
    for digest in {model.digest for model in member.presence.supported}:
        counts.setdefault(digest, Counter())[why] += 1
