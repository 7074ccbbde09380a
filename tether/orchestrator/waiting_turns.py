"""Which waiting jobs are placed next where not all find room: by class, and a turn of each tenant's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import NamedTuple

from tether.ids import JobId, TenantId
from tether.jobs import Priority
from tether.scheduling.pool_bounds import BATCH_AGE_MS
from tether.store.store import Store
from tether.store.waiting_jobs import KeptModel
from tether.store.waiting_tenants import (
    FIRST_TENANT,
    WaitingTenant,
    waiting_ids_of,
    waiting_ids_of_no_class,
    waiting_tenants,
)

TENANTS = 64
"""Tenants that are read at once."""

MAX_PAGES = 16
"""Pages of tenants that are read in a step, where the first have nothing that finds room."""

MIN_HEAD = 4
"""Least number of jobs that are read of a tenant."""

MAX_OF_NO_CLASS = 16
"""Jobs that are read in a step of those whose class is none that there is."""

MAX_CURSORS = 4_096
"""Models and classes of which it is known whose turn is next, and models of which it is what late jobs are
owed."""


class _Turn(NamedTuple):
    """A class of waiting jobs.

    Attributes:
      counts_as: The class whose part of a pool they may fill.
      min_wait_ms: How long they have been due at least.
    """

    priority: Priority
    counts_as: Priority
    min_wait_ms: int = 0


_TURNS = (
    (_Turn(Priority.INTERACTIVE, Priority.INTERACTIVE),),
    (
        _Turn(Priority.STANDARD, Priority.STANDARD),
        _Turn(Priority.BATCH, Priority.STANDARD, BATCH_AGE_MS),
    ),
    (_Turn(Priority.BATCH, Priority.BATCH),),
)
"""What is more urgent comes first; a batch job that has waited long stands among the standard ones."""


class LateStandard(NamedTuple):
    """When standard jobs no longer wait for all interactive ones.

    Attributes:
      age_ms: How long one has been due by then.
      share: Their share of the places from then on, below 1; 0: they always wait.
    """

    age_ms: int = 0
    share: float = 0.0


NEVER_LATE = LateStandard()


class NextJobs(NamedTuple):
    """Jobs that are placed next; the ``late`` ones among them may fill the part of interactive jobs."""

    ids: list[JobId]
    late: frozenset[JobId] = frozenset()


RoomsOfTenants = Callable[[KeptModel, Collection[TenantId], Priority], Mapping[TenantId, int]]
"""Returns how many more jobs of a class the pools of a model take of each tenant."""


class WaitingTurns:
    """Reads the jobs that wait for a model, and remembers whose turn is next. One thread uses it."""

    def __init__(self, store: Store, rooms: RoomsOfTenants, late: LateStandard) -> None:
        self._store = store
        self._rooms = rooms
        self._late_turns = (
            _Turn(Priority.STANDARD, Priority.INTERACTIVE, late.age_ms),
            _Turn(Priority.BATCH, Priority.INTERACTIVE, BATCH_AGE_MS + late.age_ms),
        )
        self._share = late.share
        self._owed: OrderedDict[KeptModel, float] = OrderedDict()
        self._is_others_turn = False
        self._has_room = False
        self._after: OrderedDict[tuple[KeptModel, Priority], TenantId] = OrderedDict()

    def read(self, kept: KeptModel, now_ms: int, limit: int) -> NextJobs:
        """Jobs that are due and find room: no more than ``limit``, and no more of a tenant than its room."""
        late = self._in_turn(kept, self._late_turns, now_ms, min(limit, int(self._owed.get(kept, 0.0))))
        ids = dict.fromkeys(late)
        interactive = 0
        for turns in _TURNS:
            before = len(ids)
            for job_id in self._in_turn(kept, turns, now_ms, limit - before):
                if len(ids) < limit:
                    ids.setdefault(job_id)
            if turns[0].priority is Priority.INTERACTIVE:
                interactive = len(ids) - before
            if len(ids) >= limit:
                break
        self._is_others_turn ^= bool(ids)
        self._note_owed(kept, interactive, len(ids) - interactive, limit)
        if len(ids) < limit and self._has_room:
            # What has no class has no turn: read behind all others, it is set aside, and does not stay due.
            few = min(MAX_OF_NO_CLASS, limit - len(ids))
            ids |= dict.fromkeys(self._store.read(waiting_ids_of_no_class, kept, now_ms, few))
        return NextJobs(list(ids), frozenset(late))

    def _in_turn(self, kept: KeptModel, turns: Sequence[_Turn], now_ms: int, limit: int) -> list[JobId]:
        # Where there is one place at a time, no class of those that stand together is always the first.
        ordered = turns[::-1] if self._is_others_turn else turns
        heads = [head for turn in ordered for head in self._heads(kept, turn, now_ms, limit)]
        found = chain.from_iterable(zip_longest(*heads))
        return list(islice((job_id for job_id in found if job_id is not None), max(0, limit)))

    def _note_owed(self, kept: KeptModel, interactive: int, others: int, limit: int) -> None:
        """Count what the other classes have not had of their share, and no more than a step's."""
        owed = self._owed.get(kept, 0.0) + self._share * (interactive + others) - others
        self._owed[kept] = min(max(0.0, owed), max(1.0, self._share * limit))
        self._owed.move_to_end(kept)
        if len(self._owed) > MAX_CURSORS:
            self._owed.popitem(last=False)

    def _heads(self, kept: KeptModel, turn: _Turn, now_ms: int, limit: int) -> list[list[JobId]]:
        """The beginnings of what tenants have waiting, of those that come next."""
        self._has_room = limit > 0 and self._rooms(kept, [FIRST_TENANT], turn.counts_as)[FIRST_TENANT] > 0
        if not self._has_room:
            # Not even who has nothing there finds room. Whose turn is next stays so.
            return []
        due_by = now_ms - turn.min_wait_ms
        for _ in range(MAX_PAGES):
            after = self._after.get((kept, turn.priority), FIRST_TENANT)
            page = self._store.read(waiting_tenants, kept, turn.priority, after, TENANTS)
            is_last = len(page) < TENANTS
            open_tenants = self._open(kept, turn, page, due_by)
            chosen = list(open_tenants.items())[:limit]
            self._note(kept, turn.priority, chosen, page, has_more=len(chosen) < len(open_tenants))
            if chosen:
                size = max(MIN_HEAD, limit // len(chosen))
                return [
                    self._store.read(waiting_ids_of, kept, turn.priority, tenant, due_by, min(size, room))
                    for tenant, room in chosen
                ]
            if is_last and after == FIRST_TENANT:
                break
        return []

    def _open(
        self, kept: KeptModel, turn: _Turn, page: Sequence[WaitingTenant], due_by: int
    ) -> dict[TenantId, int]:
        """Those that have something due and find room, with that."""
        due = [each.tenant_id for each in page if each.due_at <= due_by]
        rooms = self._rooms(kept, due, turn.counts_as) if due else {}
        return {tenant: rooms[tenant] for tenant in due if rooms.get(tenant, 0) > 0}

    def _note(
        self,
        kept: KeptModel,
        priority: Priority,
        chosen: Sequence[tuple[TenantId, int]],
        page: Sequence[WaitingTenant],
        *,
        has_more: bool,
    ) -> None:
        """Remember who comes next: behind the last of those that were chosen, if more of the page could be;
        else behind the page, or from the first on."""
        behind = page[-1].tenant_id if len(page) == TENANTS else FIRST_TENANT
        self._after[kept, priority] = chosen[-1][0] if has_more else behind
        self._after.move_to_end((kept, priority))
        if len(self._after) > MAX_CURSORS:
            self._after.popitem(last=False)
