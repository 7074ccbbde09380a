"""Other priorities for jobs that were submitted: written to their rows, which Redis then follows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tether.broker.pools.lane_moves import LaneMove, MoveResult
from tether.broker.pools.pools import Pools
from tether.ids import JobId
from tether.jobs import Priority
from tether.store.priorities import (
    PrioritisedRow,
    PriorityChange,
    WantedPriority,
    change_priorities,
    wanted_priorities,
)
from tether.store.store import Store

MAX_ROUNDS = 8
"""So often it is looked whether somebody has changed a priority while Redis was told of it."""


@dataclass(frozen=True)
class Reprioritisation:
    """Gives jobs other priorities: first durably, in their rows, then in Redis, which follows.

    What is in the row counts. Where Redis was not told, or was told by two at once, reconcile tells it; what
    is placed with a priority that was read before stays in the outbox until Redis has the new one.

    Each job on its own: if one fails, its error is returned in its place, and the others are changed.

    Attributes:
      store: Where the priorities are.
      pools: What follows them.
    """

    store: Store
    pools: Pools

    def change(self, changes: Sequence[PriorityChange]) -> list[PrioritisedRow | Exception | None]:
        """Only write priorities; None if there is no such job.

        Raises:
          StoreUnavailable: They were not written.
        """
        return self.store.write_each(change_priorities, changes)

    def follow(self, job_ids: Collection[JobId]) -> dict[JobId, MoveResult | Exception]:
        """Tell Redis which priorities the rows of these jobs have. Idempotent. Jobs that have ended in the
        database are left out.

        Two that tell of one job in other orders than they wrote both look again afterwards: whoever was last
        has told what the row has.

        Returns:
          What came of each in Redis.

        Raises:
          StoreUnavailable: The rows cannot be read.
          OUTAGE_ERRORS: Redis is unavailable.
        """
        answers: dict[JobId, MoveResult | Exception] = {}
        told: dict[JobId, str] = {}
        left = list(dict.fromkeys(job_ids))
        for _ in range(MAX_ROUNDS):
            if not left:
                break
            rows, errors = self.store.read_each(wanted_priorities, left)
            answers |= errors
            moves = [_move(row) for row in rows if _can_be_told(row) and told.get(row.job_id) != row.priority]
            for move, answer in zip(moves, self.pools.reprioritise_many(moves), strict=True):
                answers[move.job_id] = answer
                told[move.job_id] = move.priority
            left = [move.job_id for move in moves]
        return answers


def _can_be_told(row: WantedPriority) -> bool:
    # SQLite keeps whatever it is given. What cannot be read is told of when its job is placed.
    return type(row.dispatch) is int and row.priority in tuple(Priority)


def _move(row: WantedPriority) -> LaneMove:
    return LaneMove(row.job_id, row.dispatch, Priority(row.priority))
