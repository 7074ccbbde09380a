"""Which workers draw from the pools that they announce: pure.

An announcement is a claim, which travels other ways than jobs do: a worker that is cut off from Redis can
still announce itself in the swarm, and one that lies can announce anything. What counts is what Redis saw it
do: ask for jobs, and renew the leases of attempts. All times are milliseconds of Redis's clock, but for those
that are said to be the reader's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from tether.discovery.fleet.fleet import Fleet, Member, Silent, silent_in
from tether.discovery.fleet.held_back import Held
from tether.ids import PoolName, WorkerId

MAX_SILENCE_MS = 15_000
"""A worker with a free slot that has not asked a pool for jobs for so long does not draw from it. It asks
every 5 s, whether it is woken or not."""

GRACE_MS = 15_000
"""For so long a worker is believed that cannot have asked yet."""

RUNG_PATIENCE_MS = 2_000
"""A worker that was woken and did not come in time is believed for so much longer, since it may be slow; and
where no other draws from the pool, as long as one that was not woken."""


COPIED_LIFE_MS = 30_000
"""For so long it is told that several processes have one key, after one of them was refused."""


class Draws(NamedTuple):
    """A worker and a pool that it draws from."""

    worker: WorkerId
    pool: PoolName


class Appearance(NamedTuple):
    """Since when a worker announces itself.

    Attributes:
      first: When it was first heard of, in the last hour of its silence or later.
      former: When the life of its process before this one began; the same as ``first`` where there was none.
      latest: When its present one began.
    """

    first: int
    former: int
    latest: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What Redis saw workers do, at one look.

    Attributes:
      now: When that was.
      asked: When a worker last asked a pool for jobs, or said that it could load the pool's model.
      missed: When a worker was last woken for a pool and did not come in time.
      renewed: When a worker last renewed the lease of an attempt.
      reported: When a worker last said which of its pools' models it has loaded.
      copied: When a process was last refused jobs since another one draws with the same key.
      known: Since when workers are known.
      held: Who is held back from pools, since it fails what others do.
      without_hope: Which models workers say that they fail to load again and again, each with whether a try
        may begin now.
      paused, resumed: The last time in which Redis or all orchestrators were away; 0 where none is known.
    """

    now: int
    asked: Mapping[Draws, int] = field(default_factory=lambda: MappingProxyType({}))
    missed: Mapping[Draws, int] = field(default_factory=lambda: MappingProxyType({}))
    renewed: Mapping[WorkerId, int] = field(default_factory=lambda: MappingProxyType({}))
    reported: Mapping[WorkerId, int] = field(default_factory=lambda: MappingProxyType({}))
    copied: Mapping[WorkerId, int] = field(default_factory=lambda: MappingProxyType({}))
    known: Mapping[WorkerId, Appearance] = field(default_factory=lambda: MappingProxyType({}))
    held: Held = field(default_factory=lambda: MappingProxyType({}))
    without_hope: Mapping[WorkerId, Mapping[str, bool]] = field(default_factory=lambda: MappingProxyType({}))
    paused: int = 0
    resumed: int = 0


def silent_pools(members: Iterable[Member], evidence: Evidence, reader_now: int) -> Silent:
    """The pools that workers announce and do not draw from.

    Args:
      reader_now: When the evidence was read, by the clock that the members' times are of.
    """
    last_acts = _last_acts(evidence)
    judged = [
        member
        for member in members
        if member.serves
        and not _is_in_grace(member, last_acts.get(member.presence.worker_id), evidence, reader_now)
    ]
    drawn = {pool for member in judged for pool, _ in member.serves if _draws_from(member, pool, evidence)}
    silent: dict[WorkerId, frozenset[PoolName]] = {}
    for member in judged:
        pools = frozenset(
            pool
            for pool, _ in member.serves
            if not _draws_from(member, pool, evidence)
            # The only one that can serve a pool may be slow: nobody can come before it.
            and (pool in drawn or not _asked_lately(member, pool, evidence))
        )
        if pools:
            silent[member.presence.worker_id] = pools
    return MappingProxyType(silent)


def copied_keys(evidence: Evidence) -> tuple[WorkerId, ...]:
    """The workers whose keys several processes use now, by id."""
    return tuple(
        sorted(worker for worker, at in evidence.copied.items() if evidence.now - at < COPIED_LIFE_MS)
    )


