"""One reader of all streams that a process follows: one thread and one connection, however many they are."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import uuid4

import redis
import structlog

from tether.broker.keys import Keys
from tether.broker.redis.connections import OUTAGE_ERRORS, is_wrong_type, without_retries
from tether.client.forks import check_process
from tether.client.lifetime import closed
from tether.core.stream_hub.archive import Archive, ArchiveThread
from tether.core.stream_hub.followed import FollowedStreams
from tether.core.stream_hub.follower import StreamFollower
from tether.core.stream_hub.watch import Entry, StreamWatch
from tether.ids import JobId
from tether.loops import IDLE, Loop
from tether.streams.events import Deliver, check_offset
from tether.streams.reader import StreamPosition

RING_SECONDS = 1.0
"""Time limit of a ring."""

WAIT_SECONDS = 0.5
"""How long one wait for news takes."""

CHECK_SECONDS = 2.0
"""After so long without news the connection is asked whether it lives: one that died silently brings none."""

LOOK_SECONDS = 0.5
"""Between two looks at who heard nothing for long: with many followers each takes a while."""

REST_SECONDS = 0.2
"""Pause after an outage."""

ARCHIVE_SECONDS = 0.5
"""How long the database's answer is waited for before Redis is tried again."""

MAX_ENTRIES = 512
"""Entries of one stream in one read."""

MAX_STREAMS = 256
"""Streams in one read."""

WAKE_LIFE_MS = 60_000


