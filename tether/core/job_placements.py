"""How a job came to its pools: what the database keeps of its hand-overs, with what came of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tether.explanations import JobPlacements, PlacementOrigin, PlacementRecord
from tether.histories import JobHistory
from tether.ids import PoolName
from tether.store.decision_texts import explanation_of
from tether.store.decisions import REPEATED


def placements_of(history: JobHistory, kept: Sequence[Mapping[str, Any]], not_before: int) -> JobPlacements:
    """Put a job's placements together.

    Args:
      kept: Its rows of the table ``decisions``.
      not_before: From when the job might start, in milliseconds since the epoch; 0 is at once.
    """
    begun: dict[int, int] = {}
    pools: dict[int, PoolName | None] = {}
    for attempt in history.attempts:
        pools.setdefault(attempt.dispatch, attempt.pool)
        if attempt.started_at is not None:
            earlier = begun.get(attempt.dispatch, attempt.started_at)
            begun[attempt.dispatch] = min(earlier, attempt.started_at)
    if history.dispatch:
        pools[history.dispatch] = history.pool
    rows = {row["dispatch"]: row for row in kept if isinstance(row["dispatch"], int)}
    return JobPlacements(
        job_id=history.job_id,
        state=history.state,
        placements=tuple(
            _record(dispatch, rows[dispatch], begun.get(dispatch), not_before)
            if dispatch in rows
            else PlacementRecord(
                dispatch=dispatch,
                origin=PlacementOrigin.UNKNOWN,
                pool=pools[dispatch],
                begun_at=begun.get(dispatch),
            )
            for dispatch in sorted(rows.keys() | pools.keys())
        ),
    )


def waited_ms(decided_at: int, not_before: int, begun_at: int) -> int:
    """How long a job waited from its placement, or from when it might start, if that was later."""
    return max(0, begun_at - max(decided_at, not_before))


def _record(dispatch: int, row: Mapping[str, Any], begun_at: int | None, not_before: int) -> PlacementRecord:
    decided_at = row["decided_at"] if isinstance(row["decided_at"], int) else None
    pool = PoolName(row["pool"]) if isinstance(row["pool"], str) else None
    origin, explanation = PlacementOrigin.CHOSEN if pool else PlacementOrigin.UNSERVED, None
    if row["choice"] == REPEATED:
        origin = PlacementOrigin.REPEATED
    else:
        try:
            explanation = explanation_of(row["choice"], pool)
        except (TypeError, ValueError):
            # It costs its own explanation: what else is known of the job is told.
            origin = PlacementOrigin.UNREADABLE
    return PlacementRecord(
        dispatch=dispatch,
        origin=origin,
        decided_at=decided_at,
        pool=pool,
        explanation=explanation,
        wait_seconds=_in_seconds(row["wait_ms"]),
        total_seconds=_in_seconds(row["total_ms"]),
        begun_at=begun_at,
        waited_seconds=waited_ms(decided_at, not_before, begun_at) / 1000
        if decided_at is not None and begun_at is not None
        else None,
    )


def _in_seconds(milliseconds: object) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int) else None
