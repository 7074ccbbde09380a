"""The stage ``end``: writes an attempt's outcome, through outages of Redis."""

from __future__ import annotations

import math

import structlog

from tether.broker.pools.worker_port import Growth, WorkerPort, WriteResult, WriteStatus
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.errors import EpochChanged
from tether.jobs import JobError
from tether.loops import next_pause
from tether_workers.attempts.attempt import Attempt, AttemptEnding, AttemptPhase
from tether_workers.base import AttemptResult, ResultKind
from tether_workers.engine import FinishReason
from tether_workers.stages.outcome import REFUSED, AttemptOutcome, outcome_of


class EndAttempt:
    """Ends every attempt, whatever became of the stages before."""

    def __init__(self, port: WorkerPort) -> None:
        self._port = port
        self._log = structlog.stdlib.get_logger("tether.inference")

    def run(
        self,
        attempt: Attempt,
        *,
        finish_reason: FinishReason | None,
        error: JobError | None,
        input_tokens: int,
    ) -> AttemptResult:
        """Write the outcome together with the tokens that are not written yet, unless it is dropped.

        Args:
          finish_reason: Why its engine made no more tokens.
          error: What a stage failed with.
          input_tokens: Tokens of the prompt.
        """
        attempt.enter(AttemptPhase.ENDING)
        is_ours, ending = attempt.close(), attempt.ending
        if not is_ours or ending is AttemptEnding.DROP:
            return dropped(attempt)
        outcome = outcome_of(
            finish_reason,
            error,
            ending=ending,
            lost_tokens=attempt.lost_tokens,
            is_refused=attempt.is_refused,
        )
        rest = attempt.rest(is_whole=outcome.kind is ResultKind.SUCCEEDED)
        written = self._write(attempt, outcome, rest, input_tokens)
        if (
            written is not None
            and written.answer is WriteStatus.OFFSET
            and outcome.kind is not ResultKind.RELEASED
        ):
            # Redis has lost what was written before: another attempt goes on where it stands.
            outcome = AttemptOutcome(ResultKind.RELEASED)
            rest = Growth(job_id=rest.job_id, fence=rest.fence, run=rest.run, offset=written.offset)
            written = self._write(attempt, outcome, rest, input_tokens)
        elif written is not None and written.answer is WriteStatus.INVALID:
            self._log.error("The end of an attempt was refused: it fails.", job_id=rest.job_id)
            outcome = AttemptOutcome(ResultKind.FAILED, error=REFUSED)
            rest = Growth(job_id=rest.job_id, fence=rest.fence, run=rest.run, offset=rest.offset)
            written = self._write(attempt, outcome, rest, input_tokens)
        if written is None or written.answer is not WriteStatus.OK:
            return dropped(attempt)
        return AttemptResult(
            outcome.kind,
            written.offset,
            attempt.generated_tokens,
            finish_reason=outcome.finish_reason or "",
            error=outcome.error if outcome.kind is ResultKind.FAILED else None,
        )

    def _write(
        self, attempt: Attempt, outcome: AttemptOutcome, rest: Growth, input_tokens: int
    ) -> WriteResult | None:
        """Write through outages: the scripts answer a repeat as they answered the first. None where the
        attempt is not this worker's any more."""
        pause = 0.0
        while True:
            try:
                return self._write_once(attempt, outcome, rest, input_tokens)
            except EpochChanged:
                return None
            except OUTAGE_ERRORS as error:
                if not pause:
                    self._log.warning("An attempt cannot be ended. Retrying.", error=str(error))
                pause = next_pause(pause)
                if attempt.dropped.wait(pause):
                    return None

    def _write_once(
        self, attempt: Attempt, outcome: AttemptOutcome, rest: Growth, input_tokens: int
    ) -> WriteResult:
        if outcome.finish_reason is not None:
            return self._port.finish(rest, input_tokens=input_tokens, reason=outcome.finish_reason)
        if outcome.error is not None:
            return self._port.fail(rest, kind=outcome.kind.value, error=outcome.error)
        seconds = attempt.avoid_seconds
        avoid_ms = None if seconds is None else math.ceil(seconds * 1000)
        return self._port.release(rest, to_tail=attempt.gives_way, avoid_ms=avoid_ms)


def dropped(attempt: Attempt) -> AttemptResult:
    """The result of an attempt at whose end nothing was written."""
    return AttemptResult(ResultKind.DROPPED, attempt.drawn.offset, attempt.generated_tokens)
