"""The outbox relay: places dispatches that their submitter has not placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.pools.pools import Pools
from tether.broker.pools.room import max_waiting
from tether.ids import JobId
from tether.jobs import Priority
from tether.loops import next_pause, seconds_until
from tether.orchestrator.context import LoopContext
from tether.orchestrator.lane_reader import LaneReader
from tether.orchestrator.outbox_order import choose_owed
from tether.orchestrator.restored_rows import RestoredRows
from tether.orchestrator.set_aside import FIRST_PAUSE_MS, MAX_PAUSE_MS, FailedEntries
from tether.scheduling.cancellation import Cancellation
from tether.scheduling.reprioritisation import Reprioritisation
from tether.store.end_requests import Request
from tether.store.outbox import (
    RANKS,
    DelayedDispatch,
    DueDispatch,
    OwedDispatch,
    delay_dispatches,
    due_dispatches,
    next_due,
    put_into_lanes,
    strays,
    without_jobs,
)
from tether.store.placements import PlacedDispatch, RecordResult, record_placed
from tether.store.rows import UnreadableRow
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BATCH = 64
"""Hand-overs of a step. Few: what is more urgent waits for the end of the step under way."""

MAX_PASSED_OVER = 8
"""After so many steps in a row that more urgent classes have filled, a class gets a part of one."""

STEP_BYTES = 8_388_608
"""Bytes of Redis that a step fills for a class, but for its last hand-over."""

MAX_PAUSE_SECONDS = 0.1
"""Longest time between two looks for room in Redis, while something is due."""

STRAYS_MS = 1_000
"""Between two looks for rows that stand in no lane."""

TELLING_MS = 300_000
"""Between two lines in the log about a lack of room."""

CLOSED = "Redis has closed the job, and its end is not settled"
NOT_KNOWN = "the outbox owes a hand-over of a job that the database does not know"
HAND_BACK_AFTER = 3
"""Failures after which the outcome of a closed job is requested again: the first one may be lost."""

_Key = tuple[JobId, int]


class _Step(NamedTuple):
    """What a step did for one class.

    Attributes:
      handled: Hand-overs that were placed, ended, or made due later.
      goes_on: Whether there may be more that can be handled at once.
    """

    handled: int
    goes_on: bool


class RelayOutbox:
    """Places due dispatches in the pool in their row: it executes a choice, and makes none.

    The most urgent class comes first, and in each class lanes take turns, as far as Redis has room. None is
    passed over for ever: in Redis a batch job ages, and it must get there for that. What cannot be placed
    becomes due again later, behind the others of its lane.
    """

    def __init__(
        self,
        store: Store,
        pools: Pools,
        ending: Cancellation,
        *,
        now_ms: Callable[[], int],
        has_hook: bool = False,
    ) -> None:
        """
        Args:
          has_hook: Whether there is a hook that is to hear of dead letters.
        """
        self._store = store
        self._pools = pools
        self._ending = ending
        self._restored = RestoredRows(store, pools, ending, has_hook=has_hook)
        self._priorities = Reprioritisation(store, pools)
        self._now_ms = now_ms
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[_Key] = FailedEntries("outbox", self._log)
        self._strays_at = 0
        self._told_at: dict[Priority, int] = {}
        self._lanes = {priority: LaneReader(store, pools, priority) for priority in RANKS}
        self._passed_over: Counter[Priority] = Counter()
        self._pause = 0.0

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        return cls(
            plane.store,
            plane.pools,
            plane.ending,
            now_ms=context.now_ms,
            has_hook=bool(plane.settings.hooks.on_dead),
        )

    def __call__(self) -> float:
        now_ms = self._now_ms()
        self._failed.forget_old(now_ms)
        due_at = self._store.read(next_due)
        if due_at is None or due_at > now_ms:
            self._pause = 0.0
            return seconds_until(due_at, now_ms)
        self._put_strays_into_lanes(now_ms)
        handled, goes_on = 0, False
        for priority in RANKS:
            left = BATCH - handled
            if left <= 0 and self._passed_over[priority] >= MAX_PASSED_OVER:
                left = max(BATCH // MAX_PASSED_OVER, 1)
            if left <= 0:
                self._passed_over[priority] += 1
                continue
            self._passed_over[priority] = 0
            step = self._relay(priority, left, now_ms)
            handled += step.handled
            goes_on |= step.goes_on
        if handled or goes_on:
            self._pause = 0.0
            return 0
        # What is due waits for room, or can neither be placed nor delayed.
        self._pause = next_pause(self._pause, MAX_PAUSE_SECONDS)
        return self._pause

    def _put_strays_into_lanes(self, now_ms: int) -> None:
        """Rows of programs that knew no lanes, or other classes, get into those of their jobs."""
        if now_ms < self._strays_at:
            return
        job_ids = self._store.read(strays, BATCH)
        if job_ids:
            self._store.write_alone(put_into_lanes, job_ids).result()
        if len(job_ids) < BATCH:
            self._strays_at = now_ms + STRAYS_MS

    def _relay(self, priority: Priority, limit: int, now_ms: int) -> _Step:
        """Place what comes first of a class."""
        room = self._pools.room.left(priority)
        lanes = self._lanes[priority]
        heads = lanes.read(now_ms, limit, has_room=room > 0)
        if room <= 0 and lanes.owe_something:
            self._tell_of_no_room(priority, now_ms)
        choice = choose_owed(
            heads,
            # What is more urgent may come while the step lasts.
            room=min(room, STEP_BYTES),
            room_for_few=min(self._pools.room.left_for_few(), STEP_BYTES),
            limit=limit,
            lane_bytes=self._pools.room.lane_bytes,
        )
        refused, stuck = self._carry_out(choice.owed, now_ms) if choice.owed else (set(), set())
        goes_on = lanes.note(choice, refused=refused, stuck=stuck)
        return _Step(len(choice.owed) - len(refused | stuck), goes_on)

    def _tell_of_no_room(self, priority: Priority, now_ms: int) -> None:
        """Say so, now and then: in a long backlog there is no room again and again."""
        if now_ms - self._told_at.get(priority, 0) >= TELLING_MS:
            self._told_at[priority] = now_ms
            self._log.warning(
                "Redis has no room for more jobs of this priority: they wait in the database. In a long "
                "backlog that is as it should be; else look at Redis's maxmemory and at redis.watermark.",
                priority=priority,
            )

    def _carry_out(self, part: Sequence[OwedDispatch], now_ms: int) -> tuple[set[JobId], set[JobId]]:
        """Return those for which there was no room after all, and those that cannot even be delayed."""
        owed = {item.job_id: item for item in part}
        found, unreadable = self._store.read_each(due_dispatches, list(owed))
        rows = {row.job_id: row for row in found}
        # Its submitter may have placed it meanwhile: then it is owed no longer.
        missing = [job_id for job_id in owed if job_id not in rows and job_id not in unreadable]
        orphans = self._store.read(without_jobs, missing) if missing else set()
        delayed: list[DelayedDispatch] = []
        readable: list[DueDispatch] = []
        for job_id, item in owed.items():
            row = rows.get(job_id)
            if isinstance(row, DueDispatch):
                readable.append(row)
            elif isinstance(row, UnreadableRow):
                delayed.append(self._fail(row, row.reason, now_ms))
            elif job_id in unreadable:
                delayed.append(self._fail(item, unreadable[job_id], now_ms))
            elif job_id in orphans:
                delayed.append(self._fail(item, NOT_KNOWN, now_ms))
        delayed += self._end([row for row in readable if row.requested is not None], now_ms)
        refused, more = self._place([row for row in readable if row.requested is None], now_ms)
        delayed += more
        answers = self._store.write_each(delay_dispatches, delayed)
        return refused, {
            item.job_id
            for item, answer in zip(delayed, answers, strict=True)
            if isinstance(answer, Exception)
        }

    def _end(self, rows: list[DueDispatch], now_ms: int) -> list[DelayedDispatch]:
        """End jobs whose end was requested. Return those that cannot end yet."""
        requests = [Request(None, row.job_id, str(row.requested), now_ms) for row in rows]
        open_rows, delayed = [], []
        for row, state in zip(rows, self._ending.end(requests), strict=True):
            if isinstance(state, Exception):
                delayed.append(self._fail(row, state, now_ms))
            elif state is not None and not state.is_final:
                open_rows.append(row)
            else:
                self._succeed(row)
        for row, has_ended in zip(open_rows, self._settle_restored(open_rows, now_ms), strict=True):
            if has_ended is not True:
                # It runs, and ends by its outcome.
                delayed.append(DelayedDispatch(row.job_id, row.dispatch, now_ms + FIRST_PAUSE_MS))
        return delayed

    def _place(self, rows: list[DueDispatch], now_ms: int) -> tuple[set[JobId], list[DelayedDispatch]]:
        """Place dispatches. Return those whose lanes are full, and those that could not be placed."""
        if not rows:
            return set(), []
        placed, known, closed, delayed, refused = [], [], [], [], set[JobId]()
        most = max_waiting(self._pools.room.lane_bytes)
        answers = self._pools.place(
            [Dispatch.of(row.job, row.dispatch, row.pool) for row in rows], max_waiting=lambda _: most
        )
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, Exception):
                delayed.append(self._fail(row, answer, now_ms))
            elif answer is PlaceResult.CLOSED:
                closed.append(row)
            elif answer is PlaceResult.FULL:
                refused.add(row.job_id)
            elif answer is PlaceResult.KNOWN:
                known.append(row)
            else:
                placed.append(row)
        metrics.DISPATCHES_RELAYED.inc(len(placed) + len(known))
        delayed += self._record(placed + self._follow(known, delayed, now_ms), now_ms)
        lost: list[_Key] = []
        for row, has_ended in zip(closed, self._settle_restored(closed, now_ms), strict=True):
            if has_ended is True:
                self._succeed(row)
                continue
            delayed.append(self._fail(row, has_ended or CLOSED, now_ms))
            entry = self._failed.get(_key(row))
            if entry is not None and entry.failures >= HAND_BACK_AFTER:
                lost.append(_key(row))
        if lost:
            # Answers say nothing here: what comes of it is an outcome.
            self._pools.hand_back_many(lost)
        return refused, delayed

    def _follow(
        self, known: Sequence[DueDispatch], delayed: list[DelayedDispatch], now_ms: int
    ) -> list[DueDispatch]:
        """Give hand-overs that somebody else has placed the priorities of their rows, which may have changed
        in between. Return those for which that did not fail."""
        answers = self._priorities.follow([row.job_id for row in known])
        followed = []
        for row in known:
            answer = answers.get(row.job_id)
            if isinstance(answer, Exception):
                delayed.append(self._fail(row, answer, now_ms))
            else:
                followed.append(row)
        return followed

    def _settle_restored(self, rows: Sequence[DueDispatch], now_ms: int) -> list[bool | Exception]:
        return self._restored.settle([_key(row) for row in rows], now_ms)

    def _record(self, rows: Sequence[DueDispatch], now_ms: int) -> list[DelayedDispatch]:
        delayed, outdated = [], []
        placed = [PlacedDispatch(row.job_id, row.dispatch, row.job.priority) for row in rows]
        recorded = self._store.write_each(record_placed, placed)
        for row, result in zip(rows, recorded, strict=True):
            if isinstance(result, Exception):
                delayed.append(self._fail(row, result, now_ms))
            elif result is RecordResult.RECORDED:
                self._succeed(row)
            elif result is RecordResult.OUTDATED:
                outdated.append(row.job_id)
                delayed.append(DelayedDispatch(row.job_id, row.dispatch, now_ms + FIRST_PAUSE_MS))
            else:
                # Not the newest hand-over of its job, or the job has ended: then the row goes with that.
                delayed.append(DelayedDispatch(row.job_id, row.dispatch, now_ms + MAX_PAUSE_MS))
        # The next look at what is owed of these finds whether that failed.
        self._priorities.follow(outdated)
        return delayed

    def _fail(
        self, row: DueDispatch | UnreadableRow | OwedDispatch, error: Exception | str, now_ms: int
    ) -> DelayedDispatch:
        entry = self._failed.fail(_key(row), error, now_ms, job=row.job_id)
        return DelayedDispatch(row.job_id, row.dispatch, entry.due_at)

    def _succeed(self, row: DueDispatch) -> None:
        self._failed.succeed(_key(row), job=row.job_id)


def _key(row: DueDispatch | UnreadableRow | OwedDispatch) -> _Key:
    return row.job_id, row.dispatch
