"""A choice of a pool as it is kept with the job: pure."""

from __future__ import annotations

from dataclasses import dataclass

from tether.ids import PoolName
from tether.scheduling.affinity import Affinity, PlacementDecision
from tether.store.capacity import Claim
from tether.store.decision_texts import AbleRow, UnableRow, choice_text
from tether.store.decisions import Decision


@dataclass(frozen=True)
class ChosenPools:
    """A choice for a job.

    Attributes:
      claims: The pools that can serve it now, the best first.
      decision: What is kept of it; None where nothing is.
      is_full: Whether pools could serve it, and take no more jobs.
      is_shut: Whether a breaker keeps it from a pool that might serve it soon.
    """

    claims: tuple[Claim, ...]
    decision: Decision | None = None
    is_full: bool = False
    is_shut: bool = False

    @property
    def pool(self) -> PoolName | None:
        """The best of them; None where there is none."""
        return self.claims[0].pool if self.claims else None


def kept_decision(decision: PlacementDecision, affinity: Affinity, now_ms: int) -> Decision:
    """What is kept of a choice.

    Args:
      affinity: What compared the pools.
      now_ms: When it was made, in milliseconds since the epoch.

    Raises:
      ValueError, OverflowError: It has names or numbers that no text can keep.
    """
    # Once for each job: what is called here for each pool counts.
    able: list[AbleRow] = []
    unable: list[UnableRow] = []
    expected: dict[PoolName, tuple[int, int]] = {}
    for row in decision.table:
        times = row.expected
        if row.exclusion is not None:
            unable.append((row.pool, row.exclusion.unfit.value, row.exclusion.words))
        elif times is not None:
            wait_ms, total_ms = round(times.wait_seconds * 1000), round(times.seconds * 1000)
            expected[row.pool] = wait_ms, total_ms
            able.append(
                (
                    row.pool,
                    round(row.cost_seconds * 1000),
                    wait_ms,
                    total_ms,
                    round(times.ahead * 100),
                    times.slots,
                    times.tokens_per_second,
                    times.is_measured,
                    round(times.load_seconds * 1000),
                    tuple(row.terms.values()),
                )
            )
    return Decision(now_ms, choice_text(affinity.worth, affinity.depth_weight, able, unable), expected)
