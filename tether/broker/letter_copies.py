"""Copies of pool jobs' dead letters as dead messages of the queue ``infer``, where Dramatiq's tools look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis
from dramatiq import JSONEncoder, Message

from tether.broker.keys import INFER, Keys
from tether.broker.redis.connections import each_answer
from tether.broker.scripts import BROKER_SCRIPTS
from tether.dead_letters import DeadLetter
from tether.ids import JobId, job_id_in

COPY_OF = "tether_dead_letter"
"""The option of a copy's message: the id of the dead job."""

MAX_SENT_LOOKED_AT = 100
"""Messages sent to ``infer`` that one look finds."""


class SentCopy(NamedTuple):
    """A copy that a tool enqueued.

    Attributes:
      redis_id: Under which it waits in Redis.
      job_id: The dead job.
    """

    redis_id: bytes
    job_id: JobId


def copy_of_letter(letter: DeadLetter) -> bytes:
    """The message that stands for a dead letter. It holds no prompt and no retry token."""
    message: Message[Any] = Message(
        queue_name=INFER,
        actor_name=INFER,
        args=(),
        kwargs={},
        options={
            "redis_message_id": letter.job_id,
            COPY_OF: letter.job_id,
            "reason": letter.reason,
            "model": letter.model,
            "tenant": letter.tenant_id,
        },
        message_id=letter.job_id,
        message_timestamp=letter.created_at,
    )
    return JSONEncoder().encode(message.asdict())


def copied_job(options: object) -> JobId | None:
    """The dead job whose letter a message with these options is a copy of; None if it is no copy."""
    job_id = options.get(COPY_OF) if isinstance(options, Mapping) else None
    return job_id_in(job_id.encode(errors="replace")) if isinstance(job_id, str) else None


class LetterCopies:
    """The copies in Redis, and what tools did with them. Blocks; raises redis-py's errors."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client: Any = client
        self._keys = keys

    def present(self, at_most: int) -> tuple[set[bytes], set[bytes]]:
        """The ids that are whole, and those of which a half is missing; ``at_most`` so many of each half."""
        prefix = self._keys.prefix
        ranked = set(self._client.zrange(f"{prefix}:{INFER}.XQ", 0, at_most - 1))
        stored: set[bytes] = set()
        for name, _ in self._client.hscan_iter(f"{prefix}:{INFER}.XQ.msgs", count=1_000):
            stored.add(name)
            if len(stored) >= at_most:
                break
        return ranked & stored, ranked ^ stored

    def halves_of(self, names: Sequence[str]) -> list[int]:
        """How many halves there are of each of these copies: 2 where it is whole, 0 where there is none."""
        prefix = self._keys.prefix
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.zscore(f"{prefix}:{INFER}.XQ", name)
            pipeline.hexists(f"{prefix}:{INFER}.XQ.msgs", name)
        answers = each_answer(pipeline)
        pairs = zip(answers[::2], answers[1::2], strict=True)
        return [isinstance(score, float) + (is_stored is True) for score, is_stored in pairs]

    def change(self, gone: Sequence[bytes], letters: Sequence[DeadLetter]) -> int:
        """Remove copies, and add those of letters. Returns how many there were of both."""
        added = [part for each in letters for part in (each.job_id, each.created_at, copy_of_letter(each))]
        return int(self._run("copy_letters", INFER, len(gone), *gone, *added))

    def sent(self) -> list[SentCopy]:
        """Copies that wait in the queue ``infer``, since a tool enqueued them there."""
        name = f"{self._keys.prefix}:{INFER}"
        ids = self._client.lrange(name, 0, MAX_SENT_LOOKED_AT - 1)
        bodies = self._client.hmget(f"{name}.msgs", ids) if ids else []
        found = ((redis_id, _copy_in(body)) for redis_id, body in zip(ids, bodies, strict=True))
        return [SentCopy(redis_id, job_id) for redis_id, job_id in found if job_id is not None]

    def drop_sent(self, sent: Sequence[SentCopy]) -> None:
        """Forget copies that waited in the queue ``infer``."""
        self._run("drop", INFER, *(each.redis_id for each in sent))

    def _run(self, script: str, *arguments: Any) -> Any:
        return BROKER_SCRIPTS.run(self._client, script, self._keys.heartbeats, *arguments)


def _copy_in(body: bytes | None) -> JobId | None:
    try:
        message = json.loads(body or b"null")
    except (ValueError, RecursionError):
        return None
    return copied_job(message.get("options")) if isinstance(message, dict) else None
