"""One reader of all streams that a process follows: one thread and one connection, however many they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import redis
import structlog

from tether.broker.connections import OUTAGE_ERRORS, without_retries
from tether.broker.keys import Keys
from tether.client.backend import StreamEvent
from tether.errors import StoreUnavailable
from tether.jobs import Piece
from tether.token_log import RUN_STEP, Event, new_part, read_events

BLOCK_MS = 500
"""How long one read waits for news."""

SILENCE_SECONDS = 1.0
"""After so long without an event, the database is asked whether the job has ended."""

REST_SECONDS = 0.2
"""Pause after an outage."""

MOST_ENTRIES = 512
"""Entries of one stream in one read."""

WAKE_LIFE_MS = 60_000


@dataclass(frozen=True)
class Ended:
    """What the database holds of a job that ended: its tokens and its last event."""

    run: int
    pieces: tuple[Piece, ...]
    last: StreamEvent


class Archive(Protocol):
    """Where streams are read that Redis no longer has."""

    def ended(self, job_ids: Sequence[str]) -> Mapping[str, Ended]:
        """Those of the jobs that have ended."""


@dataclass(eq=False)
class Follower:
    """One subscription. The hub's thread alone changes it, but for ``closed``.

    Attributes:
      run, offset: What was delivered: tokens of that run.
      cursor: Id of the last entry that was read.
      heard_at: When something was delivered, or it began; seconds of the hub's clock.
      waits_until: It is not read before: tokens are missing in its stream, and may come from the database.
    """

    hub: StreamHub
    job_id: str
    deliver: Callable[[StreamEvent], None]
    offset: int
    run: int = 0
    cursor: str = "0"
    heard_at: float = 0.0
    waits_until: float = 0.0
    closed: bool = field(default=False)

    def close(self) -> None:
        """Deliver no more."""
        self.hub.drop(self)

    def rewind(self) -> None:
        """Read again from what was delivered: events there may come twice, tokens do not."""
        self.cursor = f"{self.run * RUN_STEP + self.offset}-0"

    def take(self, event: Event) -> bool:
        """Deliver what is new in an event. Answers False where tokens before it are missing."""
        self.cursor = event.entry_id
        if event.run < self.run:
            return True
        if event.run > self.run:
            self.run = event.run
            if event.kind != "restarted":
                # The entry that told of the restart is gone with what Redis lost.
                self.offset = 0
                self._pass_on(StreamEvent(kind="restarted", run=event.run, offset=0))
        if event.kind == "restarted":
            self.offset = event.offset
            self._pass_on(StreamEvent(kind="restarted", run=event.run, offset=event.offset))
        elif event.kind == "delta":
            pieces = new_part(event, self.offset)
            if event.offset - len(pieces) > self.offset:
                return False
            if pieces:
                self.offset = event.offset
                self._pass_on(StreamEvent(kind="delta", run=event.run, offset=event.offset, pieces=pieces))
        elif event.is_last and event.kind == "finished" and event.offset > self.offset:
            return False
        else:
            self._pass_on(
                StreamEvent(kind=event.kind, run=event.run, offset=event.offset, details=event.details())
            )
        return True

    def take_ended(self, ended: Ended) -> None:
        """Deliver what is missing, from the database."""
        if ended.run > self.run:
            self.run, self.offset = ended.run, 0
            self._pass_on(StreamEvent(kind="restarted", run=ended.run, offset=0))
        missing = ended.pieces[self.offset :]
        if missing:
            self.offset = len(ended.pieces)
            self._pass_on(StreamEvent(kind="delta", run=self.run, offset=self.offset, pieces=missing))
        self._pass_on(ended.last)

    def _pass_on(self, event: StreamEvent) -> None:
        if not self.closed:
            if event.is_last:
                self.closed = True
            self.deliver(event)


class StreamHub:
    """Follows streams. It owns the thread ``tether-streams`` and its connections, until :meth:`close`.

    A stream that Redis lost is read on from the offset that was delivered, and from the database once the
    job has ended.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        archive: Archive,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = without_retries(client)
        self._owns_client = self._client is not client
        self._keys = keys
        self._archive = archive
        self._clock = clock
        self._bell = f"{keys.prefix}:hub:{uuid4().hex}"
        self._bell_cursor = "0"
        self._lock = threading.Lock()
        self._followers: dict[Follower, None] = {}
        self._changed = threading.Event()
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = structlog.stdlib.get_logger("tether.client")

    def follow(self, job_id: str, offset: int, deliver: Callable[[StreamEvent], None]) -> Follower:
        """Deliver a job's events from token ``offset`` on."""
        follower = Follower(self, job_id, deliver, offset, heard_at=self._clock())
        follower.rewind()
        with self._lock:
            self._followers[follower] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tether-streams", daemon=True)
                self._thread.start()
        self._ring()
        return follower

    def drop(self, follower: Follower) -> None:
        follower.closed = True
        with self._lock:
            self._followers.pop(follower, None)

    def close(self) -> None:
        """End the thread and close the connections."""
        self._is_stopping.set()
        self._ring()
        if self._thread is not None:
            self._thread.join()
        if self._owns_client:
            self._client.close()

    def _ring(self) -> None:
        """Let the thread see what changed: it blocks on a stream of its own too."""
        self._changed.set()
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.xadd(self._bell, {"v": 1}, maxlen=1, approximate=False)
            pipeline.pexpire(self._bell, WAKE_LIFE_MS)
            pipeline.execute()
        except OUTAGE_ERRORS:
            # It finds out by itself when its read ends.
            return

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            self._changed.clear()
            with self._lock:
                followers = list(self._followers)
            try:
                if not followers:
                    self._changed.wait()
                    continue
                self._read(followers)
            except OUTAGE_ERRORS:
                for follower in followers:
                    follower.rewind()
                self._is_stopping.wait(REST_SECONDS)
            except Exception:
                self._log.exception("Reading streams failed. Going on.")
                self._is_stopping.wait(REST_SECONDS)
            self._ask_archive(followers)
            for follower in [follower for follower in followers if follower.closed]:
                self.drop(follower)

    def _read(self, followers: Sequence[Follower]) -> None:
        by_key: dict[str, list[Follower]] = {}
        begun = self._clock()
        for follower in followers:
            if follower.waits_until > begun:
                continue
            by_key.setdefault(self._keys.stream(follower.job_id), []).append(follower)
        cursors: dict[Any, Any] = {
            key: min((f.cursor for f in of_key), key=_order) for key, of_key in by_key.items()
        }
        cursors[self._bell] = self._bell_cursor
        answer: Any = self._client.xread(cursors, count=MOST_ENTRIES, block=BLOCK_MS) or []
        now = self._clock()
        for key, entries in answer:
            if key.decode() == self._bell:
                self._bell_cursor = entries[-1][0].decode()
                continue
            for follower in by_key[key.decode()]:
                if self._hand_on(follower, read_events(entries)):
                    follower.heard_at = now
                else:
                    follower.waits_until = now + SILENCE_SECONDS

    def _hand_on(self, follower: Follower, events: Sequence[Event]) -> bool:
        """Deliver events. Answers False where tokens before one of them are missing."""
        for event in events:
            if follower.closed:
                return True
            if _order(event.entry_id) > _order(follower.cursor) and not follower.take(event):
                follower.rewind()
                return False
        return True

    def _ask_archive(self, followers: Sequence[Follower]) -> None:
        now = self._clock()
        silent = [f for f in followers if not f.closed and now - f.heard_at >= SILENCE_SECONDS]
        for follower in silent:
            follower.heard_at = now
        if not silent:
            return
        try:
            ended = self._archive.ended([follower.job_id for follower in silent])
        except StoreUnavailable:
            return
        for follower in silent:
            if follower.job_id in ended:
                follower.take_ended(ended[follower.job_id])


def _order(entry_id: str) -> tuple[int, int]:
    first, _, second = entry_id.partition("-")
    return int(first), int(second or 0)
