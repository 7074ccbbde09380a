"""Which tenants are set apart in a pool that others use, since their jobs end one process after another.

What the scripts ``gone``, ``draw`` and ``finish`` decide, in pure functions: they decide in one step with
what they write; tests compare them with this module. ``docs/decisions/blame.md`` says why it is so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tether.ids import BootId, TenantId, WorkerId
from tether.scheduling.blame import PROOF_FACTOR, PROOF_MS

APART_DEATHS = 2
"""After so many deaths that made its jobs suspects, in the open, a tenant can be set apart."""

MAX_WATCHED = 16
"""Tenants of a pool that are watched."""

FIRST_NEEDED, MAX_NEEDED = 4, 64
"""Jobs in a row that do no harm and set a tenant free: the first time, and at most."""

MAX_APART_PROOF_MS = 30_000
"""After so long at the latest others may run beside jobs of a tenant that is apart."""

MIN_REST_MS, MAX_REST_MS = 2_000, 300_000
RESTART_MS = 60_000
"""For so long a worker that died in its turn is starting again, and the turn is its."""

MAX_TRIAL_MS = 600_000
"""No turn's jobs are waited for longer than this."""


@dataclass(frozen=True)
class WatchedTenant:
    """What is held against a tenant in a pool, and for it.

    Attributes:
      seen_ms: When the last death was that counts.
      deaths: In the open, that made its jobs suspects, since it was last set free.
      jobs: How many of its jobs these were.
      since_ms: Since when it is apart; 0 where it is not.
      ran_ms: For how long its jobs ran until they ended a process, at most.
      proofs: Jobs in a row that did no harm since it is apart.
      needed: How many of these set it free.
      turned_ms: When it was last given jobs apart.
    """

    seen_ms: int = 0
    deaths: int = 0
    jobs: int = 0
    since_ms: int = 0
    ran_ms: int = 0
    proofs: int = 0
    needed: int = FIRST_NEEDED
    turned_ms: int = 0

    @property
    def is_apart(self) -> bool:
        return self.since_ms > 0

    @property
    def proof_ms(self) -> int:
        """For how long nothing else may run beside its jobs."""
        return min(MAX_APART_PROOF_MS, PROOF_FACTOR * self.ran_ms + PROOF_MS)

    def room_beside(self, running: int) -> int:
        """How many of its jobs may begin beside so many: one after a death, more the longer none followed."""
        return max(0, self.proofs + 1 - running)


@dataclass(frozen=True)
class DeadJobs:
    """A tenant's jobs in a process that died.

    Attributes:
      suspects: How many became suspects by that, in the open.
      ran_ms: For how long the one had run that had run for the shortest time.
    """

    suspects: int
    ran_ms: int


def watched_after_open_death(
    watched: Mapping[TenantId, WatchedTenant], died: Mapping[TenantId, DeadJobs], now_ms: int
) -> Mapping[TenantId, WatchedTenant]:
    """Who is watched, and who is apart, after a process died that ran jobs of a pool that several use.

    Of those that had jobs among the suspects of so many deaths those are set apart that were part of most,
    and of equal ones those with the most jobs: the others may only have run beside them.
    """
    after = dict(watched)
    counted = []
    for tenant in sorted(died):
        dead = died[tenant]
        former = after.get(tenant)
        if dead.suspects == 0 or (former is not None and former.is_apart):
            continue
        if former is None:
            if len(after) >= MAX_WATCHED:
                del after[min(after, key=lambda name: (after[name].is_apart, after[name].seen_ms, name))]
            former = WatchedTenant()
        after[tenant] = replace(
            former,
            seen_ms=now_ms,
            deaths=former.deaths + 1,
            jobs=former.jobs + dead.suspects,
            ran_ms=max(former.ran_ms, dead.ran_ms),
        )
        counted.append(tenant)
    counted = [tenant for tenant in counted if tenant in after and after[tenant].deaths >= APART_DEATHS]
    most = max(((after[tenant].deaths, after[tenant].jobs) for tenant in counted), default=None)
    for tenant in counted:
        if (after[tenant].deaths, after[tenant].jobs) == most:
            after[tenant] = replace(after[tenant], since_ms=now_ms, proofs=0)
    return after


def watched_after_death_apart(record: WatchedTenant, ran_ms: int, now_ms: int) -> WatchedTenant:
    """A process died that ran jobs of a tenant that is apart, and nothing else."""
    return replace(record, seen_ms=now_ms, proofs=0, ran_ms=max(record.ran_ms, ran_ms))


def watched_after_proofs(record: WatchedTenant, count: int) -> WatchedTenant:
    """So many jobs of a tenant that is apart ended well, or ran for long enough: some set it free."""
    proofs = record.proofs + count
    if proofs < record.needed:
        return replace(record, proofs=proofs)
    needed = min(MAX_NEEDED, 2 * record.needed)
    return replace(record, since_ms=0, deaths=0, jobs=0, proofs=0, needed=needed)


@dataclass(frozen=True)
class Turn:
    """A worker runs jobs of a pool that run alone, or apart.

    Attributes:
      boot_id: Its process.
      began_ms: When its first job began.
      until_ms: When its jobs have shown that they do no harm.
      ended_ms: When its process died; 0 where it did not.
    """

    boot_id: BootId
    began_ms: int
    until_ms: int
    ended_ms: int = 0

    def is_over(self, asked_by: WorkerId, is_running: bool, now_ms: int) -> bool:
        """Whether another may begin.

        Args:
          asked_by: The worker that asks. Where the process died, the turn lasts until its worker is back.
          is_running: Whether the process runs any job.
          now_ms: The time, by Redis's clock, which may have been set back.
        """
        if self.ended_ms > 0:
            is_back = self.boot_id.partition(".")[0] == asked_by
            return is_back or not now_ms - RESTART_MS < self.ended_ms <= now_ms
        return not is_running or not now_ms < self.until_ms <= now_ms + MAX_TRIAL_MS

    def rest_ms(self, now_ms: int) -> int:
        """For how long others come first once it is over: as long as it took, with its worker's restart.

        It may be long over where nobody asked.
        """
        over_at_ms = self.ended_ms + RESTART_MS if self.ended_ms > 0 else self.until_ms
        return min(MAX_REST_MS, max(MIN_REST_MS, min(now_ms, over_at_ms) - self.began_ms))
