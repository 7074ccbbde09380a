"""One reader of all streams that a process follows: one thread and one connection, however many they are."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from uuid import uuid4

import redis
import structlog

from tether.broker.connections import OUTAGE_ERRORS, without_retries
from tether.broker.keys import Keys
from tether.client.backend import Deliver, check_offset, check_process
from tether.client.followed_streams import FollowedStreams
from tether.client.follower import Follower
from tether.client.stream_archive import Archive, ArchiveThread
from tether.client.stream_watch import StreamWatch
from tether.errors import ClientClosed

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

MOST_ENTRIES = 512
"""Entries of one stream in one read."""

MOST_STREAMS = 256
"""Streams in one read."""

WAKE_LIFE_MS = 60_000


class StreamHub:
    """Follows streams. It owns the thread ``tether-streams``, that of its
    :class:`~tether.client.stream_archive.ArchiveThread` and its connections, until :meth:`close`.

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
        self._bell = f"{keys.prefix}:hub:{uuid4().hex}".encode()
        self._bell_is_read = False
        self._checked_at = 0.0
        self._streams = FollowedStreams(keys.stream)
        self._look_at = 0.0
        self._failure_is_known = False
        self._lock = threading.Lock()
        self._followers: dict[Follower, None] = {}
        self._arrived: deque[Follower] = deque()
        self._left: deque[Follower] = deque()
        self._changed = threading.Event()
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = structlog.stdlib.get_logger("tether.client")

    def follow(self, job_id: str, offset: int, deliver: Deliver, *, run: int = 0) -> Follower:
        """Deliver a job's events from token ``offset`` of ``run`` on.

        Raises:
          InvalidRequest: The offset is not possible.
          ClientClosed: The hub was closed, or belongs to the process that this one was forked from.
        """
        check_offset(offset)
        check_process(self._process)
        follower = Follower(self, job_id, deliver, offset, run, heard_at=self._clock())
        follower.rewind()
        with self._lock:
            if self._is_stopping.is_set():
                raise _closed()
            self._followers[follower] = None
            self._arrived.append(follower)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tether-streams", daemon=True)
                self._thread.start()
        self._ring()
        return follower

    def drop(self, follower: Follower) -> None:
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
            self._is_stopping.set()
        self._ring()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            followers = list(self._followers)
            self._followers.clear()
        for follower in followers:
            follower.give_up(_closed())
        self._archive.close()
        self._watch.close()
        if self._owns_client:
            self._client.close()

    def _ring(self) -> None:
        """Let the thread see what changed: it watches a stream of its own too."""
        self._changed.set()
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

    def _run(self) -> None:
        while True:
            # In this order: what changes after the look wakes the wait.
            self._changed.clear()
            if self._is_stopping.is_set():
                return
            try:
                self._step()
            except Exception:
                self._log.exception("Reading streams failed. Going on.")
                self._is_stopping.wait(REST_SECONDS)

    def _step(self) -> None:
        self._take_changes()
        if not self._streams:
            self._changed.wait()
            return
        try:
            self._read()
            self._failure_is_known = False
        except redis.RedisError as error:
            if not isinstance(error, OUTAGE_ERRORS) and not self._failure_is_known:
                self._log.exception("Redis refuses to let streams be read. Trying on.")
                self._failure_is_known = True
            self._watch.close()
            self._streams.rewind()
            self._bell_is_read = False
            self._is_stopping.wait(REST_SECONDS)
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._archive.ask(self._streams.silent(now))

    def _take_changes(self) -> None:
        while self._arrived:
            self._streams.add(self._arrived.popleft())
        while self._left:
            self._streams.remove(self._left.popleft())
        for job_id, ended in self._archive.take().items():
            self._forget(self._streams.hand_on_ended(job_id, ended))

    def _read(self) -> None:
        """Read what has changed; wait for that where nothing has."""
        cursors = self._streams.take_changed(MOST_STREAMS)
        if not cursors and self._bell_is_read and self._clock() - self._checked_at < CHECK_SECONDS:
            self._note(self._watch.wait(WAIT_SECONDS))
            return
        # Its entry is read again each time, and says nothing: that it was written is what wakes.
        answer = self._watch.read({**cursors, self._bell: "0"}, MOST_ENTRIES)
        self._bell_is_read = True
        now = self._checked_at = self._clock()
        for key in cursors:
            entries = answer.get(key, ())
            if entries:
                self._forget(self._streams.hand_on(key, entries, now))
            if len(entries) >= MOST_ENTRIES:
                self._streams.note_changed((key,))

    def _note(self, changed: set[bytes] | None) -> None:
        if changed is None:
            self._streams.note_all_changed()
            self._bell_is_read = False
        else:
            self._bell_is_read = self._bell not in changed
            self._streams.note_changed(changed)

    def _forget(self, followers: Iterable[Follower]) -> None:
        with self._lock:
            for follower in followers:
                self._followers.pop(follower, None)


def _closed() -> ClientClosed:
    return ClientClosed("the client was closed: make another one; the job goes on, and can be followed again")
