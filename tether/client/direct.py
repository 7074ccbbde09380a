"""The client that talks to the database and Redis itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from dramatiq import Actor
from sqlalchemy import Connection

from tether.broker import TetherBroker
from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.keys import INFER
from tether.broker.pools import Known
from tether.client.backend import (
    MOST_JOBS_A_PAGE,
    Deliver,
    JobPage,
    JobStatus,
    ModelInfo,
    StreamEvent,
    Submitted,
    check_job_id,
    check_offset,
    check_page,
    no_such_job,
)
from tether.client.follower import Follower
from tether.client.live_states import LiveStates
from tether.client.stream_archive import Ended
from tether.client.stream_hub import StreamHub
from tether.config import Settings
from tether.config_loading import load_settings
from tether.control import ControlPlane
from tether.errors import ConfigError
from tether.jobs import FINAL_STATES, JobFilter, JobRequest, JobState
from tether.scheduling.scheduler_middleware import now_ms
from tether.store import queries
from tether.store.placements import states
from tether.store.requests import Request
from tether.store.rows import JobRow
from tether.store.store import Store

__all__ = ["DirectBackend", "open_direct"]

_DECIDED_BY_REDIS = frozenset(
    {JobState.PLACED, JobState.RUNNING, JobState.SUCCEEDED, JobState.CANCELLED, JobState.EXPIRED}
)
"""States of which the database only makes a record: whoever saw a stream's end finds it in the status."""

MOST_LOOKS = 20
"""Pages of the database's that are looked through for one page of an answer."""


def open_direct(settings: Settings | None = None, tenant: str = "default") -> DirectBackend:
    """A backend on the database and the Redis of the settings; from file and environment where None."""
    if settings is None:
        settings = load_settings(environ=os.environ)
    return DirectBackend(ControlPlane(settings, tenant=tenant).open(), tenant)


class DirectBackend:
    """Carries calls to the database and Redis. It owns the control plane that it is given.

    Attributes:
      infer: The Dramatiq actor whose messages are jobs.
    """

    def __init__(self, plane: ControlPlane, tenant: str) -> None:
        self._plane = plane
        self._tenant = tenant
        self._hub = StreamHub(plane.client, plane.keys, StoreArchive(plane.store))
        self._live = LiveStates(plane.client, plane.keys)
        self.infer: Actor[..., Any] = Actor(
            _run_elsewhere,
            broker=plane.broker,
            actor_name=INFER,
            queue_name=INFER,
            priority=0,
            options={},
        )

    @property
    def broker(self) -> TetherBroker:
        """Whose queue ``infer`` makes jobs."""
        return self._plane.broker

    def for_tenant(self, tenant: str) -> Self:
        """The same for another tenant: it shares everything, and is not closed by itself."""
        other = object.__new__(type(self))
        other.__dict__ |= {**self.__dict__, "_tenant": tenant}
        return other

    def now_ms(self) -> int:
        return now_ms()

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        return self._plane.scheduler.submit(requests, broker=self._plane.broker, tenant=self._tenant)

    def status(self, job_id: str) -> JobStatus:
        return self._statuses([self._row(job_id)])[0]

    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        check_page(cursor, limit)
        asked = in_database(job_filter)
        found: list[JobStatus] = []
        for _ in range(MOST_LOOKS):
            rows = self._plane.store.read(queries.jobs_of, self._tenant, asked, cursor, MOST_JOBS_A_PAGE)
            for status in self._statuses(rows):
                if not job_filter.states or status.state in job_filter.states:
                    found.append(status)
                    if len(found) > limit:
                        return JobPage(tuple(found[:limit]), found[limit - 1].job_id)
            if len(rows) < MOST_JOBS_A_PAGE:
                return JobPage(tuple(found), None)
            cursor = rows[-1].job_id
        return JobPage(tuple(found), cursor)

    def models(self) -> list[ModelInfo]:
        pools = self._plane.fleet.pools()
        return [
            ModelInfo(
                name=model.name,
                version=model.version,
                context=model.context,
                adapters=model.adapters,
                workers=sum(pool.workers for pool in pools if pool.digest == model.digest),
            )
            for model in self._plane.registry.models
        ]

    def _statuses(self, rows: Sequence[JobRow]) -> list[JobStatus]:
        # While Redis owns a job, the database knows no better than that it was handed over.
        known = self._live.known([row.job_id for row in rows if not row.state.is_final])
        return [_status(row, known.get(row.job_id)) for row in rows]

    def cancel(self, job_id: str) -> JobState:
        check_job_id(job_id)
        request = Request(self._tenant, job_id, JobState.CANCELLED, now_ms())
        if self._live.is_away():
            row = self._plane.ending.ask([request])[0]
            state = None if row is None else row.state
        else:
            try:
                state = self._plane.ending.end([request])[0]
            except OUTAGE_ERRORS:
                # The request is durable, and carried out once Redis is back.
                self._live.note_away()
                return self._row(job_id).state
        if state is None:
            raise no_such_job(job_id)
        return state if state.is_final else self.status(job_id).state

    def follow(self, job_id: str, offset: int, deliver: Deliver, *, run: int = 0) -> Follower:
        """See :meth:`~tether.client.backend.Backend.follow`; ``run`` is that which the offset counts in."""
        check_offset(offset)
        check_offset(run)
        self._row(job_id)
        return self._hub.follow(job_id, offset, deliver, run=run)

    def close(self) -> None:
        self._hub.close()
        self._live.close()
        self._plane.close()

    def _row(self, job_id: str) -> JobRow:
        check_job_id(job_id)
        row = self._plane.store.read(queries.job, job_id, self._tenant)
        if row is None:
            raise no_such_job(job_id)
        return row


