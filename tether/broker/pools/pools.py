"""Pools from the side of the database: what the submitter and the orchestrator do with jobs in Redis."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from tether.broker.keys import Keys
from tether.broker.pools.cancel_results import CancelResult
from tether.broker.pools.dispatches import Dispatch, PlaceResult, place_arguments, read_place_result
from tether.broker.pools.known_jobs import KnownJob, known_jobs
from tether.broker.pools.lane_moves import MOVED_LANE_SHARE, LaneMove, MoveResult
from tether.broker.pools.room import LANE_BYTES, WATERMARK, RedisRoom, max_waiting
from tether.broker.pools.waiting_lanes import LaneKey, LaneLoad, LanePlace
from tether.broker.redis.connections import RefusedForNow, each_answer, without_retries
from tether.broker.redis.raw_connections import RawConnections
from tether.broker.scripts import Argument, rows
from tether.ids import BootId, JobId, PoolName, WorkerId, worker_of
from tether.jobs import JobError, JobState
from tether.streams.events import failure_details
from tether.streams.token_log import StreamedTokens, streamed_tokens
from tether.telemetry.logs import get_logger

TOMBSTONE_MS = 86_400_000
"""TTL of a tombstone: of a job that Redis never had, and that must not be placed."""

MAX_LEASES_PER_TICK = 1_000

JOBS_PER_LOOK = 500
"""Running attempts of which Redis is asked at once whose they are."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class LeaseTick:
    """Result of one tick of the lease loop.

    Attributes:
      extended: Leases that were extended, since Redis or all workers were unavailable.
      taken: Leases that had expired.
      lost: For each running attempt among those: the worker's boot id, and what became of its job.
    """

    extended: int
    taken: int
    lost: tuple[tuple[BootId, str], ...]


def _any_number(dispatch: Dispatch) -> int:
    return 0


