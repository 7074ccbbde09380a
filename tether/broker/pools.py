"""Pools from the side of the database: what the submitter and the orchestrator do with jobs in Redis."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import redis

from tether.broker.connections import without_retries
from tether.broker.keys import Keys
from tether.broker.lines import Lines
from tether.jobs import JobState, Priority
from tether.telemetry.logs import get_logger

TOMBSTONE_MS = 86_400_000
"""How long Redis remembers of a job that it never had that it must not be placed."""

MOST_LEASES_A_TICK = 1_000

JOBS_A_LOOK = 500
"""Running attempts of which Redis is asked at once whose they are."""

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """One hand-over of a job from the database to Redis.

    Attributes:
      job_id, dispatch: Which.
      pool: Where it waits.
      tenant: Whose it is.
      priority: Its class.
      weight: The tenant's share against others', greater than 0.
      deadline: Milliseconds since the epoch; 0 is none.
      cost: Tokens of the prompt, as far as they are known before an engine has seen it.
      body: What the worker is to do, in JSON.
      lossy: Whether Redis had it before and lost it.
    """

    job_id: str
    dispatch: int
    pool: str
    tenant: str
    priority: Priority
    weight: float
    deadline: int
    cost: int
    body: bytes
    lossy: bool = False


class Placed(StrEnum):
    """What became of a placement.

    Values:
      PLACED: It waits in its pool.
      KNOWN: Redis knows this dispatch, or a newer one.
      CLOSED: The job must not run any more.
      REFUSED: The script failed; others were placed all the same.
    """

    PLACED = "placed"
    KNOWN = "known"
    CLOSED = "closed"
    REFUSED = "refused"


@dataclass(frozen=True)
class Tick:
    """What one tick of the lease loop did.

    Attributes:
      extended: Leases that were extended, since Redis or everybody was away.
      taken: Leases that had run out.
      lost: For each running attempt among those: the worker's boot id, and what became of its job.
    """

    extended: int
    taken: int
    lost: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Known:
    """What Redis knows of a job: its state, dispatch and offset."""

    state: str
    dispatch: int
    offset: int


class Pools:
    """The scripts of pool jobs that are not a worker's. Safe to use from many threads.

    Every method raises ``OUTAGE_ERRORS`` where Redis is away, and can be called again then. It owns its
    connections; :meth:`close` closes them.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.keys = keys
        self.client = without_retries(client)
        self._owns_client = self.client is not client
        self._lines = Lines.like(self.client, keys.leases)
        self._log = get_logger("tether.broker")

    def close(self) -> None:
        """Close the connections."""
        self._lines.close()
        if self._owns_client:
            self.client.close()

    def place(self, dispatches: Sequence[Dispatch]) -> list[Placed]:
        """Let dispatches wait in their pools; all are sent at once."""
        calls = [_arguments(dispatch) for dispatch in dispatches]
        placed = []
        for dispatch, answer in zip(
            dispatches, self._lines.run_many("pool/place", calls, keeps_errors=True), strict=True
        ):
            if isinstance(answer, Exception):
                self._log.error("A job cannot be placed.", job=dispatch.job_id, error=str(answer))
                placed.append(Placed.REFUSED)
            else:
                placed.append(Placed(answer.decode()))
        return placed

    def cancel(self, job_id: str, kind: JobState) -> str:
        """Ask for a job's end: ``closed``, ``running`` or the state in which it had ended before."""
        return self.cancel_many([(job_id, kind)])[0]

    def cancel_many(self, jobs: Sequence[tuple[str, JobState]]) -> list[str]:
        """Ask for the end of jobs, each ``cancelled`` or ``expired``; see :meth:`cancel`."""
        answers = self._lines.run_many("pool/cancel", [(job_id, kind, TOMBSTONE_MS) for job_id, kind in jobs])
        return [answer.decode() for answer in answers]

    def hand_back(self, job_id: str, dispatch: int) -> str:
        """Write the outcome of a dispatch that has ended once more: the first was never settled."""
        return str(self._lines.run("pool/withdraw", job_id, dispatch, "again").decode())

    def withdraw(self, job_id: str, dispatch: int, *, running: bool) -> str:
        """Take a dispatch, or an older one, out of Redis; ``running`` ones only where that is wanted."""
        return str(self._lines.run("pool/withdraw", job_id, dispatch, int(running)).decode())

    def seal(self, job_id: str, state: JobState, life_ms: int, *, code: str = "") -> None:
        """Write the final state that the database has committed."""
        self.seal_many([(job_id, state, code)], life_ms)

    def seal_many(
        self, jobs: Sequence[tuple[str, JobState, str]], life_ms: int, why: Mapping[str, str] = NOTHING
    ) -> None:
        """Write the final states (job, state, error code or empty) that the database has committed.

        Args:
          why: What to tell of the error of a job, by the job's id, where something is known.
        """
        calls: list[tuple[bytes | str | float, ...]] = []
        for job_id, state, code in jobs:
            told = {"state": state, "code": code or state}
            if why.get(job_id):
                told["message"] = why[job_id]
            calls.append((job_id, state, life_ms, json.dumps(told)))
        self._lines.run_many("pool/seal", calls)

    def tick(self, lease_ms: int, batch_age_ms: int) -> Tick:
        """One tick of the lease loop."""
        answer = self._lines.run("pool/expire", lease_ms, batch_age_ms, MOST_LEASES_A_TICK)
        lost = [(answer[i].decode(), answer[i + 1].decode()) for i in range(2, len(answer), 2)]
        return Tick(answer[0], answer[1], tuple(lost))

    def take_from_revoked(self, workers: Collection[str]) -> list[tuple[str, str]]:
        """Take running attempts from these workers, whose keys were revoked in Redis before.

        Args:
          workers: Their ids, without a boot counter.

        Returns:
          For each attempt the worker's boot id, and what became of its job.
        """
        taken: list[tuple[str, str]] = []
        if not workers:
            return taken
        jobs = (
            member[2:].decode()
            for member, _ in self.client.zscan_iter(self.keys.leases, count=JOBS_A_LOOK)
            if member.startswith(b"j ")
        )
        while some := list(itertools.islice(jobs, JOBS_A_LOOK)):
            pipeline = self.client.pipeline(transaction=False)
            for job_id in some:
                pipeline.hget(self.keys.job(job_id), "worker")
            theirs = [
                job_id
                for job_id, worker in zip(some, pipeline.execute(), strict=True)
                if worker is not None and worker.decode().partition(".")[0] in workers
            ]
            answer = self._lines.run("pool/revoke", *theirs) if theirs else []
            taken += [(answer[i].decode(), answer[i + 1].decode()) for i in range(0, len(answer), 2)]
        return taken

    def known(self, job_ids: Sequence[str]) -> list[Known | None]:
        """What Redis knows of jobs."""
        return known_jobs(self.client, self.keys, job_ids)


def known_jobs(client: redis.Redis, keys: Keys, job_ids: Sequence[str]) -> list[Known | None]:
    """What Redis knows of jobs, asked by this client.

    Raises:
      OUTAGE_ERRORS: It is away.
    """
    pipeline = client.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.hmget(keys.job(job_id), "state", "dispatch", "offset")
    return [
        Known(state.decode(), int(dispatch or 0), int(offset or 0)) if state else None
        for state, dispatch, offset in pipeline.execute()
    ]


def _arguments(dispatch: Dispatch) -> tuple[bytes | str | float, ...]:
    return (
        *(dispatch.job_id, dispatch.dispatch, dispatch.pool, dispatch.tenant, dispatch.priority),
        *(dispatch.weight, dispatch.deadline, dispatch.cost, dispatch.body, int(dispatch.lossy)),
    )