def _status(row: JobRow, known: Known | None) -> JobStatus:
    state, offset = row.state, row.output_tokens
    if known is not None and known.dispatch == row.dispatch:
        offset = known.offset
        if known.state in _DECIDED_BY_REDIS:
            state = JobState(known.state)
    return JobStatus(
        job_id=row.job_id,
        correlation_id=row.correlation_id,
        retry_token=row.retry_token,
        state=state,
        model=row.model,
        priority=row.priority,
        labels=row.labels,
        pool=row.pool,
        dispatch=row.dispatch,
        attempts=row.attempts,
        offset=offset,
        created_at=row.created_at,
        finished_at=row.finished_at,
        error=row.error,
        input_tokens=row.input_tokens,
        output_tokens=offset if state.is_final else row.output_tokens,
    )


def in_database(job_filter: JobFilter) -> JobFilter:
    """The same with the states in which the database may hold such jobs: what runs, it has as placed."""
    states = set(job_filter.states)
    if states & _DECIDED_BY_REDIS:
        states |= {JobState.PLACED, JobState.RUNNING}
    return replace(job_filter, states=tuple(sorted(states)))


class StoreArchive:
    """Ended jobs' streams, from the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ended(self, job_ids: Sequence[str]) -> Mapping[str, Ended]:
        return self._store.read(_ended, list(dict.fromkeys(job_ids)))


def _ended(connection: Connection, job_ids: list[str]) -> dict[str, Ended]:
    found = {}
    for job_id, (state, _) in states(connection, job_ids).items():
        if state not in FINAL_STATES:
            continue
        row = queries.job(connection, job_id)
        result = queries.result_pieces(connection, job_id)
        if row is None:
            continue
        pieces = result.pieces if result else ()
        run = result.run if result else 0
        details: dict[str, object] = {"input_tokens": row.input_tokens}
        if state is JobState.SUCCEEDED:
            details["reason"] = result.finish_reason if result else ""
        else:
            details |= {"state": state.value, "code": row.error.code if row.error else state.value}
        kind = "finished" if state is JobState.SUCCEEDED else "failed"
        last = StreamEvent(kind=kind, run=run, offset=len(pieces), details=details)
        found[job_id] = Ended(run, pieces, last)
    return found


def _run_elsewhere(**_: Any) -> None:
    raise ConfigError("jobs of models run on workers that were started with `tether worker`, not here")
