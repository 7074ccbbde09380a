"""What a chaos run sees of its installation from outside: who runs which jobs, and what clients wrote."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from chaos_log import ChaosEntry, Disconnected
from chaos_parts import PartLog
from chaos_site import WATCHER, Site
from sqlalchemy import Connection, select

from tether.errors import StoreUnavailable
from tether.store.schema import loop_leases

ON_PURPOSE = "on purpose"
DATABASE_TRIES = 15
OUTAGE_WORDS = (
    "unavailable",
    "cannot be read",
    "cannot be sent",
    "cannot be written",
    "cannot be asked",
    "Waiting for it",
)


@dataclass(frozen=True)
class RunningAttempt:
    """An attempt that Redis has as running.

    Attributes:
      worker: Under which boot id.
      fence: Dispatch and attempt.
    """

    job_id: str
    worker: str
    fence: tuple[int, int]


class JobWatch:
    """Looks at Redis and the database, by ways that no fault strikes."""

    def __init__(self, site: Site, stop: threading.Event) -> None:
        self._site = site
        self._stop = stop

    def running(self) -> list[RunningAttempt]:
        """All attempts that run now."""
        keys, client = self._site.redis_keys, self._site.redis
        members: Any = client.zrange(keys.leases, 0, -1)
        job_ids = [member[2:].decode() for member in members if member.startswith(b"j ")]
        with client.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(keys.job(job_id), "state", "worker", "dispatch", "attempt")
            answers: list[Any] = pipeline.execute()
        return [
            RunningAttempt(job_id, worker.decode(), (int(dispatch or 0), int(attempt or 0)))
            for job_id, (state, worker, dispatch, attempt) in zip(job_ids, answers, strict=True)
            if state == b"running" and worker is not None
        ]

    def count_lost(self, victims: Sequence[RunningAttempt], seconds: float) -> int:
        """How many of these attempts were taken from their workers before they ended.

        It looks until that is clear of all, at most so many seconds.
        """
        keys, client = self._site.redis_keys, self._site.redis
        undecided, lost = list(victims), 0
        for _ in range(round(seconds / 0.25)):
            with client.pipeline(transaction=False) as pipeline:
                for victim in undecided:
                    pipeline.hmget(keys.job(victim.job_id), "state", "worker", "dispatch", "attempt")
                answers: list[Any] = pipeline.execute()
            still = []
            for victim, (state, worker, dispatch, attempt) in zip(undecided, answers, strict=True):
                if state is None or (int(dispatch or 0), int(attempt or 0)) > victim.fence:
                    lost += state is not None
                elif state == b"running" and worker.decode() == victim.worker:
                    still.append(victim)
                elif state in (b"placed", b"withdrawn"):
                    lost += 1
            undecided = still
            if not undecided or self._stop.wait(0.25):
                break
        return lost

    def count_set_back(self, before: Mapping[str, int]) -> int:
        """How many jobs have fewer tokens in Redis than before, or are not there any more."""
        now = self.offsets(before)
        return sum(now.get(job_id, -1) < offset for job_id, offset in before.items())

    def offsets(self, job_ids: Iterable[str]) -> dict[str, int]:
        """How many tokens Redis has of each of these jobs that it knows."""
        keys, client = self._site.redis_keys, self._site.redis
        job_ids = list(job_ids)
        with client.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(keys.job(job_id), "offset")
            answers: list[Any] = pipeline.execute()
        return {
            job_id: int(offset) for job_id, offset in zip(job_ids, answers, strict=True) if offset is not None
        }

    def holders(self) -> dict[str, str]:
        """Who has the leases of the orchestrators' loops."""
        for _ in range(DATABASE_TRIES - 1):
            try:
                return self._site.store.read(_holders)
            except StoreUnavailable:
                self._stop.wait(1.0)
        return self._site.store.read(_holders)

    def has_expired(self, worker: str) -> bool:
        """Whether a worker's last announcement is too old for jobs to be placed there."""
        expiry: Any = self._site.redis.zscore(f"{self._site.redis_keys.prefix}:fleet:expiry", worker)
        seconds, microseconds = self._site.redis.time()  # type: ignore[misc]
        return expiry is not None and expiry < seconds * 1000 + microseconds / 1000

    def connections(self) -> int:
        """How many connections to Redis there are that are not the driver's."""
        connected: Any = self._site.redis.client_list()
        return sum(one["name"] != WATCHER for one in connected)

    def epoch(self) -> int:
        return int(self._site.redis.get(self._site.redis_keys.epoch) or 0)  # type: ignore[arg-type]


def _holders(connection: Connection) -> dict[str, str]:
    query = select(loop_leases.c.name, loop_leases.c.holder)
    return {row.name: row.holder for row in connection.execute(query)}


class LogMarks:
    """Where the logs of some parts ended, to count what they said since."""

    def __init__(self, logs: Sequence[PartLog]) -> None:
        self._marks = [(log, log.mark()) for log in logs]

    def count(self, is_meant: Callable[[dict[str, Any]], bool]) -> int:
        return sum(is_meant(line) for log, mark in self._marks for line in log.since(mark))

    def outages(self) -> int:
        """How often something was said to be away."""
        return self.count(_tells_outage)


def _tells_outage(line: dict[str, Any]) -> bool:
    return line.get("level") in ("warning", "error") and any(
        word in str(line.get("event")) for word in OUTAGE_WORDS
    )


class ClientWatch:
    """Counts what clients write, from their files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def mark(self) -> dict[Path, int]:
        """Where the files end now."""
        return {file: file.stat().st_size if file.exists() else 0 for file in self._files}

    def since(self, mark: dict[Path, int]) -> list[ChaosEntry]:
        """What was written since a mark."""
        found: list[ChaosEntry] = []
        decoder: msgspec.json.Decoder[ChaosEntry] = msgspec.json.Decoder(ChaosEntry)
        for file in self._files:
            if file.exists():
                with file.open("rb") as opened:
                    opened.seek(mark[file])
                    found += map(decoder.decode, opened.read().split(b"\n")[:-1])
        return found

    def disturbed(self, mark: dict[Path, int]) -> dict[str, int]:
        """Streams that broke, and requests without an answer, since a mark."""
        entries = self.since(mark)
        broken = [one for one in entries if isinstance(one, Disconnected) and one.why != ON_PURPOSE]
        unanswered = [one for one in entries if type(one).__name__ == "Unanswered"]
        return {"streams broken": len(broken), "requests unanswered": len(unanswered)}
