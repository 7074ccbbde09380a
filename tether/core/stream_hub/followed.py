"""Which streams are read from where, for whom. It is kept from one read to the next: reads are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from tether.core.stream_hub.archive import Ended
from tether.core.stream_hub.follower import StreamFollower, order
from tether.ids import JobId
from tether.streams.token_log import Event, readable_events

MAX_NAMED = 10
"""Unreadable entries of a stream that are named in the log."""

SILENCE_SECONDS = 1.0
"""After so long without an event, the database is asked whether the job has ended."""

Entry = tuple[bytes, dict[bytes, bytes]]


class FollowedStreams:
    """The followers of one hub. Only its thread uses it; nothing here blocks.

    Attributes:
      cursors: From where the next read of each goes on, by the stream's key.
    """

    def __init__(self, key_of: Callable[[JobId], str]) -> None:
        """
        Args:
          key_of: A job's stream.
        """
        self._key_of = key_of
        self._of_job: dict[JobId, dict[StreamFollower, None]] = {}
        self._job_of: dict[bytes, JobId] = {}
        # Streams with entries that cannot be read, for which that was logged.
        self._damaged: set[JobId] = set()
        self._log = structlog.stdlib.get_logger("tether.client")
        self.cursors: dict[bytes, str] = {}
        # In the order in which that was noticed, each once.
        self._changed: dict[bytes, None] = {}

    def __bool__(self) -> bool:
        return bool(self._of_job)

    def add(self, follower: StreamFollower) -> None:
        """Read for it from its cursor on."""
        if follower.closed:
            return
        key = self._key_of(follower.job_id).encode()
        self._job_of[key] = follower.job_id
        self._of_job.setdefault(follower.job_id, {})[follower] = None
        self._read_from(key, follower.cursor)

    def note_changed(self, keys: Iterable[bytes]) -> None:
        """These streams have more to read. Those that are not followed are left out."""
        self._changed.update((key, None) for key in keys if key in self.cursors)

    def note_all_changed(self) -> None:
        """Every stream may have more to read."""
        self.note_changed(self.cursors)

    def take_changed(self, most: int) -> dict[bytes, str]:
        """Some of the streams that have more to read, with their cursors."""
        cursors: dict[bytes, str] = {}
        while self._changed and len(cursors) < most:
            key = next(iter(self._changed))
            del self._changed[key]
            if key in self.cursors:
                cursors[key] = self.cursors[key]
        return cursors

    def _read_from(self, key: bytes, cursor: str) -> None:
        self._changed[key] = None
        self.cursors[key] = min(self.cursors.get(key, cursor), cursor, key=order)

    def remove(self, follower: StreamFollower) -> None:
        """Read no more for it. A second call does nothing."""
        followers = self._of_job.get(follower.job_id, {})
        followers.pop(follower, None)
        if followers and not all(one.waits_until for one in followers):
            return
        key = self._key_of(follower.job_id).encode()
        self.cursors.pop(key, None)
        if not followers:
            self._damaged.discard(follower.job_id)
            self._of_job.pop(follower.job_id, None)
            self._job_of.pop(key, None)

    def hand_on(self, key: bytes, entries: Sequence[Entry], now: float) -> list[StreamFollower]:
        """Deliver what was read of one stream, and return the followers that need no more."""
        job_id = self._job_of.get(key)
        if job_id is None:
            return []
        followers = tuple(self._of_job[job_id])
        events, unreadable = readable_events(entries)
        if unreadable:
            self._warn_once(job_id, unreadable)
        end = entries[-1][0].decode()
        for follower in followers:
            if follower.waits_until or follower.closed:
                continue
            is_whole = self._take_all(follower, events)
            if is_whole:
                follower.skip_to(end)
            if is_whole and not unreadable:
                follower.heard_at = now
            else:
                follower.waits_until = now + SILENCE_SECONDS
        cursors = [each.cursor for each in followers if not each.waits_until and not each.closed]
        if cursors:
            self.cursors[key] = min(cursors, key=order)
        else:
            self.cursors.pop(key, None)
        return self._without([each for each in followers if each.closed])

    def hold_back(self, key: bytes, now: float) -> None:
        """What stands in a stream's place is none: try again later. The database may tell the end."""
        job_id = self._job_of.get(key)
        if job_id is not None:
            self._warn_once(job_id, ())
            self.cursors.pop(key, None)
            for follower in self._of_job[job_id]:
                follower.waits_until = now + SILENCE_SECONDS

    def _warn_once(self, job_id: JobId, unreadable: Sequence[str]) -> None:
        if job_id not in self._damaged:
            self._damaged.add(job_id)
            self._log.warning(
                "A stream cannot be read, or not all of it: skipping that. What is missing comes from the "
                "database, once the job has ended.",
                job_id=job_id,
                entries=unreadable[:MAX_NAMED],
            )

    def _take_all(self, follower: StreamFollower, events: Iterable[Event]) -> bool:
        try:
            return follower.take_all(events)
        except Exception:
            self._log.exception("An event cannot be delivered.", job_id=follower.job_id)
            follower.rewind()
            return False

    def hand_on_ended(self, job_id: JobId, ended: Ended) -> list[StreamFollower]:
        """Deliver an ended job from the database, and return the followers that need no more: all of its."""
        followers = list(self._of_job.get(job_id, ()))
        for follower in followers:
            try:
                follower.take_ended(ended)
            except Exception:
                self._log.exception("The end of a stream cannot be delivered.", job_id=job_id)
                follower.closed = True
        return self._without(followers)

    def silent(self, now: float) -> set[JobId]:
        """Jobs of which nothing was heard for long. Who waited for long enough is read for again."""
        job_ids: set[JobId] = set()
        for job_id, followers in self._of_job.items():
            for follower in followers:
                if now - follower.heard_at >= SILENCE_SECONDS:
                    follower.heard_at = now
                    job_ids.add(job_id)
                if follower.waits_until and follower.waits_until <= now:
                    follower.waits_until = 0.0
                    self._read_from(self._key_of(job_id).encode(), follower.cursor)
        return job_ids

    def rewind(self) -> None:
        """Read all again from what was delivered: what was read before may be lost."""
        self.cursors.clear()
        self._changed.clear()
        for job_id, followers in self._of_job.items():
            key = self._key_of(job_id).encode()
            for follower in followers:
                follower.rewind()
                if not follower.waits_until:
                    self._read_from(key, follower.cursor)

    def _without(self, followers: list[StreamFollower]) -> list[StreamFollower]:
        for follower in followers:
            self.remove(follower)
        return followers
