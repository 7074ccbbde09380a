"""What a slot does with one drawn job: the row of its stages, and who takes an attempt through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import WorkerPort
from tether.errors import TetherError
from tether.ids import DrawId, PoolName
from tether.jobs import JobError
from tether.models.registry import ModelVersion
from tether_workers.attempts.attempt import Attempt
from tether_workers.attempts.running import Attempts
from tether_workers.base import AttemptResult, BaseWorker
from tether_workers.engine import ModelLoader
from tether_workers.job import Job, read_drawn_job
from tether_workers.presence.prefill import PrefillThroughput
from tether_workers.stages.authorize import AuthorizeJob
from tether_workers.stages.encode import EncodePrompt
from tether_workers.stages.end import EndAttempt, dropped
from tether_workers.stages.generate import GenerateTokens
from tether_workers.stages.guard import QuotaGuard
from tether_workers.stages.load import LoadModel
from tether_workers.stages.outcome import job_error_of
from tether_workers.stages.work import InferenceStage, InferenceWork
from tether_workers.tenant_shares import TenantShares


def inference_stages(
    loader: ModelLoader,
    base: BaseWorker,
    shares: TenantShares,
    slots: Slots,
    prefill: PrefillThroughput | None = None,
) -> tuple[InferenceStage, ...]:
    """The stages of every attempt, in their order. ``end`` follows whatever becomes of them."""
    return (
        AuthorizeJob(base),
        QuotaGuard(shares, slots),
        LoadModel(loader),
        EncodePrompt(),
        GenerateTokens(prefill),
    )


class Inference:
    """Runs attempts, one in each thread that calls :meth:`run`. Owns nothing."""

    def __init__(
        self,
        port: WorkerPort,
        attempts: Attempts,
        stages: Sequence[InferenceStage],
        base: BaseWorker,
        served: Mapping[PoolName, ModelVersion] | None = None,
    ) -> None:
        """
        Args:
          port: Where attempts end.
          attempts: Those of this process.
          stages: What each goes through before its end, in this order.
          base: The hooks.
          served: The versions that this worker serves, by pool.
        """
        self._served = served or {}
        self._attempts = attempts
        self._stages = tuple(stages)
        self._end = EndAttempt(port)
        self._base = base
        self._log = structlog.stdlib.get_logger("tether.inference")

    def run(self, draw_id: DrawId) -> None:
        """Run the attempt of a draw to its end, whatever that is. Raises nothing."""
        attempt = self._attempts.find(draw_id)
        if attempt is None or not attempt.begin():
            return
        job, error = self._read(attempt)
        logged = {"job_id": attempt.drawn.job_id, "tenant": attempt.drawn.tenant}
        if job is not None:
            logged["correlation_id"] = job.correlation_id
        with structlog.contextvars.bound_contextvars(**logged):
            result = dropped(attempt)
            try:
                result = self._run(attempt, job, error)
            except Exception:
                self._log.exception("An attempt was aborted.")
            finally:
                self._attempts.forget(draw_id)
            if job is not None:
                self._call_after_result(job, result)

    def _run(self, attempt: Attempt, job: Job | None, error: JobError | None) -> AttemptResult:
        if job is None:
            return self._end.run(attempt, finish_reason=None, error=error, input_tokens=0)
        work = InferenceWork(attempt=attempt, job=job)
        error = self._run_stages(work)
        return self._end.run(
            attempt, finish_reason=work.finish_reason, error=error, input_tokens=len(work.prompt_ids)
        )

    def _run_stages(self, work: InferenceWork) -> JobError | None:
        """Take an attempt from stage to stage until one fails or it is told to end. Return the failure."""
        for stage in self._stages:
            try:
                stage.run(work)
            except Exception as failure:
                if not isinstance(failure, TetherError):
                    self._log.exception("A stage failed.", stage=stage.name)
                return job_error_of(failure)
            if work.attempt.ending is not None:
                break
        return None

    def _read(self, attempt: Attempt) -> tuple[Job | None, JobError | None]:
        try:
            return read_drawn_job(attempt.drawn, self._served), None
        except TetherError as problem:
            return None, job_error_of(problem)

    def _call_after_result(self, job: Job, result: AttemptResult) -> None:
        try:
            self._base.after_result(job, result)
        except Exception:
            self._log.exception("The hook after_result failed.")
