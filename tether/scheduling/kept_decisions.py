"""A choice of a pool as it is kept with the job: pure."""

from __future__ import annotations

from dataclasses import dataclass

from tether.ids import PoolName
from tether.scheduling.affinity import Affinity, PlacementDecision
from tether.store.decision_texts import AbleRow, UnableRow, choice_text
from tether.store.decisions import Decision


@dataclass(frozen=True)
class ChosenPool:
    """A choice for a waiting job.

    Attributes:
      pool: None where no pool can serve it now.
      decision: What is kept of it; None where nothing is.
    """

    pool: PoolName | None
    decision: Decision | None = None


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
