"""Streams, from Redis while it has them, and from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from tether.client.lifetime import Lifetime
from tether.core.direct.jobs import job_of_tenant
from tether.core.stream_hub.archive import Ended
from tether.core.stream_hub.follower import StreamFollower
from tether.core.stream_hub.hub import StreamHub
from tether.ids import JobId, TenantId
from tether.jobs import FINAL_STATES, JobState
from tether.store import queries
from tether.store.placements import states
from tether.store.store import Store
from tether.streams.events import Deliver, StreamEvent, check_offset, failure_details


class DirectStreamPort:
    """See :class:`~tether.client.ports.StreamPort`."""

    def __init__(self, store: Store, hub: StreamHub, lifetime: Lifetime, tenant: TenantId) -> None:
        self._store = store
        self._hub = hub
        self._lifetime = lifetime
        self._tenant = tenant

    def follow(
        self, job_id: JobId, offset: int, deliver: Deliver, *, within: float | None = None, run: int = 0
    ) -> StreamFollower:
        """See :meth:`~tether.client.ports.StreamPort.follow`; ``run`` is that which the offset counts in.
        Nothing is waited for but the database."""
        check_offset(offset)
        check_offset(run)
        with self._lifetime.call():
            row = job_of_tenant(self._store, job_id, self._tenant)
            return self._hub.follow(job_id, offset, deliver, run=run, has_ended=row.state.is_final)


class StoreArchive:
    """Ended jobs' streams, from the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ended(self, job_ids: Sequence[JobId]) -> Mapping[JobId, Ended]:
        return self._store.read(_ended, list(dict.fromkeys(job_ids)))


def _ended(connection: Connection, job_ids: list[JobId]) -> dict[JobId, Ended]:
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
        # A job that succeeded has an error where its output was lost.
        is_whole = state is JobState.SUCCEEDED and row.error is None
        details: dict[str, object] = (
            {"reason": result.finish_reason if result else "", "input_tokens": row.input_tokens}
            if is_whole
            else failure_details(state, row.error)
        )
        kind = "finished" if is_whole else "failed"
        last = StreamEvent(kind=kind, run=run, offset=len(pieces), details=details)
        found[job_id] = Ended(run, pieces, last)
    return found
