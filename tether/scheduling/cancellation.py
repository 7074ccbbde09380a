"""Ending jobs early: cancelled, or expired at their deadline or unbegun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from tether.broker.pools.cancel_results import CancelResult
from tether.broker.pools.known_jobs import KnownJob
from tether.broker.pools.pools import Pools
from tether.ids import JobId
from tether.jobs import JobError, JobState
from tether.store.beginnings import note_begun
from tether.store.bulk import lock_jobs
from tether.store.end_requests import (
    Conclusion,
    LateCancellation,
    Request,
    RequestedRow,
    conclude,
    forget_late,
    request,
)
from tether.store.failures import after_commit
from tether.store.store import Store
from tether.telemetry.logs import get_logger

_OWNED_BY_DATABASE = (JobState.ACCEPTED, JobState.PARKED, JobState.WAITING_RETRY)
_IN_REDIS = (JobState.PLACED, JobState.RUNNING)
_NEVER_TO_BEGIN = (CancelResult.CLOSED, CancelResult.WITHDRAWN, CancelResult.EXPIRED)
_NO_OUTCOME_YET = (CancelResult.CLOSED, CancelResult.RUNNING)

_log = get_logger("tether.scheduling")


@dataclass(frozen=True)
class Cancellation:
    """Requests the end of jobs: first durably, then in Redis, whose reply decides.

    Each job on its own: if one fails, its error is returned in its place, and the others end.

    Attributes:
      store: Where the request is stored.
      pools: Where it is executed.
      life_ms: How long Redis keeps ended jobs.
    """

    store: Store
    pools: Pools
    life_ms: int

    def end(self, requests: Sequence[Request]) -> list[JobState | Exception | None]:
        """Request cancellation of jobs, and return each job's state then; None if there is no such job.

        A running job ends when its worker receives the request, by its outcome.

        Raises:
          StoreUnavailable: The request was not written; if it is a ``ChangeUnfinished``, it was.
          OUTAGE_ERRORS: It was, and is executed when Redis is back.
        """
        if not requests:
            return []
        rows = self.ask(requests)
        now_ms = requests[0].now_ms
        with after_commit():
            ended = self.carry_out([row for row in rows if isinstance(row, RequestedRow)], now_ms)
        return [ended.get(row.job_id, row.state) if isinstance(row, RequestedRow) else row for row in rows]

    def ask(self, requests: Sequence[Request]) -> list[RequestedRow | Exception | None]:
        """Only write the requests, which the orchestrator executes; None if there is no such job.

        Raises:
          StoreUnavailable: They were not written.
        """
        return self.store.write_each(request, requests)

    def carry_out(self, rows: Sequence[RequestedRow], now_ms: int) -> dict[JobId, JobState | Exception]:
        """Execute requests that are written, and return the jobs that this finalized, and the errors of
        those that failed. Idempotent.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        wanted = [(row, row.requested) for row in rows if row.requested and not row.state.is_final]
        if not wanted:
            return {}
        answers = self.pools.cancel_many([(row.job_id, end) for row, end in wanted])
        ended: dict[JobId, JobState | Exception] = {}
        asked: list[tuple[RequestedRow, JobState, CancelResult]] = []
        for (row, end), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Exception):
                ended[row.job_id] = answer
            else:
                asked.append((row, end, answer))
        overtaken = self._overtaken([(row, answer) for row, _, answer in asked])
        free = [
            Conclusion(row.job_id, row.dispatch, end, now_ms)
            for row, end, answer in asked
            if _is_free(row, answer) or row.job_id in overtaken
        ]
        late = [
            LateCancellation(row.job_id, row.dispatch)
            for row, end, answer in asked
            if end is JobState.CANCELLED and answer is CancelResult.SUCCEEDED and row.job_id not in overtaken
        ]
        ended |= self._forget(late)
        free = self._with_tokens(free)
        concluded = self.store.write_each(conclude, free)
        final: list[tuple[JobId, JobState, JobError | None]] = []
        for conclusion, is_final in zip(free, concluded, strict=True):
            if isinstance(is_final, Exception):
                ended[conclusion.job_id] = is_final
            elif is_final:
                state = ended[conclusion.job_id] = JobState(conclusion.state)
                final.append((conclusion.job_id, state, None))
        sealed = self.pools.seal_many(final, self.life_ms)
        for (job_id, _, _), seal in zip(final, sealed, strict=True):
            if isinstance(seal, Exception):
                _log.error("The end of a job cannot be written to Redis.", job=job_id, error=str(seal))
        return ended

    def _forget(self, late: Sequence[LateCancellation]) -> dict[JobId, JobState | Exception]:
        """Clients were told that these succeeded, whatever becomes of Redis. Return the errors."""
        answers = self.store.write_each(forget_late, late) if late else []
        return {
            each.job_id: answer
            for each, answer in zip(late, answers, strict=True)
            if isinstance(answer, Exception)
        }

    def expire_unbegun(self, rows: Sequence[RequestedRow], now_ms: int) -> dict[JobId, JobState | Exception]:
        """End jobs as expired, but those that have begun, or may have: of these it is noted.

        Returns:
          Each job's state then, or its error; a job of which Redis cannot say yet whether it has begun, or
          whose outcome is under way, is left out.

        Raises:
          StoreUnavailable, OUTAGE_ERRORS: One of the two is away. It is safe to repeat.
        """
        if not rows:
            return {}
        answers = self.pools.expire_unbegun_many([(row.job_id, row.state in _IN_REDIS) for row in rows])
        results = {row.job_id: answer for row, answer in zip(rows, answers, strict=True)}
        ended: dict[JobId, JobState | Exception] = {
            job_id: answer for job_id, answer in results.items() if isinstance(answer, Exception)
        }
        begun = [row for row in rows if results[row.job_id] is CancelResult.BEGUN]
        noted = self.store.write_each(_note_begun, [row.job_id for row in begun])
        for row, error in zip(begun, noted, strict=True):
            ended[row.job_id] = error if isinstance(error, Exception) else row.state
        # From here on nobody can begin them: they may be ended as by a request, again and again.
        unbegun = [row.job_id for row in rows if results[row.job_id] in _NEVER_TO_BEGIN]
        states = self.end([Request(None, job_id, JobState.EXPIRED, now_ms) for job_id in unbegun])
        for job_id, state in zip(unbegun, states, strict=True):
            if state is not None:
                ended[job_id] = state
        return ended

    def _with_tokens(self, conclusions: Sequence[Conclusion]) -> list[Conclusion]:
        """The same, each with what attempts have streamed: Redis forgets that soon after the end."""
        streamed = self.pools.streamed([conclusion.job_id for conclusion in conclusions])
        return [
            # A key that is no stream costs its job the tokens, and not the end.
            conclusion if isinstance(made, Exception) else conclusion._replace(made=made)
            for conclusion, made in zip(conclusions, streamed, strict=True)
        ]

    def _overtaken(self, answers: Sequence[tuple[RequestedRow, CancelResult]]) -> set[JobId]:
        """Those that the database owns, and whose end in Redis is that of an earlier hand-over.

        Redis that was set back ends what it had then. That outcome changes nothing any more, and no other
        comes.
        """
        ended = [
            row
            for row, answer in answers
            if answer not in _NO_OUTCOME_YET and row.state in _OWNED_BY_DATABASE
        ]
        known = self.pools.known([row.job_id for row in ended]) if ended else []
        return {
            row.job_id
            for row, in_redis in zip(ended, known, strict=True)
            if isinstance(in_redis, KnownJob) and in_redis.dispatch < row.dispatch
        }


def _note_begun(connection: Connection, job_ids: list[JobId]) -> list[None]:
    lock_jobs(connection, job_ids)
    note_begun(connection, job_ids)
    return [None] * len(job_ids)


def _is_free(row: RequestedRow, answer: CancelResult) -> bool:
    """Whether no outcome will come for the row's dispatch any more.

    An attempt that failed ended its dispatch; what the database owns since, it ends by itself. Where it has
    not read that outcome yet, it will find the request with it.
    """
    has_ended = answer in (CancelResult.FAILED, CancelResult.WITHDRAWN)
    return answer is CancelResult.CLOSED or (has_ended and row.state in _OWNED_BY_DATABASE)
