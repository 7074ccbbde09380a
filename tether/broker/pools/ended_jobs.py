"""What Redis remembers of jobs that have ended there, until it forgets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.pools.attempt_log import NO_LOG, AttemptLog, read_attempt_log
from tether.broker.redis.connections import each_answer
from tether.broker.scripts import rows
from tether.ids import BootId, DrawId, JobId
from tether.jobs import JobState, Piece
from tether.outcomes import Fence
from tether.streams.token_log import Event, read_events, readable_pieces

_IN_REDIS = (JobState.PLACED, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """A job that neither waits nor runs in Redis any more.

    Attributes:
      state: ``failed``, ``withdrawn`` or ``poisoned``, or the final state.
      is_sealed: Whether the database had committed the final state. Only sealing sets a time to live, and
        disowning, which leaves a mark.
      fence: Of the attempt that ended; without an attempt where none ran, dispatch 0 where Redis did not have
        the job and only noted that it must not be placed.
      worker: The worker's boot id; empty where none had it.
      run, offset: Where the stream stands.
      deaths: Workers that died while they ran it.
      pieces: The tokens that the stream holds.
      input_tokens, finish_reason: What the stream's end says, where the job succeeded.
      error_code, error_message: What the stream's end says, where it did not.
      log: How its attempts ended.
    """

    job_id: JobId
    state: str
    is_sealed: bool
    fence: Fence
    worker: BootId
    run: int
    offset: int
    deaths: int = 0
    pieces: tuple[Piece, ...] = ()
    input_tokens: int = 0
    finish_reason: str = ""
    error_code: str = ""
    error_message: str = ""
    log: AttemptLog = NO_LOG


_FIELDS = (
    "state",
    "dispatch",
    "attempt",
    "draw",
    "worker",
    "run",
    "offset",
    "deaths",
    "disowned",
    "log",
    "logged",
)


def ended_jobs(
    client: redis.Redis, keys: Keys, job_ids: Sequence[JobId]
) -> list[EndedJob | Exception | None]:
    """What Redis remembers of each job; None where it does not know it, or the job waits or runs there.

    Raises:
      OUTAGE_ERRORS: Redis is away.
    """
    pipeline = client.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.pttl(keys.job(job_id))
        pipeline.hmget(keys.job(job_id), *_FIELDS)
        pipeline.xrange(keys.stream(job_id))
    answers = each_answer(pipeline)
    return [_ended_job(job_id, *row) for job_id, row in zip(job_ids, rows(answers, 3), strict=True)]


def _ended_job(job_id: JobId, life_ms: Any, fields: Any, entries: Any) -> EndedJob | Exception | None:
    for answer in (life_ms, fields, entries):
        if isinstance(answer, Exception):
            return answer
    *texts, log, logged = fields
    state, dispatch, attempt, draw, worker, run, offset, deaths, disowned = (
        value.decode(errors="replace") if value is not None else "" for value in texts
    )
    if not state or state in _IN_REDIS:
        return None
    try:
        job = EndedJob(
            job_id=job_id,
            state=state,
            is_sealed=life_ms >= 0 and not disowned,
            fence=Fence(int(dispatch or 0), int(attempt or 0), DrawId(draw)),
            worker=BootId(worker),
            run=int(run or 0),
            offset=int(offset or 0),
            deaths=int(deaths or 0),
            log=read_attempt_log(log, logged),
        )
        last = next((event for event in reversed(read_events(entries)) if event.is_last), None)
    except (KeyError, ValueError) as error:
        return ValueError(f"what Redis holds of the job cannot be read: {error}")
    told = {} if last is None else _told(last)
    return replace(job, pieces=readable_pieces(entries, job.run), **told)


def _told(last: Event) -> dict[str, Any]:
    details = last.details()
    input_tokens = details.get("input_tokens")
    return {
        "input_tokens": input_tokens if type(input_tokens) is int and input_tokens >= 0 else 0,
        "finish_reason": _text(details.get("reason")),
        "error_code": _text(details.get("code")),
        "error_message": _text(details.get("message")),
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