def last_asked(evidence: Evidence, worker: WorkerId) -> int | None:
    """When a worker last asked any pool for jobs; None where it never did."""
    return max((at for draws, at in evidence.asked.items() if draws.worker == worker), default=None)


def last_seen_in(
    pools: Collection[PoolName], present: Collection[WorkerId], evidence: Evidence
) -> dict[PoolName, int]:
    """How long ago, in milliseconds, any worker was last seen to do something in each of these pools; one in
    which nobody was is left out.

    Args:
      present: Workers that announce themselves, and so say what they serve. Another may only be heard of by
        nobody, and go on with what it drew: the leases that it renews count in all pools that it asked.
    """
    latest: dict[PoolName, int] = {}
    for draws, at in evidence.asked.items():
        if draws.pool in pools:
            if draws.worker not in present:
                at = max(at, evidence.renewed.get(draws.worker, 0))
            latest[draws.pool] = max(at, latest.get(draws.pool, 0))
    return {pool: max(0, evidence.now - at) for pool, at in latest.items()}


def may_only_load(pools: Collection[PoolName], fleet: Fleet, evidence: Evidence) -> set[PoolName]:
    """Those of these pools whose workers, one or more, all ask for them and tell which models they have
    loaded: whether one of them has loaded the pool's, or all only could, shows by whether the pool is drawn
    from.

    Who is busy, new or of a make that tells nothing is believed to draw.
    """
    workers: dict[PoolName, set[WorkerId]] = {}
    for worker, member in fleet.members.items():
        if worker not in fleet.unroutable:
            silent = silent_in(member, fleet.silent)
            for pool, _ in member.serves:
                if pool in pools and pool not in silent:
                    workers.setdefault(pool, set()).add(worker)
    for draws, at in evidence.asked.items():
        if draws.pool in pools and _is_recent(at, evidence):
            workers.setdefault(draws.pool, set()).add(draws.worker)
    return {
        pool
        for pool, theirs in workers.items()
        if all(
            _is_recent(evidence.reported.get(worker), evidence)
            and _is_recent(evidence.asked.get(Draws(worker, pool)), evidence)
            for worker in theirs
        )
    }


def _last_acts(evidence: Evidence) -> dict[WorkerId, int]:
    acts = dict(evidence.renewed)
    for draws, at in evidence.asked.items():
        acts[draws.worker] = max(at, acts.get(draws.worker, 0))
    return acts


def _draws_from(member: Member, pool: PoolName, evidence: Evidence) -> bool:
    draws = Draws(member.presence.worker_id, pool)
    asked, missed = evidence.asked.get(draws), evidence.missed.get(draws)
    if asked is not None and _is_recent(asked, evidence):
        was_missed = missed is not None and missed > max(asked, evidence.resumed)
        if not was_missed or (missed is not None and evidence.now - missed < RUNG_PATIENCE_MS):
            return True
    # Who has no free slot does not ask, but goes on with what it runs.
    return member.presence.free == 0 and _is_recent(evidence.renewed.get(draws.worker), evidence)


def _asked_lately(member: Member, pool: PoolName, evidence: Evidence) -> bool:
    return _is_recent(evidence.asked.get(Draws(member.presence.worker_id, pool)), evidence)


def _is_recent(at: int | None, evidence: Evidence) -> bool:
    """Whether something was seen lately, or was when nothing could be seen any more, and that has just
    ended."""
    if at is None:
        return False
    if at < evidence.resumed and at >= evidence.paused - MAX_SILENCE_MS:
        at = evidence.resumed
    return evidence.now - at < MAX_SILENCE_MS


def _is_in_grace(member: Member, last_act: int | None, evidence: Evidence, reader_now: int) -> bool:
    """Whether a worker cannot have asked yet: it is new, or was started again and drew before that.

    One that never does anything gets no second grace by being started again and again.
    """
    known = evidence.known.get(member.presence.worker_id)
    if known is None:
        # A Redis that came back empty has forgotten whom it knew.
        return reader_now - member.first_seen < GRACE_MS or evidence.now - evidence.resumed < GRACE_MS
    if evidence.now - known.first < GRACE_MS:
        return True
    return evidence.now - known.latest < GRACE_MS and last_act is not None and last_act >= known.former
