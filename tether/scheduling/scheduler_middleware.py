"""The scheduler: what is enqueued on `infer` becomes a job with a pool, by one function for every door."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dramatiq import Broker, Message, Middleware

from tether.broker.keys import INFER
from tether.client.backend import Submitted
from tether.client.requests import make_request
from tether.errors import (
    InvalidRequest,
    KeyConflict,
    QuotaExceeded,
    StoreUnavailable,
    TetherError,
    UnknownModel,
)
from tether.gateway.validation import check_for_model
from tether.jobs import (
    VERSION,
    JobRequest,
    canonical_json,
    messages_to_json,
    new_job_id,
    sampling_to_json,
)
from tether.scheduling.models import ModelVersion
from tether.scheduling.pool_choice import PoolChoice
from tether.scheduling.reservations import ReservationManager
from tether.scheduling.tenants import Tenants
from tether.store.admissions import Admission, AdmissionKind, NewJob
from tether.store.placements import WaitingJob

CHARACTERS_A_TOKEN = 4
"""By which a prompt's tokens are estimated before an engine has counted them."""


@dataclass(frozen=True)
class _Prepared:
    """A request with its keys, job and message."""

    request: JobRequest
    new_job: NewJob
    message: Message[Any]


class SchedulerMiddleware(Middleware):
    """Chooses a pool for every job and reserves it, first submissions, retries and re-placements alike.

    The broker asks it when a message of the queue ``infer`` is enqueued. It is no hook of Dramatiq's: one
    that runs before enqueueing cannot change the queue, and enqueueing happens again for each retry.
    """

    def __init__(
        self,
        choice: PoolChoice,
        reservations: ReservationManager,
        tenants: Tenants,
        *,
        tenant: str,
        now_ms: Callable[[], int],
        randomness: Callable[[int], bytes],
    ) -> None:
        """
        Args:
          choice: Which pool can serve a job best.
          reservations: Makes it durable, and hands it over.
          tenants: Their shares.
          tenant: On whose behalf messages are enqueued in this process.
          now_ms: Milliseconds since the epoch.
          randomness: So many random bytes.
        """
        self._choice = choice
        self._reservations = reservations
        self._tenants = tenants
        self._tenant = tenant
        self._now_ms = now_ms
        self._randomness = randomness

    def submit(
        self, requests: Sequence[JobRequest], *, broker: Broker, tenant: str | None = None
    ) -> list[Submitted | Exception]:
        """Admit jobs: all that are accepted are durable when it answers.

        Returns:
          For each request the job that has its keys, or why it was refused.

        Raises:
          StoreUnavailable: Nothing was accepted; where it is a ``CommitUnknown``, that is not known.
        """
        prepared = [self._prepare(request, broker, tenant or self._tenant) for request in requests]
        accepted = [one for one in prepared if isinstance(one, _Prepared)]
        answers = iter(self._reservations.reserve([one.new_job for one in accepted]))
        results: list[Submitted | Exception] = []
        for one in prepared:
            if not isinstance(one, _Prepared):
                results.append(one)
                continue
            answer = next(answers)
            self._choice.note_depth(answer.pool, answer.depth)
            results.append(_answer(one, answer))
            if not isinstance(results[-1], Exception):
                broker.emit_after("enqueue", one.message, None)
        return results

    def submit_message(self, broker: Broker, message: Message[Any], delay: int | None) -> Message[Any]:
        """Make a job of a message of ``infer``; see :class:`~tether.broker.tether_broker.Scheduler`.

        Raises:
          InvalidRequest: Its arguments are not those of a job.
          TetherError: The job was refused.
        """
        arguments = _arguments_of(message)
        values = {name: value for name, value in arguments.items() if name in _REQUEST_ARGUMENTS}
        sampling = {name: value for name, value in arguments.items() if name not in _REQUEST_ARGUMENTS}
        seconds = None if delay is None else delay / 1000
        request = make_request(
            values.pop("model", ""),
            values.pop("prompt", ""),
            now_ms=self._now_ms(),
            delay=seconds,
            sampling=sampling,
            **values,
        )
        if not request.correlation_id:
            # The same message sent again after a failure is the same job.
            request = replace(
                request,
                correlation_id=message.message_id,
                retry_token=request.retry_token or message.message_id,
            )
        answer = self.submit([request], broker=broker)[0]
        if isinstance(answer, Exception):
            raise answer
        return message.copy(message_id=answer.job_id)

    def is_served(self, model: str) -> bool:
        """Whether a worker that lives can serve a job for this model now.

        Raises:
          UnknownModel: No such model is configured.
        """
        return self._choice.is_served(model)

    def choose_pools(self, jobs: Sequence[WaitingJob]) -> list[str | None]:
        """A pool for each job that waits in the database, or None where none can serve it now."""
        return [self._choose(job) for job in jobs]

    def _choose(self, job: WaitingJob) -> str | None:
        try:
            # The version was settled when the job was accepted, and stands in what its worker gets.
            version = json.loads(job.body).get("version", "")
            return self._choice.choose(f"{job.model}@{version}")
        except UnknownModel:
            # It was known when the job was accepted: it waits until somebody configures it again.
            return None

    def _prepare(self, request: JobRequest, broker: Broker, tenant: str) -> _Prepared | TetherError:
        now_ms = self._now_ms()
        try:
            version = self._choice.version_of(request.model)
            weight = self._tenants.weight(tenant)
            check_for_model(request, version, now_ms)
        except StoreUnavailable:
            raise
        except TetherError as error:
            return error
        job_id = new_job_id(now_ms, self._randomness(10))
        message: Message[Any] = Message(
            queue_name=INFER,
            actor_name=INFER,
            args=(),
            kwargs={"model": request.model},
            options={"traceparent": request.traceparent} if request.traceparent else {},
            message_id=job_id,
            message_timestamp=now_ms,
        )
        broker.emit_before("enqueue", message, None)
        retry_token = request.retry_token or job_id
        keyed = replace(
            request,
            retry_token=retry_token,
            correlation_id=request.correlation_id or retry_token,
            traceparent=request.traceparent or str(message.options.get("traceparent", "")),
        )
        return _Prepared(keyed, self._new_job(keyed, job_id, tenant, weight, version, now_ms), message)

    def _new_job(
        self, request: JobRequest, job_id: str, tenant: str, weight: float, version: ModelVersion, now_ms: int
    ) -> NewJob:
        cost = request.characters // CHARACTERS_A_TOKEN + 1
        body = {
            "v": VERSION,
            "model": version.name,
            "version": version.version,
            "prompt": request.prompt,
            **({"messages": messages_to_json(request.messages)} if request.messages else {}),
            "sampling": sampling_to_json(request.sampling),
            "adapter": request.adapter,
            "tenant": tenant,
            "correlation_id": request.correlation_id,
            "traceparent": request.traceparent,
        }
        return NewJob(
            job_id=job_id,
            tenant_id=tenant,
            correlation_id=request.correlation_id,
            retry_token=request.retry_token,
            retry_of=None,
            digest=request.digest(),
            model=version.name,
            priority=request.priority.value,
            labels=request.labels,
            body=canonical_json(body).decode(),
            pool=self._choice.choose(request.model, output_tokens=request.sampling.max_tokens),
            weight=weight,
            not_before=request.not_before,
            deadline=request.deadline,
            cost=cost,
            now_ms=now_ms,
        )