class StreamHub:
    """Follows streams. It owns the thread ``tether-streams``, that of its
    :class:`~tether.core.stream_hub.archive.ArchiveThread` and its connections, until :meth:`close`.

    A stream that Redis lost is read on from the offset that was delivered, and from the database once the
    job has ended.

    Attributes:
      loop: That of the thread ``tether-streams``.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        archive: Archive,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = StreamWatch(client)
        # Callers ring: they shall not wait for a Redis that hangs.
        self._client = without_retries(
            client, socket_timeout=RING_SECONDS, socket_connect_timeout=RING_SECONDS
        )
        self._owns_client = self._client is not client
        self._rings_from = 0.0
        self._archive = ArchiveThread(archive, on_answer=self._ring)
        self._clock = clock
        self._process = os.getpid()
        self._bell = keys.hub(uuid4().hex).encode()
        self._bell_is_read = False
        self._checked_at = 0.0
        self._streams = FollowedStreams(keys.stream)
        self._look_at = 0.0
        self._failure_is_known = False
        self._is_cut_off = False
        self._spared_until = math.inf
        self._lock = threading.Lock()
        self._followers: dict[StreamFollower, None] = {}
        self._arrived: deque[StreamFollower] = deque()
        self._left: deque[StreamFollower] = deque()
        self._late: list[StreamFollower] = []
        self._log = structlog.stdlib.get_logger("tether.client")
        self.loop = Loop(
            "streams",
            self._step,
            at_end=self._watch.close,
            max_pause_seconds=REST_SECONDS,
            log=self._log,
        )

    def follow(
        self, job_id: JobId, offset: int, deliver: Deliver, *, run: int = 0, has_ended: bool = False
    ) -> StreamFollower:
        """Deliver a job's events from token ``offset`` of ``run`` on.

        Args:
          has_ended: Whether the database has the job's end. What Redis no longer has of it comes from there
            at once; else only after :data:`~tether.core.stream_hub.followed.SILENCE_SECONDS`.

        Raises:
          InvalidRequest: The offset is not possible.
          ClientClosed: The hub was closed, or belongs to the process that this one was forked from.
        """
        check_offset(offset)
        check_process(self._process)
        place = StreamPosition(offset, run)
        follower = StreamFollower(self, job_id, deliver, place, heard_at=self._clock(), has_ended=has_ended)
        follower.rewind()
        with self._lock:
            if self.loop.is_stopping:
                raise closed()
            self._followers[follower] = None
            self._arrived.append(follower)
            self.loop.start()
        self._ring()
        return follower

    def drop(self, follower: StreamFollower) -> None:
        """Deliver nothing more to a follower. A second call does nothing."""
        follower.closed = True
        with self._lock:
            if follower in self._followers:
                del self._followers[follower]
                self._left.append(follower)

    def close(self) -> None:
        """End the threads, tell who still follows, and close the connections. May be repeated."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self.loop.ask_to_stop()
        self._ring()
        self.loop.stop()
        with self._lock:
            followers = list(self._followers)
            self._followers.clear()
        for follower in followers:
            follower.give_up(closed())
        self._archive.close()
        if self._owns_client:
            self._client.close()

    def _ring(self) -> None:
        """Let the thread see what changed: it watches a stream of its own too."""
        self.loop.wake()
        if self._clock() < self._rings_from:
            return
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.xadd(self._bell, {"v": 1}, maxlen=1, approximate=False)
            pipeline.pexpire(self._bell, WAKE_LIFE_MS)
            pipeline.execute()
        except redis.RedisError:
            # It finds out by itself when its wait ends.
            self._rings_from = self._clock() + CHECK_SECONDS

    def _step(self) -> float:
        self._take_changes()
        if not self._streams:
            return IDLE
        if self._is_cut_off and self._late:
            # Redis would be waited for again, and the database has all that these need. Others wait for
            # Redis: it is tried in time, however many come.
            now = self._clock()
            self._spared_until = min(self._spared_until, now + ARCHIVE_SECONDS)
            if now < self._spared_until:
                self._ask_late()
                return self._spared_until - now
        self._spared_until = math.inf
        try:
            self._read()
            self._failure_is_known = self._is_cut_off = False
        except redis.RedisError as error:
            if not isinstance(error, OUTAGE_ERRORS) and not self._failure_is_known:
                self._log.exception("Redis rejects reads of streams. Retrying.")
                self._failure_is_known = True
            self._watch.close()
            self._streams.rewind()
            self._bell_is_read = False
            self._is_cut_off = True
            self._ask_late()
            self.loop.rest(REST_SECONDS)
        # Redis was read first: it may still have the stream, with all its events.
        self._ask_late()
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._archive.ask(self._streams.silent(now))
        return 0

    def _ask_late(self) -> None:
        if self._late:
            self._archive.ask([follower.job_id for follower in self._late if not follower.closed])
            self._late.clear()

    def _take_changes(self) -> None:
        while self._arrived:
            follower = self._arrived.popleft()
            self._streams.add(follower)
            if follower.has_ended:
                self._late.append(follower)
        while self._left:
            self._streams.remove(self._left.popleft())
        for job_id, ended in self._archive.take().items():
            self._forget(self._streams.hand_on_ended(job_id, ended))

    def _read(self) -> None:
        """Read what has changed; wait for that where nothing has."""
        cursors = self._streams.take_changed(MAX_STREAMS)
        if not cursors and self._bell_is_read and self._clock() - self._checked_at < CHECK_SECONDS:
            self._note(self._watch.wait(WAIT_SECONDS))
            return
        # Its entry is read again each time, and says nothing: that it was written is what wakes.
        try:
            answer = self._watch.read({**cursors, self._bell: "0"}, MAX_ENTRIES)
        except redis.ResponseError as error:
            if not is_wrong_type(error):
                raise
            answer = self._read_apart(cursors)
        self._bell_is_read = True
        now = self._checked_at = self._clock()
        for key in cursors:
            entries = answer.get(key, ())
            if entries:
                self._forget(self._streams.hand_on(key, entries, now))
            if len(entries) >= MAX_ENTRIES:
                self._streams.note_changed((key,))

    def _read_apart(self, cursors: Mapping[bytes, str]) -> dict[bytes, Sequence[Entry]]:
        """One of the keys is no stream: the others must not suffer."""
        answer = self._watch.read({self._bell: "0"}, MAX_ENTRIES)
        for key, cursor in cursors.items():
            try:
                answer.update(self._watch.read({key: cursor}, MAX_ENTRIES))
            except redis.ResponseError as error:
                if not is_wrong_type(error):
                    raise
                self._streams.hold_back(key, self._clock())
        return answer

    def _note(self, changed: set[bytes] | None) -> None:
        if changed is None:
            self._streams.note_all_changed()
            self._bell_is_read = False
        else:
            self._bell_is_read = self._bell not in changed
            self._streams.note_changed(changed)

    def _forget(self, followers: Iterable[StreamFollower]) -> None:
        with self._lock:
            for follower in followers:
                self._followers.pop(follower, None)
