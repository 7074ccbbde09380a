"""Ending jobs before their time: cancelled by somebody, or expired at their deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tether.broker.pools import Pools
from tether.jobs import JobState
from tether.store.requests import Conclusion, Request, RequestedRow, conclude, request
from tether.store.store import Store

CLOSED = "closed"
_OWNED_BY_DATABASE = (JobState.ACCEPTED, JobState.PARKED, JobState.WAITING_RETRY)


@dataclass(frozen=True)
class Ending:
    """Asks jobs to end: first durably, then in Redis, whose answer decides.

    Attributes:
      store: Where the request is kept.
      pools: Where it is carried out.
      life_ms: How long Redis remembers jobs that ended.
    """

    store: Store
    pools: Pools
    life_ms: int

    def end(self, requests: Sequence[Request]) -> list[JobState | None]:
        """Ask for the end of jobs. Answers each job's state then; None where there is no such job.

        A running job ends when its worker hears of it, by its outcome.

        Raises:
          StoreUnavailable: The request was not written.
          OUTAGE_ERRORS: It was, and is carried out when Redis is back.
        """
        rows = [future.result() for future in self.store.write_many(request, requests)]
        return [
            None if row is None else self.carry_out(row, asked.now_ms)
            for row, asked in zip(rows, requests, strict=True)
        ]

    def carry_out(self, row: RequestedRow, now_ms: int) -> JobState:
        """Carry out a request that is written. Can be repeated.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        if row.state.is_final or row.requested is None:
            return row.state
        found = self.pools.cancel(row.job_id, row.requested)
        # An attempt that failed ended its dispatch; what the database owns since, it ends by itself. Where it
        # has not read that outcome yet, it will find the request with it.
        is_free = found == CLOSED or (found in ("failed", "withdrawn") and row.state in _OWNED_BY_DATABASE)
        if not is_free:
            return row.state
        conclusion = Conclusion(row.job_id, row.dispatch, row.requested, now_ms)
        if not self.store.write(conclude, conclusion).result():
            return row.state
        self.pools.seal(row.job_id, row.requested, self.life_ms)
        return row.requested