_FOLLOWED_BY = ("pipe_target", "on_success", "on_failure", "group_completion_uuid")
"""Options of Dramatiq's that call for something after the message, in the process that ran it."""

_REQUEST_ARGUMENTS = (
    *("model", "prompt", "messages", "priority", "eta", "time_limit", "labels", "adapter"),
    *("correlation_id", "retry_token"),
)


def _arguments_of(message: Message[Any]) -> dict[str, Any]:
    followed = [name for name in _FOLLOWED_BY if message.options.get(name)]
    if followed:
        raise InvalidRequest(
            f"nothing can follow a job ({', '.join(followed)}): put infer last in a pipeline, and in no "
            "group with callbacks; its result is that of Tether.job(message.message_id).result()"
        )
    if not message.args:
        return dict(message.kwargs)
    # A pipeline hands on what its step before answered as an unnamed argument.
    if len(message.args) > 1 or "prompt" in message.kwargs:
        raise InvalidRequest("infer takes named arguments only, as in infer.send(model=..., prompt=...)")
    return {**message.kwargs, "prompt": message.args[0]}


def _answer(one: _Prepared, answer: Admission) -> Submitted | TetherError:
    request, tenant = one.request, one.new_job.tenant_id
    if answer.kind is AdmissionKind.CONFLICT:
        return KeyConflict(
            f"correlation id {request.correlation_id!r} with retry token {request.retry_token!r} belongs to "
            f"job {answer.job_id}, which asked for something else: send the same request, or take other keys"
        )
    if answer.kind is AdmissionKind.OVER_QUOTA:
        return QuotaExceeded(
            f"tenant {tenant!r} has {answer.depth} open jobs and may not have more: wait until some end"
        )
    assert answer.state is not None
    return Submitted(
        answer.job_id,
        request.correlation_id,
        request.retry_token,
        answer.state,
        answer.kind is AdmissionKind.ACCEPTED,
    )


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000_000