class Pools:
    """The scripts of pool jobs that workers do not use. Thread-safe.

    Every method raises ``OUTAGE_ERRORS`` if Redis is unavailable, and can be retried then. Methods that take
    several jobs return an error in the place of each job that failed, and the others are unaffected. It owns
    its connections; :meth:`close` closes them.

    Attributes:
      room: How much more may be placed.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        *,
        watermark: float = WATERMARK,
        lane_bytes: int = LANE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          watermark, lane_bytes: See :class:`~tether.broker.pools.room.RedisRoom`.
        """
        self.keys = keys
        self.client = without_retries(client)
        self.room = RedisRoom(self.client, watermark=watermark, lane_bytes=lane_bytes, clock=clock)
        self._owns_client = self.client is not client
        self._lines = RawConnections.like(self.client, keys.leases)
        self._log = get_logger("tether.broker")

    def close(self) -> None:
        """Close the connections."""
        self._lines.close()
        if self._owns_client:
            self.client.close()

    def place(
        self, dispatches: Sequence[Dispatch], *, max_waiting: Callable[[Dispatch], int] = _any_number
    ) -> list[PlaceResult | Exception]:
        """Queue dispatches in their pools; all are sent in one pipeline.

        Args:
          max_waiting: How many jobs may wait in a dispatch's lane before it; 0 is any number.
        """
        calls = [place_arguments(each, max_waiting(each)) for each in dispatches]
        try:
            answers = self._run_each("pool/place", calls, read_place_result)
        except RefusedForNow:
            self.room.note_refused()
            raise
        for dispatch, answer in zip(dispatches, answers, strict=True):
            if answer is PlaceResult.PLACED:
                self.room.note_placed(len(dispatch.body))
        return answers

    def waiting(self, lanes: Sequence[LaneKey]) -> list[LaneLoad]:
        """What waits in lanes, at most 256 of them."""
        answer = self._lines.run("pool/waiting", *itertools.chain.from_iterable(lanes))
        return [LaneLoad(jobs, size) for jobs, size in rows(answer, 2)]

    def cancel_many(self, jobs: Sequence[tuple[JobId, JobState]]) -> list[CancelResult | Exception]:
        """Request the end of jobs, each ``cancelled`` or ``expired``."""
        calls = [(job_id, kind, TOMBSTONE_MS, "any") for job_id, kind in jobs]
        return self._run_each("pool/cancel", calls, CancelResult)

    def expire_unbegun_many(self, jobs: Sequence[tuple[JobId, bool]]) -> list[CancelResult | Exception]:
        """End jobs as expired that no worker has begun: each with whether Redis should have it, and nothing
        can be said of it where Redis has not."""
        calls = [
            (job_id, JobState.EXPIRED, TOMBSTONE_MS, "waiting" if is_placed else "unbegun")
            for job_id, is_placed in jobs
        ]
        return self._run_each("pool/cancel", calls, CancelResult)

    def reprioritise_many(self, moves: Sequence[LaneMove]) -> list[MoveResult | Exception]:
        """Give jobs the priorities that the database has of them."""
        most = MOVED_LANE_SHARE * max_waiting(self.room.lane_bytes)
        calls = [(move.job_id, move.dispatch, move.priority, most) for move in moves]
        return self._run_each("pool/reprioritise", calls, MoveResult)

    def hand_back_many(self, jobs: Sequence[tuple[JobId, int]]) -> list[str | Exception]:
        """For each (job id, dispatch) that has ended, write its outcome once more: the first was never
        settled."""
        calls = [(job_id, dispatch, "again") for job_id, dispatch in jobs]
        return self._run_each("pool/withdraw", calls, str)

    def withdraw_many(self, jobs: Sequence[tuple[JobId, int]], *, running: bool) -> list[str | Exception]:
        """Remove each (job id, dispatch), or an older dispatch of it, from Redis; one that is running only
        with ``running``."""
        calls = [(job_id, dispatch, int(running)) for job_id, dispatch in jobs]
        return self._run_each("pool/withdraw", calls, str)

    def seal_many(
        self, jobs: Sequence[tuple[JobId, JobState, JobError | None]], life_ms: int
    ) -> list[str | Exception]:
        """Write the final states that the database has committed, each with why it failed, if it did.

        The less memory Redis has left, the sooner it forgets them: what ended makes room for what waits.

        Args:
          life_ms: For how long Redis remembers them.
        """
        if jobs:
            life_ms = self.room.life_of_ended(life_ms)
        calls = [
            (job_id, state, life_ms, json.dumps(failure_details(state, error)))
            for job_id, state, error in jobs
        ]
        return self._run_each("pool/seal", calls, str)

    def disown_many(self, job_ids: Sequence[JobId], grace_ms: int, life_ms: int) -> list[str | Exception]:
        """Note jobs that the database does not know, and end those that were noted ``grace_ms`` ago. What is
        left of them goes after ``life_ms``."""
        return self._run_each("pool/disown", [(job_id, grace_ms, life_ms) for job_id in job_ids], str)

    def tidy(self, kind: str, *arguments: Argument) -> tuple[int, int]:
        """Remove from one key beside the jobs what has no owner any more; ``pool/tidy.lua`` has the kinds.

        Returns:
          How many were removed, and how many were looked at.

        Raises:
          redis.ResponseError: The key is of another type than ours.
        """
        removed, seen = self._lines.run("pool/tidy", kind, *arguments)
        return removed, seen

    def tidy_lists(self, places: Sequence[LanePlace], count: int) -> list[tuple[int, int] | Exception]:
        """Remove entries of jobs that do not wait there any more, from ``count`` of each of these lists.

        Returns:
          For each how many were removed, and how many were looked at.
        """
        calls = [
            ("list", place.pool, place.waiting_class, place.tenant_bytes, place.start, count)
            for place in places
        ]
        answers = self._lines.run_many("pool/tidy", calls)
        return [answer if isinstance(answer, Exception) else (answer[0], answer[1]) for answer in answers]

    def named(self) -> set[PoolName]:
        """The pools in which jobs wait, and some that were just emptied.

        Raises:
          redis.ResponseError: The key is of another type than ours.
        """
        found: Any = self.client.smembers(self.keys.pools)
        return {PoolName(name.decode(errors="replace")) for name in found}

    def name_pool(self, pool: PoolName) -> None:
        """Name a pool among those with waiting jobs, where it is lost."""
        self._lines.run("pool/name_pool", pool)

    def paused(self) -> set[PoolName]:
        """The pools from which nobody draws.

        Raises:
          redis.ResponseError: The key is of another type than ours.
        """
        found: Any = self.client.smembers(self.keys.paused)
        return {PoolName(name.decode(errors="replace")) for name in found}

    def set_paused(self, pools: Collection[PoolName]) -> tuple[int, int]:
        """Let nobody draw from these pools, and from all others again: their waiting workers are woken.

        Returns:
          How many pools were paused by that, and how many resumed.
        """
        paused, resumed = self._lines.run("pool/set_paused", *sorted(pools))
        return paused, resumed

    def run_script(self, name: str, *arguments: Argument) -> Any:
        """Run a script, and return its reply."""
        return self._lines.run(name, *arguments)

    def _run_each(
        self, name: str, calls: Sequence[tuple[Argument, ...]], read: Callable[[str], _Answer]
    ) -> list[_Answer | Exception]:
        return [_read_answer(answer, read) for answer in self._lines.run_many(name, calls)]

    def tick(
        self, lease_ms: int, batch_age_ms: int, standard_age_ms: int = 0, standard_share: float = 0.0
    ) -> LeaseTick:
        """One tick of the lease loop.

        Args:
          lease_ms: Life of a lease.
          batch_age_ms: Age from which batch jobs count as standard ones.
          standard_age_ms: Age from which standard jobs are late, and no longer wait for all interactive ones.
          standard_share: Their share of a pool then, below 1; 0: they always wait.
        """
        per_mille = round(1_000 * standard_share)
        ages = batch_age_ms, MAX_LEASES_PER_TICK, standard_age_ms, per_mille
        answer = self._lines.run("pool/expire", lease_ms, *ages)
        extended, taken, *lost = answer
        return LeaseTick(extended, taken, tuple(_taken_attempts(lost)))

    def take_from_revoked(self, workers: Collection[WorkerId]) -> list[tuple[BootId, str]]:
        """Take running attempts from these workers, whose keys were revoked in Redis before.

        Args:
          workers: Their ids, without a boot counter.

        Returns:
          For each attempt the worker's boot id, and what became of its job.
        """
        taken: list[tuple[BootId, str]] = []
        if not workers:
            return taken
        jobs = (
            JobId(member[2:].decode(errors="replace"))
            for member, _ in self.client.zscan_iter(self.keys.leases, count=JOBS_PER_LOOK)
            if member.startswith(b"j ")
        )
        while some := list(itertools.islice(jobs, JOBS_PER_LOOK)):
            pipeline = self.client.pipeline(transaction=False)
            for job_id in some:
                pipeline.hget(self.keys.job(job_id), "worker")
            theirs = [
                job_id
                for job_id, boot_id in zip(some, each_answer(pipeline), strict=True)
                if isinstance(boot_id, bytes)
                and worker_of(BootId(boot_id.decode(errors="replace"))) in workers
            ]
            # One job a call: what fails for one takes no other from them.
            for job_id, answer in zip(
                theirs, self._lines.run_many("pool/revoke", [(job_id,) for job_id in theirs]), strict=True
            ):
                if isinstance(answer, Exception):
                    self._log.error("A job cannot be taken.", job=job_id, error=str(answer))
                else:
                    taken += _taken_attempts(answer)
        return taken

    def known(self, job_ids: Sequence[JobId]) -> list[KnownJob | Exception | None]:
        """What Redis knows of jobs."""
        return known_jobs(self.client, self.keys, job_ids)

    def streamed(self, job_ids: Sequence[JobId]) -> list[StreamedTokens | Exception]:
        """The tokens that the streams of jobs hold, whatever became of the jobs."""
        pipeline = self.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.xrange(self.keys.stream(job_id))
        return [
            answer if isinstance(answer, Exception) else streamed_tokens(answer)
            for answer in each_answer(pipeline)
        ]

    def set_aside(self) -> dict[str, str]:
        """What scripts could not read and set aside: ids of jobs, or entries of lists, and which script found
        each. The least that is to be done is to look whether the database still has the job in Redis."""
        found: Any = self.client.hgetall(self.keys.set_aside)
        return {
            name.decode(errors="surrogateescape"): where.decode(errors="replace")
            for name, where in found.items()
        }

    def forget_set_aside(self, names: Iterable[str]) -> None:
        """What was set aside has been looked at."""
        self.client.hdel(self.keys.set_aside, *(name.encode(errors="surrogateescape") for name in names))


def _read_answer(answer: bytes | Exception, read: Callable[[str], _Answer]) -> _Answer | Exception:
    if isinstance(answer, Exception):
        return answer
    try:
        return read(answer.decode())
    except ValueError as error:
        return error


def _taken_attempts(answer: Iterable[bytes]) -> list[tuple[BootId, str]]:
    """For each attempt that was taken from a worker its boot id, and what became of its job."""
    return [(BootId(boot_id.decode()), became.decode()) for boot_id, became in rows(answer, 2)]
