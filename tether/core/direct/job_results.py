"""Results of the actor ``infer`` where Dramatiq looks for results: those of jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from dramatiq import Message
from dramatiq.results import ResultBackend, ResultFailure, ResultMissing
from dramatiq.results import ResultTimeout as DramatiqTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT

from tether.broker.keys import INFER
from tether.client.handles import JobHandle, Result
from tether.client.ports import Backend
from tether.errors import JobFailed, JobNotFound, ResultTimeout
from tether.ids import JobId

LOOK_SECONDS = 0.1
"""Between two looks whether a message that was not sent yet has become a job."""


class JobResults(ResultBackend):
    """What ``get_result`` of messages, pipelines and groups asks on a direct client's broker.

    A job's result is its :class:`~tether.client.handles.Result`. Other actors' results are left to the
    backend of the program's own ``Results`` middleware.
    """

    def __init__(
        self,
        backend: Backend,
        job_of_message: Callable[[Message[Any]], JobId | None],
        others: ResultBackend | None,
    ) -> None:
        """
        Args:
          backend: Carries the calls.
          job_of_message: The job that a message became, by its idempotency key.
          others: Where results of other actors are.
        """
        super().__init__()
        self._backend = backend
        self._job_of_message = job_of_message
        self._others = others

    def get_result(self, message: Any, *, block: bool = False, timeout: int | None = None) -> Any:
        """Return the result of a message.

        Args:
          timeout: Longest wait for it, in milliseconds.

        Raises:
          ResultMissing: There is none yet.
          ResultTimeout: Of Dramatiq's: there was none in time. A job goes on.
          ResultFailure: The job failed, was cancelled or expired; the cause is Tether's own error.
          RuntimeError: The program stores no results of other actors.
        """
        if message.queue_name != INFER:
            return self._of_others().get_result(message, block=block, timeout=timeout)
        deadline = time.monotonic() + (DEFAULT_TIMEOUT if timeout is None else timeout) / 1000
        while (job := self._job(message)) is None:
            # The step of a pipeline before it may still run: nothing tells when a message is sent.
            if not block:
                raise ResultMissing(message)
            left = deadline - time.monotonic()
            if left <= 0:
                raise DramatiqTimeout(message)
            threading.Event().wait(min(left, LOOK_SECONDS))
        if not block and not job.status().state.is_final:
            raise ResultMissing(message)
        return _result(job, message, max(deadline - time.monotonic(), 0))

    def store_result(self, message: Any, result: Any, ttl: int) -> None:
        """Store the result of another actor."""
        self._of_others().store_result(message, result, ttl)

    def store_exception(self, message: Any, exception: Exception, ttl: int) -> None:
        """Store the failure of another actor."""
        self._of_others().store_exception(message, exception, ttl)

    def _of_others(self) -> ResultBackend:
        if self._others is None:
            raise RuntimeError(
                "The broker doesn't have a results backend: add dramatiq.results.Results to it, for actors "
                f"other than {INFER}"
            )
        return self._others

    def _job(self, message: Message[Any]) -> JobHandle | None:
        # A message that was sent has its job's id, and one that was made to be sent later its own.
        job_id = JobId(message.message_id)
        try:
            self._backend.job_port.status(job_id)
        except JobNotFound:
            by_key = self._job_of_message(message)
            return None if by_key is None else JobHandle(by_key, self._backend)
        return JobHandle(job_id, self._backend)


def _result(job: JobHandle, message: Message[Any], seconds: float) -> Result:
    try:
        return job.result(seconds)
    except ResultTimeout as error:
        raise DramatiqTimeout(message) from error
    except JobFailed as error:
        _raise_failure(error)


def _raise_failure(error: JobFailed) -> NoReturn:
    kind = type(error).__name__
    raise ResultFailure(f"{kind}: {error}", orig_exc_type=kind, orig_exc_msg=str(error)) from error
