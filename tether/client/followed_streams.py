"""Which streams are read from where, for whom. It is kept from one read to the next: reads are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from tether.client.follower import Follower, order
from tether.client.stream_archive import Ended
from tether.token_log import Event, read_events

SILENCE_SECONDS = 1.0
"""After so long without an event, the database is asked whether the job has ended."""

Entry = tuple[bytes, dict[bytes, bytes]]


class FollowedStreams:
    """The followers of one hub. Only its thread uses it; nothing here blocks.

    Attributes:
      cursors: From where the next read of each goes on, by the stream's key.
    """

    def __init__(self, key_of: Callable[[str], str]) -> None:
        """
        Args:
          key_of: A job's stream.
        """
        self._key_of = key_of
        self._of_job: dict[str, dict[Follower, None]] = {}
        self._job_of: dict[bytes, str] = {}
        self._log = structlog.stdlib.get_logger("tether.client")
        self.cursors: dict[bytes, str] = {}
        # In the order in which that was noticed, each once.
        self._changed: dict[bytes, None] = {}

    def __bool__(self) -> bool:
        return bool(self._of_job)

    def add(self, follower: Follower) -> None:
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
        found: dict[bytes, str] = {}
        while self._changed and len(found) < most:
            key = next(iter(self._changed))
            del self._changed[key]
            if key in self.cursors:
                found[key] = self.cursors[key]
        return found

    def _read_from(self, key: bytes, cursor: str) -> None:
        self._changed[key] = None
        self.cursors[key] = min(self.cursors.get(key, cursor), cursor, key=order)

    def remove(self, follower: Follower) -> None:
        """Read no more for it. A second call does nothing."""
        followers = self._of_job.get(follower.job_id, {})
        followers.pop(follower, None)
        if followers and not all(one.waits_until for one in followers):
            return
        key = self._key_of(follower.job_id).encode()
        self.cursors.pop(key, None)
        if not followers:
            self._of_job.pop(follower.job_id, None)
            self._job_of.pop(key, None)

    def hand_on(self, key: bytes, entries: Sequence[Entry], now: float) -> list[Follower]:
        """Deliver what was read of one stream. Answers who needs no more."""
        job_id = self._job_of.get(key)
        if job_id is None:
            return []
        followers = tuple(self._of_job[job_id])
        try:
            events = read_events(entries)
        except (KeyError, ValueError):
            self._log.warning("A stream cannot be read. Its job is asked for in the database.", job_id=job_id)
            events = None
        for follower in followers:
            if follower.waits_until or follower.closed:
                continue
            if events is not None and self._take_all(follower, events):
                follower.heard_at = now
            else:
                follower.waits_until = now + SILENCE_SECONDS
        cursors = [one.cursor for one in followers if not one.waits_until and not one.closed]
        if cursors:
            self.cursors[key] = min(cursors, key=order)
        else:
            self.cursors.pop(key, None)
        return self._without([one for one in followers if one.closed])

    def _take_all(self, follower: Follower, events: Iterable[Event]) -> bool:
        try:
            return follower.take_all(events)
        except Exception:
            self._log.exception("An event cannot be delivered.", job_id=follower.job_id)
            follower.rewind()
            return False

    def hand_on_ended(self, job_id: str, ended: Ended) -> list[Follower]:
        """Deliver what the database holds of a job that ended. Answers who needs no more: all of its."""
        followers = list(self._of_job.get(job_id, ()))
        for follower in followers:
            try:
                follower.take_ended(ended)
            except Exception:
                self._log.exception("The end of a stream cannot be delivered.", job_id=job_id)
                follower.closed = True
        return self._without(followers)

    def silent(self, now: float) -> set[str]:
        """Jobs of which nothing was heard for long. Who waited for long enough is read for again."""
        job_ids = set()
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

    def _without(self, followers: list[Follower]) -> list[Follower]:
        for follower in followers:
            self.remove(follower)
        return followers
