"""The whole look at both stores, while they are in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis

from tether.broker.keys import Keys
from tether.ids import job_id_in
from tether.orchestrator.fsck.invariants import INVARIANTS, Discrepancy, Invariant
from tether.orchestrator.fsck.job_look import JobLook
from tether.orchestrator.fsck.letter_looks import CopyLook, LetterLook
from tether.orchestrator.fsck.place_looks import PlaceLook
from tether.orchestrator.fsck.table_looks import CounterLook, HoldLook
from tether.store.store import Store

MAX_TOLD = 1_000
"""Discrepancies of one check that are kept; the others are counted."""

BATCH = 250


class Look(Protocol):
    """Looks at subjects of one sort."""

    def pages(self) -> Iterator[list[str]]:
        """All subjects, page by page."""

    def look(self, subjects: Sequence[str]) -> list[Discrepancy]:
        """What is wrong with these now."""


@dataclass(frozen=True)
class FsckReport:
    """What was found.

    Attributes:
      looked_at: Number of subjects that were looked at.
      found: What was wrong in both looks, by check; at most :data:`MAX_TOLD` of each.
      unconfirmed: Number of further ones of a check, which were not looked at again.
    """

    looked_at: int
    found: tuple[Discrepancy, ...]
    unconfirmed: Mapping[Invariant, int]

    @property
    def is_sound(self) -> bool:
        return not self.found and not self.unconfirmed


def fsck(store: Store, client: redis.Redis, keys: Keys, *, wait: Callable[[], None]) -> FsckReport:
    """Look at everything, and again at what seemed wrong: what has changed since was under way.

    Nothing is written. Memory does not grow with the number of jobs.

    Args:
      wait: Called between the two looks, for as long as what is under way may take.

    Raises:
      StoreUnavailable, OUTAGE_ERRORS: One of the two is away.
    """
    looks: tuple[Look, ...] = (
        *(HoldLook(store), CounterLook(store), LetterLook(store), CopyLook(store, client, keys)),
        *(PlaceLook(store, client, keys), JobLook(store, client, keys)),
    )
    suspects: list[tuple[Look, list[Discrepancy]]] = []
    counts: Counter[Invariant] = Counter()
    looked_at = 0
    for look in looks:
        mine: dict[tuple[Invariant, str], Discrepancy] = {}
        for page in look.pages():
            looked_at += len(page)
            for each in look.look(page):
                if (each.check, each.subject) in mine:
                    continue
                counts[each.check] += 1
                if counts[each.check] <= MAX_TOLD:
                    mine[each.check, each.subject] = each
        suspects.append((look, list(mine.values())))
    if any(found for _, found in suspects):
        wait()
    confirmed = [each for look, found in suspects for each in _still(look, found)]
    confirmed = _without_pending(confirmed, client, keys)
    more = {check: count - MAX_TOLD for check, count in counts.items() if count > MAX_TOLD}
    order = list(INVARIANTS)
    confirmed.sort(key=lambda each: (order.index(each.check), each.subject))
    return FsckReport(looked_at, tuple(confirmed), more)


def _still(look: Look, found: Sequence[Discrepancy]) -> Iterator[Discrepancy]:
    before = {(each.check, each.subject, each.mark) for each in found}
    subjects = list(dict.fromkeys(each.subject for each in found))
    for start in range(0, len(subjects), BATCH):
        for each in look.look(subjects[start : start + BATCH]):
            if (each.check, each.subject, each.mark) in before:
                yield each


def _without_pending(found: list[Discrepancy], client: redis.Redis, keys: Keys) -> list[Discrepancy]:
    """Leave out what waits to be settled: an outcome that is still in the stream is not lost."""
    waiting = {each.subject for each in found if each.check is Invariant.OUTCOME_LOST}
    if not waiting:
        return found
    pending: set[str] = set()
    start = "-"
    while True:
        page: Any = client.xrange(keys.outcomes, start, "+", count=BATCH)
        pending |= {job for _, fields in page if (job := job_id_in(fields.get(b"job", b""))) in waiting}
        if len(page) < BATCH:
            return [
                each
                for each in found
                if each.check is not Invariant.OUTCOME_LOST or each.subject not in pending
            ]
        start = f"({page[-1][0].decode()}"
