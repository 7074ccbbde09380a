"""Which jobs may have ended the process that ran them: what the script ``gone`` decides, in pure functions.

The scripts decide, in one step with what they write; tests compare them with this module.
``docs/decisions/blame.md`` says why it is so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tether.ids import JobId

PROOF_FACTOR = 2
PROOF_MS = 3_000
"""A job that runs for ``PROOF_FACTOR`` times as long as until its last death, and ``PROOF_MS`` more, has
survived."""

SURVIVAL_FACTOR = 10
"""Between two deaths of a job alone others that end well must run for so many times as long, together."""

LONE_DEATHS = 2
"""Deaths alone, others having ended well before each but the first, that make a job poison."""

MAX_VAIN = 3
"""So many more deaths alone are enough where no others ended well, nor the worker died without it."""

WEAK_DEATHS = 2
"""So many more it takes of each where how the process ended tells little."""


@dataclass(frozen=True)
class Suspicion:
    """What is held against a job since a process that ran it died.

    Attributes:
      ran_ms: For how long it had run then.
      first_ms: When the first of these deaths was.
      lone: Deaths alone that count.
      vain: Deaths alone before which no others had ended well.
      survived_ms: For how long others had run that ended well, at the last death alone.
      at_ms: When that was.
    """

    ran_ms: int
    first_ms: int
    lone: int = 0
    vain: int = 0
    survived_ms: int = 0
    at_ms: int = 0

    @property
    def proof_ms(self) -> int:
        """For how long the job must run to show that it was not the cause."""
        return PROOF_FACTOR * self.ran_ms + PROOF_MS

    def has_survivors(self, survived_ms: int) -> bool:
        """Whether others have run for long enough, and ended well, since the job died alone."""
        return survived_ms - self.survived_ms >= SURVIVAL_FACTOR * max(self.ran_ms, 1)


@dataclass(frozen=True)
class RanJob:
    """A job that ran in a process when that died: for how long, and what was held against it before."""

    job_id: JobId
    ran_ms: int
    suspicion: Suspicion | None = None

    @property
    def is_reproduced(self) -> bool:
        """Whether that happened once more, and not later than it could have."""
        return self.suspicion is not None and self.ran_ms <= self.suspicion.proof_ms


class DeathVerdict(StrEnum):
    """What a death makes of a job that ran in the process.

    Values:
      FREE: It goes on among all others; the death is remembered.
      SUSPECT: It waits in its pool's quarantine, with the other suspects of this death.
      POISON: It is dead.
    """

    FREE = "free"
    SUSPECT = "suspect"
    POISON = "poison"


@dataclass(frozen=True)
class Ruling:
    """The verdict on one job, and what is held against it from now on."""

    verdict: DeathVerdict
    suspicion: Suspicion


def judge_death(
    ran: Sequence[RanJob],
    *,
    now_ms: int,
    survived_ms: int,
    died_without: Collection[JobId] = (),
    tells_little: bool = False,
) -> Mapping[JobId, Ruling]:
    """What the death of a process makes of each job that ran in it.

    Args:
      ran: All jobs that it ran.
      now_ms: When it died.
      survived_ms: For how long others have run that ended well while the pool had suspects.
      died_without: Those jobs without which the worker has died as well since their first death.
      tells_little: See :func:`tether.deaths.tells_little`.
    """
    rulings = {}
    for job in ran:
        if job.suspicion is None or not job.is_reproduced:
            rulings[job.job_id] = Ruling(DeathVerdict.FREE, Suspicion(job.ran_ms, now_ms))
            continue
        held = replace(job.suspicion, ran_ms=job.ran_ms)
        verdict = DeathVerdict.SUSPECT
        if len(ran) == 1:
            held, is_poison = _after_death_alone(
                job, now_ms, survived_ms, job.job_id in died_without, WEAK_DEATHS * tells_little
            )
            verdict = DeathVerdict.POISON if is_poison else DeathVerdict.SUSPECT
        rulings[job.job_id] = Ruling(verdict, held)
    return rulings


def _after_death_alone(
    job: RanJob, now_ms: int, survived_ms: int, has_died_without: bool, more: int
) -> tuple[Suspicion, bool]:
    held = job.suspicion
    assert held is not None
    counts = held.lone == 0 or held.has_survivors(survived_ms)
    held = replace(
        held,
        ran_ms=job.ran_ms,
        lone=held.lone + counts,
        vain=held.vain + (not counts),
        survived_ms=survived_ms,
        at_ms=now_ms,
    )
    is_in_vain = held.vain >= MAX_VAIN + more and not has_died_without
    return held, held.lone >= LONE_DEATHS + more + has_died_without or is_in_vain


def tried_together(waiting: Sequence[JobId]) -> Sequence[JobId]:
    """Those of a group of suspects that run next, with nothing beside them: half of those that wait."""
    return waiting[: (len(waiting) + 1) // 2]
