"""The client that talks to the database and Redis itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dramatiq import Actor
from sqlalchemy import Connection

from tether.broker import TetherBroker
from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.keys import INFER
from tether.client.backend import Deliver, JobStatus, StreamEvent, Submitted, check_offset
from tether.client.follower import Follower
from tether.client.stream_archive import Ended
from tether.client.stream_hub import StreamHub
from tether.config import Settings
from tether.config_loading import load_settings
from tether.control import ControlPlane
from tether.errors import BrokerUnavailable, ConfigError, JobNotFound
from tether.jobs import FINAL_STATES, JobRequest, JobState
from tether.scheduling.scheduler_middleware import now_ms
from tether.store import queries
from tether.store.placements import states
from tether.store.requests import Request
from tether.store.rows import JobRow
from tether.store.store import Store

__all__ = ["DirectBackend", "open_direct"]

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")

_DECIDED_BY_REDIS = frozenset(
    {JobState.PLACED, JobState.RUNNING, JobState.SUCCEEDED, JobState.CANCELLED, JobState.EXPIRED}
)
"""States of which the database only makes a record: whoever saw a stream's end finds it in the status."""


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

    def now_ms(self) -> int:
        return now_ms()

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        return self._plane.scheduler.submit(requests, broker=self._plane.broker, tenant=self._tenant)

    def status(self, job_id: str) -> JobStatus:
        row = self._row(job_id)
        state, offset = row.state, row.output_tokens
        if not state.is_final:
            # While Redis owns it, the database knows no better than that it was handed over.
            try:
                known = self._plane.pools.known([job_id])[0]
            except OUTAGE_ERRORS:
                known = None
            if known is not None and known.dispatch == row.dispatch:
                offset = known.offset
                if known.state in _DECIDED_BY_REDIS:
                    state = JobState(known.state)
        return JobStatus(
            job_id=job_id,
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

    def cancel(self, job_id: str) -> JobState:
        _check_job_id(job_id)
        try:
            request = Request(self._tenant, job_id, JobState.CANCELLED, now_ms())
            state = self._plane.ending.end([request])[0]
        except OUTAGE_ERRORS as error:
            raise BrokerUnavailable(
                f"job {job_id} will be cancelled once Redis is back ({type(error).__name__})"
            ) from error
        if state is None:
            raise _not_found(job_id)
        return state if state.is_final else self.status(job_id).state

    def follow(self, job_id: str, offset: int, deliver: Deliver) -> Follower:
        check_offset(offset)
        self._row(job_id)
        return self._hub.follow(job_id, offset, deliver)

    def close(self) -> None:
        self._hub.close()
        self._plane.close()

    def _row(self, job_id: str) -> JobRow:
        _check_job_id(job_id)
        row = self._plane.store.read(queries.job, job_id, self._tenant)
        if row is None:
            raise _not_found(job_id)
        return row


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


def _check_job_id(job_id: object) -> None:
    """What cannot be a job's id is no job's: some of it no database takes."""
    if not isinstance(job_id, str) or _JOB_ID.match(job_id) is None:
        raise _not_found(job_id)


def _not_found(job_id: object) -> JobNotFound:
    return JobNotFound(f"there is no job {repr(job_id)[:100]}, or it is another tenant's")
