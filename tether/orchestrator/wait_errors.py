"""How far jobs' waits were from what their placements expected, measured when their attempts are settled."""

from __future__ import annotations

from collections.abc import Iterable

from tether.core.job_placements import waited_ms
from tether.errors import StoreError
from tether.ids import JobId
from tether.outcomes import Outcome
from tether.store.decisions import expected_waits
from tether.store.store import Store
from tether.telemetry import metrics


def observe_waits(store: Store, outcomes: Iterable[Outcome]) -> None:
    """Observe the waits of hand-overs of which these outcomes tell the first attempt. Where the database
    cannot be read now, they are not measured: nothing is raised.

    Args:
      outcomes: Each settled for the first time.
    """
    begun = {
        (outcome.job_id, end.dispatch): end.started_at
        for outcome in outcomes
        for end in outcome.ends
        if end.attempt == 1 and end.started_at
    }
    if not begun:
        return
    job_ids: list[JobId] = sorted({job_id for job_id, _ in begun})
    try:
        found, _ = store.read_each(expected_waits, job_ids)
    except StoreError:
        return
    for wait in found:
        begun_at = begun.get((wait.job_id, wait.dispatch))
        if begun_at is not None:
            error_ms = waited_ms(wait.decided_at, wait.not_before, begun_at) - wait.wait_ms
            direction = "longer" if error_ms > 0 else "shorter"
            metrics.PLACEMENT_WAIT_ERROR.labels(direction=direction).observe(abs(error_ms) / 1000)
