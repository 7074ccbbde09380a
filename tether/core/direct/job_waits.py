"""Why one job waits, and when it is expected to begin: from the database, Redis and the fleet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tether.broker.pools.known_jobs import KnownJob
from tether.core.control_plane import ControlPlane
from tether.core.direct.models import held_from
from tether.core.live_states import LiveStates
from tether.ids import PoolName, WorkerId
from tether.jobs import JobState
from tether.scheduling.pool_waits import WaitedPool, why_in_pool
from tether.statuses import JobStatus
from tether.store.decisions import expected_waits
from tether.store.rows import JobRow
from tether.store.waiting_jobs import needed_of_jobs

_IN_POOL = frozenset({JobState.ACCEPTED, JobState.PLACED})
"""States of a job that waits in a pool, or for room there."""

YEAR_10000_MS = 253_402_300_800_000
"""Times from then on cannot be written as others are."""


class JobWaits:
    """Looks further than at a job's state. Blocks; safe to use from many threads."""

    def __init__(self, plane: ControlPlane, live: LiveStates) -> None:
        self._plane = plane
        self._live = live

    def told(self, row: JobRow, status: JobStatus, known: KnownJob | None) -> JobStatus:
        """A job's status with why it waits, and when it is expected to begin.

        Args:
          known: What Redis knows of it.
        """
        if status.state is JobState.PARKED:
            return replace(status, waits_for=self._why_parked(row))
        if status.state not in _IN_POOL or status.pool is None:
            return status
        if words := self._plane.scheduler.why_paused(status.pool):
            # What was expected did not reckon with the pause, and nobody knows how long it lasts.
            return replace(status, waits_for=words)
        words = self._why_in_pool(row, status.pool)
        is_unbegun = status.state is JobState.ACCEPTED if known is None else not known.has_begun
        return replace(status, waits_for=words, expected_at=self._expected_at(row) if is_unbegun else None)

    def _why_parked(self, row: JobRow) -> str:
        found = self._plane.store.read(needed_of_jobs, [row.job_id])
        if not found:
            return ""
        parked = found[0].job
        if parked.not_before > self._plane.clock.now_ms():
            return f"it may not start before {_shown_time(parked.not_before)}"
        return self._plane.scheduler.why_unserved(parked)

    def _why_in_pool(self, row: JobRow, name: PoolName) -> str:
        pools = self._plane.fleet.pools()
        view = next((pool for pool in pools if pool.name == name), None)
        jobs, shared = self._plane.scheduler.jobs_ahead(name)
        is_held = view is not None and view.able(row.tenant_id) <= 0
        is_cold = view is not None and not view.warm
        waited = WaitedPool(
            name=name,
            model=row.model,
            view=view,
            is_served_elsewhere=any(pool.model == row.model and pool.workers > 0 for pool in pools),
            jobs=jobs,
            shared=shared,
            held=held_from(self._plane.fleet, row.tenant_id).get(name, {}) if is_held else {},
            failing=self._failing(name) if is_cold else {},
        )
        return why_in_pool(waited, row.tenant_id)

    def _failing(self, name: PoolName) -> dict[WorkerId, str]:
        """Why workers cannot load the model of a pool that they serve."""
        members = self._plane.fleet.fleet.members
        return {
            worker: reasons[full_name]
            for worker, reasons in self._live.load_failures(sorted(members)).items()
            if worker in members
            for pool, model in members[worker].serves
            if pool == name and (full_name := f"{model.name}@{model.version}") in reasons
        }

    def _expected_at(self, row: JobRow) -> int | None:
        # Where none was chosen, as for a Redis that was built anew, it goes to the pool chosen before.
        waits = self._plane.store.read(expected_waits, [row.job_id])
        before = [one for one in waits if one.dispatch <= row.dispatch]
        kept = max(before, key=lambda one: one.dispatch, default=None)
        return None if kept is None else max(kept.decided_at + kept.wait_ms, kept.not_before)


def _shown_time(time_ms: int) -> str:
    if time_ms >= YEAR_10000_MS:
        return "the year 10000"
    return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
