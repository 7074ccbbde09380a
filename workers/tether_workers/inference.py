"""What a slot does with one drawn job: checks it, loads its model, makes tokens, ends the attempt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.worker_port import Answer, Growth, WorkerPort, Written
from tether.errors import EngineFailed, EpochChanged, JobRefused, TetherError
from tether.jobs import JobError, Piece
from tether.telemetry.redaction import scrub
from tether.token_log import decode_pieces
from tether_workers.attempt import Attempt, Ending, Phase
from tether_workers.attempts import Attempts
from tether_workers.base import AttemptResult, BaseWorker, ResultKind
from tether_workers.engine import Delta, ExecutionEngine, FinishReason, ModelLoader
from tether_workers.job import Job, read_job

RUNS_A_DISPATCH = 256
"""Runs that the attempts of one dispatch can open before they reach those of the next."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
"""Between two tries to end an attempt while Redis is away; the pause doubles until then."""


class Inference:
    """Runs attempts, one in each thread that calls :meth:`run`. Owns nothing."""

    def __init__(self, port: WorkerPort, attempts: Attempts, loader: ModelLoader, base: BaseWorker) -> None:
        self._port = port
        self._attempts = attempts
        self._loader = loader
        self._base = base
        self._log = structlog.stdlib.get_logger("tether.inference")

    def run(self, draw_id: str) -> None:
        """Run the attempt of a draw to its end, whatever that is. Raises nothing."""
        attempt = self._attempts.find(draw_id)
        if attempt is None or not attempt.begin():
            return
        job, problem = _read(attempt)
        result = AttemptResult(ResultKind.DROPPED, attempt.drawn.offset, 0)
        told = {"job_id": attempt.drawn.job_id, "tenant": attempt.drawn.tenant}
        if job is not None:
            told["correlation_id"] = job.correlation_id
        with structlog.contextvars.bound_contextvars(**told):
            try:
                result = self._run(attempt, job, problem)
            except Exception:
                self._log.exception("An attempt broke off.")
            finally:
                self._attempts.forget(draw_id)
            if job is not None:
                self._tell(job, result)

    def _tell(self, job: Job, result: AttemptResult) -> None:
        try:
            self._base.after_result(job, result)
        except Exception:
            self._log.exception("The hook after_result failed.")

    def _run(self, attempt: Attempt, job: Job | None, error: JobError | None) -> AttemptResult:
        reason: FinishReason | None = None
        prompt_ids: tuple[int, ...] = ()
        try:
            if job is not None:
                self._authorize(job)
            if job is not None and attempt.ending is None:
                engine = self._loader.load(job.model, job.version, job.adapter)
                attempt.enter(Phase.PREFILL)
                prompt_ids = engine.encode(job.messages or job.prompt)
                reason = make_tokens(attempt, job, engine, prompt_ids)
                if reason is None and attempt.ending is None:
                    raise EngineFailed("the engine made no more tokens, and gave no reason")
        except Exception as failure:
            if not isinstance(failure, TetherError):
                self._log.exception("The engine failed.")
            error = error_of(failure)
        attempt.enter(Phase.ENDING)
        return self._end(attempt, reason, error, len(prompt_ids))

    def _authorize(self, job: Job) -> None:
        try:
            self._base.authorize(job)
        except JobRefused:
            raise
        except Exception as error:
            self._log.exception("The hook authorize failed. The job is refused.")
            raise JobRefused("the worker's own rules refuse this job: see the worker's log") from error

    def _end(
        self, attempt: Attempt, reason: FinishReason | None, error: JobError | None, input_tokens: int
    ) -> AttemptResult:
        growth = attempt.close()
        ending = attempt.ending
        if growth is None or ending is Ending.DROP:
            return AttemptResult(ResultKind.DROPPED, attempt.drawn.offset, attempt.made)
        kind, end = self._ending_of(attempt, growth, reason, error, input_tokens)
        written = self._until_answered(attempt, end)
        if written is not None and written.answer is Answer.OFFSET and kind is not ResultKind.RELEASED:
            # Redis has lost what was written before: another attempt goes on where it stands.
            kind = ResultKind.RELEASED
            rest = Growth(job_id=growth.job_id, fence=growth.fence, run=growth.run, offset=written.offset)
            written = self._until_answered(attempt, lambda: self._port.release(rest))
        if written is None or written.answer is not Answer.OK:
            return AttemptResult(ResultKind.DROPPED, attempt.drawn.offset, attempt.made)
        return AttemptResult(
            kind,
            written.offset,
            attempt.made,
            finish_reason=reason or "" if kind is ResultKind.SUCCEEDED else "",
            error=error if kind is ResultKind.FAILED else None,
        )

    def _ending_of(
        self,
        attempt: Attempt,
        growth: Growth,
        reason: FinishReason | None,
        error: JobError | None,
        input_tokens: int,
    ) -> tuple[ResultKind, Callable[[], Written]]:
        if reason is not None and not attempt.lost_tokens:
            return ResultKind.SUCCEEDED, lambda: self._port.finish(
                growth, input_tokens=input_tokens, reason=reason
            )
        if attempt.ending in (Ending.CANCELLED, Ending.EXPIRED):
            kind = ResultKind.CANCELLED if attempt.ending is Ending.CANCELLED else ResultKind.EXPIRED
            why = JobError(
                f"job_{kind}", "it was cancelled" if kind == "cancelled" else "its deadline passed"
            )
            return kind, lambda: self._port.fail(growth, kind=kind.value, error=why)
        if error is not None and not attempt.lost_tokens:
            return ResultKind.FAILED, lambda: self._port.fail(growth, kind="failed", error=error)
        return ResultKind.RELEASED, lambda: self._port.release(growth)

    def _until_answered(self, attempt: Attempt, end: Callable[[], Written]) -> Written | None:
        """End an attempt, through outages: the scripts answer a repeat as they answered the first."""
        pause = 0.0
        while True:
            try:
                return end()
            except EpochChanged:
                return None
            except OUTAGE_ERRORS as error:
                if not pause:
                    self._log.warning("An attempt cannot be ended. Trying on.", error=str(error))
                pause = min(max(pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
                if attempt.dropped.wait(pause):
                    return None


def _read(attempt: Attempt) -> tuple[Job | None, JobError | None]:
    try:
        return read_job(attempt.drawn), None
    except TetherError as problem:
        return None, error_of(problem)


def make_tokens(
    attempt: Attempt, job: Job, engine: ExecutionEngine, prompt_ids: tuple[int, ...]
) -> FinishReason | None:
    """Let an engine make the tokens that are missing, and push them. None where the attempt shall end before.

    Raises:
      EngineFailed: The engine does not keep its contract.
    """
    accepted = accepted_ids(attempt, engine)
    most = job.sampling.max_tokens
    offset = len(accepted)
    if offset >= most:
        return "length"
    with contextlib.closing(engine.start(prompt_ids, accepted, job.sampling, attempt.cancelled)) as deltas:
        for delta in deltas:
            if attempt.cancelled.is_set() and delta.finish_reason is None:
                return None
            pieces = pieces_of(delta, offset)[: most - offset]
            offset += len(pieces)
            reason = delta.finish_reason or ("length" if offset >= most else None)
            attempt.push(pieces, is_last=reason is not None)
            if reason is not None:
                return reason
    return None


def accepted_ids(attempt: Attempt, engine: ExecutionEngine) -> tuple[int, ...]:
    """The tokens of former attempts to go on from.

    Where they are not whole, or others may have been seen that this engine does not promise to make again,
    the stream begins anew.
    """
    drawn = attempt.drawn
    try:
        made = tuple(piece.token_id for data in drawn.made for piece in decode_pieces(data))
    except ValueError:
        made = ()
    if len(made) == drawn.offset and (engine.repeatable or not drawn.lossy):
        return made
    attempt.restart(max(drawn.run, (drawn.fence.dispatch - 1) * RUNS_A_DISPATCH) + 1)
    return ()


def pieces_of(delta: Delta, offset: int) -> tuple[Piece, ...]:
    """The tokens of a delta that must begin at ``offset``.

    Raises:
      EngineFailed: It begins elsewhere, has not one text for each token, or holds what is no token.
    """
    if delta.offset != offset:
        raise EngineFailed(f"the engine made tokens from {delta.offset} where {offset} was next")
    if len(delta.token_ids) != len(delta.texts):
        raise EngineFailed(
            f"the engine made {len(delta.token_ids)} tokens with {len(delta.texts)} texts at {offset}"
        )
    if not all(type(token_id) is int and token_id.bit_length() < 64 for token_id in delta.token_ids):
        raise EngineFailed(f"the engine made a token at {offset} whose id is no whole number of 64 bits")
    if not all(type(text) is str for text in delta.texts):
        raise EngineFailed(f"the engine made a token at {offset} whose text is no text")
    if delta.finish_reason not in (None, "stop", "length"):
        raise EngineFailed(f"the engine ended at {offset} for a reason that is neither stop nor length")
    return tuple(map(Piece, delta.token_ids, delta.texts))


def error_of(error: Exception) -> JobError:
    """An error as the job's outcome carries it: only our own errors' words are meant for clients."""
    if isinstance(error, TetherError):
        return JobError(error.code, scrub(str(error)), error.retryable)
    return JobError(
        EngineFailed.code, f"the engine raised {type(error).__name__}: see the worker's log", retryable=True
    )
