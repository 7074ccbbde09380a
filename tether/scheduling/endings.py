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
        if not requests:
            return []
        rows = self.ask(requests)
        now_ms = requests[0].now_ms
        ended = self.carry_out([row for row in rows if row is not None], now_ms)
        return [None if row is None else ended.get(row.job_id, row.state) for row in rows]

    def ask(self, requests: Sequence[Request]) -> list[RequestedRow | None]:
        """Only write the requests, which the orchestrator carries out; None where there is no such job.

        Raises:
          StoreUnavailable: They were not written.
        """
        return [future.result() for future in self.store.write_many(request, requests)]

    def carry_out(self, rows: Sequence[RequestedRow], now_ms: int) -> dict[str, JobState]:
        """Carry out requests that are written. Can be repeated. Answers the jobs that this made final.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        wanted = [(row, row.requested) for row in rows if row.requested and not row.state.is_final]
        if not wanted:
            return {}
        found = self.pools.cancel_many([(row.job_id, end) for row, end in wanted])
        overtaken = self._overtaken([row for row, _ in wanted], found)
        free = [
            Conclusion(row.job_id, row.dispatch, end, now_ms)
            for (row, end), answer in zip(wanted, found, strict=True)
            if _is_free(row, answer) or row.job_id in overtaken
        ]
        concluded = [future.result() for future in self.store.write_many(conclude, free)]
        ended = {
            conclusion.job_id: JobState(conclusion.state)
            for conclusion, is_final in zip(free, concluded, strict=True)
            if is_final
        }
        self.pools.seal_many([(job_id, state, "") for job_id, state in ended.items()], self.life_ms)
        return ended

    def _overtaken(self, rows: Sequence[RequestedRow], answers: Sequence[str]) -> set[str]:
        """Those that the database owns, and whose end in Redis is that of an earlier hand-over.

        Redis that was set back ends what it had then. That outcome changes nothing any more, and no other
        comes.
        """
        ended = [
            row
            for row, answer in zip(rows, answers, strict=True)
            if answer not in (CLOSED, JobState.RUNNING) and row.state in _OWNED_BY_DATABASE
        ]
        known = self.pools.known([row.job_id for row in ended]) if ended else []
        return {
            row.job_id
            for row, one in zip(ended, known, strict=True)
            if one is not None and one.dispatch < row.dispatch
        }


def _is_free(row: RequestedRow, answer: str) -> bool:
    """Whether no outcome will come for the row's dispatch any more.

    An attempt that failed ended its dispatch; what the database owns since, it ends by itself. Where it has
    not read that outcome yet, it will find the request with it.
    """
    return answer == CLOSED or (answer in ("failed", "withdrawn") and row.state in _OWNED_BY_DATABASE)
