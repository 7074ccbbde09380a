"""Reading what Redis hands back to the database: the stream ``core:outcomes``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import redis

from tether.broker.groups import GroupReader, RawEntry
from tether.broker.keys import Keys
from tether.jobs import VERSION, Fence, JobError, Outcome, OutcomeKind
from tether.token_log import readable_pieces

GROUP = "settle"
OLDEST_VERSION = max(1, VERSION - 1)
"""Outcomes of this version and the one after are read; those of later ones are left to others."""
LONGEST_RETRY_AFTER_MS = 86_400_000
UNREADABLE_ERROR = JobError("engine_failed", "the worker gave a reason that cannot be read", retryable=True)


@dataclass(frozen=True)
class Entry:
    """One outcome and the id of its entry."""

    entry_id: str
    outcome: Outcome


class Outcomes:
    """The outcomes that one orchestrator reads, as a member of the group of all.

    It owns one connection; :meth:`close` closes it.
    """

    def __init__(self, client: redis.Redis, keys: Keys, member: str) -> None:
        self._reader = GroupReader(client, keys.outcomes, GROUP, member)
        self._keys = keys

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def read(self, count: int, wait_ms: int) -> tuple[list[Entry], list[str]]:
        """The next outcomes, after waiting for the first where ``wait_ms`` is not 0; and the ids of entries
        that cannot be read."""
        return _parse(self._reader.read(count, wait_ms))

    def claim(self, count: int, idle_ms: int) -> tuple[list[Entry], list[str]]:
        """Outcomes that were read and not settled for so long; from where the last claim ended."""
        return _parse(self._reader.claim(count, idle_ms))

    def with_pieces(self, entries: Sequence[Entry]) -> list[Entry]:
        """The same, each with the tokens that its stream holds, up to the first that cannot be read."""
        pipeline = self._reader.client.pipeline(transaction=False)
        for entry in entries:
            pipeline.xrange(self._keys.stream(entry.outcome.job_id))
        streams = pipeline.execute()
        return [
            replace(entry, outcome=replace(entry.outcome, pieces=readable_pieces(stream, entry.outcome.run)))
            for entry, stream in zip(entries, streams, strict=True)
        ]

    def acknowledge(self, entry_ids: Iterable[str]) -> None:
        """Forget entries whose outcomes are committed."""
        self._reader.acknowledge(entry_ids)

    def trim(self) -> None:
        """Remove what the whole group has settled."""
        self._reader.trim()


def _parse(entries: Iterable[RawEntry]) -> tuple[list[Entry], list[str]]:
    found, unreadable = [], []
    for entry_id, fields in entries:
        if _version(fields) > VERSION:
            # Somebody newer wrote it, and somebody newer will read it.
            continue
        try:
            found.append(Entry(entry_id.decode(), _outcome(fields)))
        except (KeyError, ValueError):
            unreadable.append(entry_id.decode())
    return found, unreadable


def _version(fields: Mapping[bytes, bytes]) -> int:
    text = fields.get(b"v", b"")
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _outcome(fields: Mapping[bytes, bytes]) -> Outcome:
    if _version(fields) < OLDEST_VERSION:
        raise ValueError(f"version {fields[b'v']!r} of an outcome is not known any more")
    return Outcome(
        job_id=fields[b"job"].decode(),
        kind=OutcomeKind(fields[b"kind"].decode()),
        fence=Fence(int(fields[b"dispatch"]), int(fields[b"attempt"]), fields[b"draw"].decode()),
        worker=fields[b"worker"].decode(),
        run=int(fields[b"run"]),
        offset=int(fields[b"offset"]),
        error=_error(fields[b"error"]),
        input_tokens=int(fields[b"input"]),
        finish_reason=fields[b"reason"].decode(),
        deaths=int(fields[b"deaths"]),
        ended_at=int(fields[b"at"]),
    )


def _error(data: bytes) -> JobError | None:
    """Why it failed. The words are the worker's: whatever they are, the outcome counts."""
    if not data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return UNREADABLE_ERROR
    match value:
        case {"code": str(code), "message": str(message), "retryable": bool(retryable)}:
            wait = value.get("retry_after_ms", 0)
            if type(wait) is int and 0 <= wait <= LONGEST_RETRY_AFTER_MS:
                return JobError(code, message, retryable, wait)
    return UNREADABLE_ERROR
