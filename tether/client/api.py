"""The client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import NoReturn, Self, Unpack

from tether.client import lazy
from tether.client.gateways import PATIENCE_SECONDS, open_gateway
from tether.client.ports import Backend
from tether.errors import InvalidRequest
from tether.ids import TenantId
from tether.job_names import job_named
from tether.jobs import DEFAULT_TENANT, JobRequest, Submitted
from tether.requests.fields import SubmitOptions
from tether.requests.options import check_request, make_request

PAGE = 100
"""Jobs fetched at once."""

CANNOT_BE_PICKLED = (
    "a client has threads and connections of its own, so it cannot be pickled or copied: make one in each "
    "process, and hand on jobs by their ids"
)


class Tether:
    """Submits jobs. Thread-safe; close it with :meth:`close`, or use it in ``with``.

    ``Tether()`` connects to a gateway over HTTP. ``Tether.direct()`` connects to the database and Redis
    itself, for programs that may have their credentials.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        backend: Backend | None = None,
    ) -> None:
        """
        Args:
          url: The gateway's address. Where None, that of ``TETHER_URL``, else of a ``tether up`` on this
            machine.
          api_key: Your API key. Where None, that of ``TETHER_API_KEY``, or of the ``tether up``.
          patience: How long calls are retried while the gateway is unreachable, in seconds. Streams reconnect
            for as long as it takes.
          backend: Carries the calls in place of a gateway.

        Raises:
          GatewayUnknown: No gateway was named, and none was found.
        """
        self._backend = backend or open_gateway(url, api_key, patience)

    @classmethod
    def direct(
        cls, settings: lazy.Settings | None = None, *, tenant: str = DEFAULT_TENANT
    ) -> lazy.DirectTether:
        """Open a client that talks to the database and Redis itself.

        Args:
          settings: Addresses and models; read from ``tether.toml`` and the environment where None.
          tenant: The tenant whose jobs they are.

        Raises:
          ConfigError: The settings are invalid.
          StoreError: The database cannot be used.
        """
        from tether.core.direct.backend import open_direct

        return lazy.DirectTether(open_direct(settings, TenantId(tenant)))

    def submit(self, model: str, prompt: str = "", **options: Unpack[SubmitOptions]) -> lazy.JobHandle:
        """Submit a job. When this returns, the job is durable.

        Args:
          model: Name of a configured model.
          prompt: The text to continue.
          options: See :class:`~tether.requests.fields.SubmitOptions`.

        Raises:
          InvalidRequest: An argument is invalid; the message names every problem.
          UnknownModel: No such model is configured.
          KeyConflict: The idempotency key was used for another request.
          QuotaExceeded: The tenant's quota of open jobs is exhausted.
          StoreUnavailable: Nothing was accepted, or (``CommitUnknown``) it is not known whether it was:
            submit again with the same ``correlation_id`` and ``retry_token``.
        """
        request = make_request(model, prompt, now_ms=self._backend.now_ms(), **options)
        return self._handle(accepted(self._backend.submission_port.submit([request])[0]))

    def submit_many(self, requests: Sequence[JobRequest]) -> list[lazy.JobHandle]:
        """Submit many jobs in few transactions.

        Raises:
          TetherError: The error of the first rejected job, if any; the others were accepted all the same.
        """
        return [self._handle(accepted(answer)) for answer in submit_checked(self._backend, requests)]

    def explain(self, model: str, prompt: str = "", **options: Unpack[SubmitOptions]) -> lazy.Explanation:
        """Return where a job would be placed now, and why: of each pool of its model what is expected there,
        its terms and its cost, or why it cannot serve the job. No job is made.

        Args:
          model: Name of a configured model.
          prompt: The text to continue.
          options: See :class:`~tether.requests.fields.SubmitOptions`.

        Raises:
          InvalidRequest: An argument is invalid; the message names every problem.
          UnknownModel: No such model is configured.
        """
        request = make_request(model, prompt, now_ms=self._backend.now_ms(), **options)
        return self._backend.job_port.explain(request)

    def job(self, job_id: str) -> lazy.JobHandle:
        """Return a handle of a job that was submitted anywhere. Nothing is looked up until it is used."""
        return lazy.JobHandle(job_named(job_id), self._backend)

    def jobs(
        self,
        *,
        state: str | Sequence[str] = (),
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[lazy.JobStatus]:
        """Iterate over your jobs, newest first. Pages are fetched as you go.

        Args:
          state: Only jobs in this state, or in any of these states.
          model: Only jobs for this model.
          labels: Only jobs with all of these labels.
          created_after, created_before: Only jobs created at or after the first, before the second; both need
            a time zone.

        Raises:
          InvalidRequest: An argument is invalid; the message says why.
        """
        from tether.job_filters import make_filter

        job_filter = make_filter(
            state, model, labels, created_after=created_after, created_before=created_before
        )
        return self._jobs(job_filter)

    def _jobs(self, job_filter: lazy.JobFilter) -> Iterator[lazy.JobStatus]:
        cursor = None
        while True:
            page = self._backend.job_port.find(job_filter, cursor, PAGE)
            yield from page.jobs
            cursor = page.next_cursor
            if cursor is None:
                return

    def models(self) -> list[lazy.ModelInfo]:
        """Return the configured models, and how many live workers serve each."""
        return self._backend.model_port.models()

    @property
    def many_jobs(self) -> lazy.ManyJobs:
        """Many jobs at once: cancel those that match a filter."""
        return lazy.ManyJobs(self._backend.change_port)

    @property
    def every_job(self) -> lazy.ManyJobs:
        """Jobs of all tenants, for operators: the API key needs the scope ``operator``."""
        return lazy.ManyJobs(self._backend.every_change_port)

    @property
    def dead_letters(self) -> lazy.DeadLetters:
        """Your dead letters: jobs that failed for good, and their retry."""
        return lazy.DeadLetters(self._backend.letter_port)

    @property
    def every_dead_letter(self) -> lazy.DeadLetters:
        """Dead letters of all tenants, for operators: the API key needs the scope ``operator``."""
        return lazy.DeadLetters(self._backend.every_letter_port)

    @property
    def dead_messages(self) -> lazy.DeadQueues:
        """Dead messages of plain actors, for operators: the API key needs the scope ``operator``."""
        return lazy.DeadQueues(self._backend.dead_message_port)

    def _handle(self, submitted: Submitted) -> lazy.JobHandle:
        # The handle's module is loaded when there is a job: it runs meanwhile.
        return lazy.JobHandle(
            submitted.job_id,
            self._backend,
            submitted.correlation_id,
            submitted.retry_token,
            submitted.is_new,
            submitted.degraded_from,
        )

    def close(self) -> None:
        """Close the client's threads and connections. Jobs go on."""
        self._backend.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError(CANNOT_BE_PICKLED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def submit_checked(backend: Backend, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
    """Submit requests that may be invalid: what became of each."""
    checked: list[JobRequest | InvalidRequest] = []
    for request in requests:
        try:
            checked.append(check_request(request))
        except InvalidRequest as error:
            checked.append(error)
    answers = iter(backend.submission_port.submit([one for one in checked if isinstance(one, JobRequest)]))
    return [next(answers) if isinstance(one, JobRequest) else one for one in checked]


def accepted(answer: Submitted | Exception) -> Submitted:
    """What was accepted.

    Raises:
      Exception: The answer, where that is one.
    """
    if isinstance(answer, Exception):
        raise answer
    return answer
