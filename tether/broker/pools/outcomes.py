"""Reading what Redis hands back to the database: the stream ``core:outcomes``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import redis

from tether.attempts import MAX_COUNT, MAX_TIME_MS
from tether.broker.keys import Keys
from tether.broker.pools.attempt_log import read_attempt_log
from tether.broker.redis.connections import each_answer
from tether.broker.redis.groups import GroupReader, RawEntry
from tether.codec import value_from_json
from tether.deaths import deaths_from_text
from tether.ids import BootId, DrawId, JobId
from tether.jobs import JobError
from tether.outcomes import VERSION, Fence, Outcome, OutcomeKind
from tether.streams.token_log import readable_pieces

GROUP = "settle"
MIN_VERSION = max(1, VERSION - 1)
"""Outcomes of this version and the one after are read; those of later ones are left to others."""
MAX_RETRY_AFTER_MS = 86_400_000
_CODE = re.compile(r"[A-Za-z0-9_]{1,64}")
UNREADABLE_ERROR = JobError("engine_failed", "the worker gave an unreadable reason", retryable=True)


@dataclass(frozen=True)
class OutcomeEntry:
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

    def read(self, count: int, wait_ms: int) -> tuple[list[OutcomeEntry], list[str]]:
        """The next outcomes, after waiting for the first where ``wait_ms`` is not 0; and the ids of entries
        that cannot be read."""
        return _parse(self._reader.read(count, wait_ms))

    def claim(self, count: int, idle_ms: int) -> tuple[list[OutcomeEntry], list[str]]:
        """Outcomes that were read and not settled for so long; from where the last claim ended."""
        return _parse(self._reader.claim(count, idle_ms))

    def with_pieces(self, entries: Sequence[OutcomeEntry]) -> list[OutcomeEntry]:
        """The same, each with the tokens that its stream holds, up to the first that cannot be read; none
        where what Redis holds under its key is no stream."""
        pipeline = self._reader.client.pipeline(transaction=False)
        for entry in entries:
            pipeline.xrange(self._keys.stream(entry.outcome.job_id))
        return [
            entry if isinstance(stream, Exception) else _with_pieces(entry, stream)
            for entry, stream in zip(entries, each_answer(pipeline), strict=True)
        ]

    def acknowledge(self, entry_ids: Iterable[str]) -> None:
        """Forget entries whose outcomes are committed."""
        self._reader.acknowledge(entry_ids)

    def trim(self) -> None:
        """Remove what the whole group has settled."""
        self._reader.trim()


def _with_pieces(entry: OutcomeEntry, stream: Iterable[RawEntry]) -> OutcomeEntry:
    pieces = readable_pieces(stream, entry.outcome.run)
    return replace(entry, outcome=replace(entry.outcome, pieces=pieces))


def _parse(entries: Iterable[RawEntry]) -> tuple[list[OutcomeEntry], list[str]]:
    outcomes, unreadable = [], []
    for entry_id, fields in entries:
        if _version(fields) > VERSION:
            # Somebody newer wrote it, and somebody newer will read it.
            continue
        try:
            outcomes.append(OutcomeEntry(entry_id.decode(), _outcome(fields)))
        except (KeyError, ValueError):
            unreadable.append(entry_id.decode())
    return outcomes, unreadable


def _version(fields: Mapping[bytes, bytes]) -> int:
    text = fields.get(b"v", b"")
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _outcome(fields: Mapping[bytes, bytes]) -> Outcome:
    if _version(fields) < MIN_VERSION:
        raise ValueError(f"version {fields[b'v']!r} of an outcome is no longer supported")
    log = read_attempt_log(fields.get(b"log"), fields.get(b"logged"))
    return Outcome(
        job_id=JobId(fields[b"job"].decode()),
        kind=OutcomeKind(fields[b"kind"].decode()),
        fence=Fence(
            _number(fields[b"dispatch"]), _number(fields[b"attempt"]), DrawId(fields[b"draw"].decode())
        ),
        worker=BootId(fields[b"worker"].decode()),
        run=_number(fields[b"run"]),
        offset=_number(fields[b"offset"]),
        error=_error(fields[b"error"]),
        input_tokens=_number(fields[b"input"]),
        finish_reason=fields[b"reason"].decode(),
        deaths=_number(fields[b"deaths"]),
        evidence=deaths_from_text(fields.get(b"evidence", b"")),
        ended_at=_number(fields[b"at"], MAX_TIME_MS),
        ends=log.ends,
        dropped_ends=log.dropped,
        was_probe=fields.get(b"probe") == b"1",
    )


def _number(text: bytes, most: int = MAX_COUNT) -> int:
    number = int(text)
    if not 0 <= number <= most:
        raise ValueError(f"{number} is not from 0 to {most}")
    return number


def _error(data: bytes) -> JobError | None:
    """Why it failed. The words are the worker's: whatever they are, the outcome counts."""
    if not data:
        return None
    try:
        error = value_from_json(JobError, json.loads(data))
    except (ValueError, RecursionError):
        return UNREADABLE_ERROR
    if not 0 <= error.retry_after_ms <= MAX_RETRY_AFTER_MS:
        return UNREADABLE_ERROR
    # Programs tell errors apart by the code, and people read it on terminals: it is a word.
    return error if _CODE.fullmatch(error.code) else replace(error, code=UNREADABLE_ERROR.code)
