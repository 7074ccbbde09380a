"""The scheduler: what is enqueued on `infer` becomes a job with a pool, by one function for every door."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dramatiq import Broker, Message, Middleware

from tether.admission.facts import AdmissionFacts
from tether.admission.gates import POLICY_GATES, first_refusal
from tether.admission.policy_terms import degraded_requests, quotas_meant, request_meant, retention_meant
from tether.admission.spending_refusals import spending_refusal
from tether.envelopes import Placeable
from tether.errors import (
    BreakerOpen,
    InvalidRequest,
    NoLiveWorker,
    QueueFull,
    RateLimited,
    StoreUnavailable,
    TetherError,
    UnknownModel,
)
from tether.explanations import Explanation
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobRequest, new_job_id
from tether.policies.document import Policy
from tether.rate_limits import RateStanding
from tether.scheduling.breaker_refusals import refusal_by_breaker, waits_not, with_breakers
from tether.scheduling.infer_arguments import keys_of_message, request_of_message
from tether.scheduling.infer_messages import InferMessage
from tether.scheduling.kept_decisions import ChosenPools
from tether.scheduling.new_placeables import new_placeable
from tether.scheduling.placement_requests import estimated_cost
from tether.scheduling.pool_choice import PoolChoice
from tether.scheduling.rate_charges import ChargedRequests, RateCharge, WantedCharge
from tether.scheduling.rate_limiter import RateLimiter, counted
from tether.scheduling.reservations import ReservationManager
from tether.scheduling.shedding import Shedding
from tether.scheduling.submission_answers import admission_answer, message_or_error
from tether.scheduling.tenants import Tenants
from tether.store.admissions import Admission, AdmissionKind, NewJob, is_same_job
from tether.store.capacity import NO_BOUND, Claim


@dataclass(frozen=True)
class _Prepared:
    """A job to admit, with its envelope and the request with both of its keys."""

    envelope: InferMessage
    keyed: JobRequest
    new_job: NewJob
    standings: tuple[RateStanding, ...]


@dataclass(frozen=True)
class _Passed:
    """A request that passed all gates.

    Attributes:
      meant: As the tenant's policy has it; its keys and digest are those of the one that was sent.
      shut_out: Why it cannot be served by the model that it asks for, but perhaps by a lesser one.
    """

    envelope: InferMessage
    meant: JobRequest
    facts: AdmissionFacts
    shut_out: BreakerOpen | None = None


class SchedulerMiddleware(Middleware):
    """Chooses a pool for every job and reserves it, first submissions, retries and re-placements alike.

    It stands in the broker's list of middleware, and the broker hands it what is enqueued on the queue
    ``infer``. A hook of Dramatiq's that runs before enqueueing could not do it: it cannot change the queue,
    and enqueueing happens again for each retry.
    """

    def __init__(
        self,
        choice: PoolChoice,
        reservations: ReservationManager,
        tenants: Tenants,
        limiter: RateLimiter,
        shedding: Shedding,
        *,
        tenant: TenantId,
        region: str = "",
        now_ms: Callable[[], int],
        randomness: Callable[[int], bytes],
    ) -> None:
        """
        Args:
          choice: Which pool can serve a job best.
          reservations: Makes it durable, and hands it over.
          tenants: Their shares.
          limiter: Asks their rate limits.
          shedding: Refuses what is not to wait.
          tenant: On whose behalf messages are enqueued in this process, where they do not say it.
          region: Where jobs are best served that name no region; empty is anywhere.
          now_ms: Milliseconds since the epoch.
          randomness: Return so many random bytes.
        """
        self._choice = choice
        self.policies = choice.policies
        """What tenants may do."""
        self._reservations = reservations
        self._tenants = tenants
        self._limiter = limiter
        self._shedding = shedding
        self._tenant = tenant
        self._region = region
        self._now_ms = now_ms
        self._randomness = randomness

    def envelope(
        self, request: JobRequest, tenant: TenantId | None = None, *, retry_of: JobId | None = None
    ) -> InferMessage:
        """The message that makes a job of a checked request, once it is enqueued.

        Args:
          retry_of: The dead job that it retries, if it does.
        """
        now_ms = self._now_ms()
        job_id = new_job_id(now_ms, self._randomness(10))
        message = InferMessage.of(request, tenant or self._tenant, job_id=job_id, now_ms=now_ms)
        return replace(message, retry_of=retry_of)

    def enqueue_jobs(
        self, broker: Broker, messages: Sequence[Message[Any]], delay: int | None
    ) -> list[Message[Any] | Exception]:
        """Admit jobs; see :class:`~tether.broker.tether_broker.Scheduler`.

        Raises:
          StoreUnavailable: Nothing was accepted; where it is a ``CommitUnknown``, that is not known.
        """
        passed = [self._judge(message, delay) for message in messages]
        with self._limiter.charged([_charge_of(one) for one in passed]) as charges:
            prepared = [
                self._prepare(broker, one, charge, delay)
                for one, charge in zip(passed, charges.answers, strict=True)
            ]
            return self._admit(broker, messages, prepared, charges, delay)

    def _admit(
        self,
        broker: Broker,
        messages: Sequence[Message[Any]],
        prepared: Sequence[_Prepared | InferMessage | Exception],
        charges: ChargedRequests,
        delay: int | None,
    ) -> list[Message[Any] | Exception]:
        new_jobs = [outcome for outcome in prepared if isinstance(outcome, _Prepared)]
        admissions = iter(self._reservations.reserve([outcome.new_job for outcome in new_jobs]))
        answers: list[Message[Any] | Exception] = []
        for number, (sent, outcome) in enumerate(zip(messages, prepared, strict=True)):
            if not isinstance(outcome, _Prepared):
                answers.append(message_or_error(sent, outcome))
                continue
            admission = next(admissions)
            if isinstance(admission, Exception):
                answers.append(message_or_error(sent, admission))
                continue
            if admission.overspent is not None:
                refusal = spending_refusal(admission.overspent, outcome.new_job.now_ms)
                answers.append(message_or_error(sent, refusal))
                continue
            self._note_claim(outcome.new_job, admission)
            answer = admission_answer(outcome.envelope, outcome.keyed, admission, outcome.standings)
            answers.append(message_or_error(sent, answer))
            if isinstance(answer, Message) and admission.kind is AdmissionKind.ACCEPTED:
                charges.keep(number)
                broker.emit_after("enqueue", answer, delay)
        return answers

    def _note_claim(self, new_job: NewJob, admission: Admission) -> None:
        """Remember what a claim showed of the pools that were tried."""
        if admission.pool is not None and admission.depth > 0:
            self._choice.depths.note(admission.pool, admission.depth)
        if admission.kind is AdmissionKind.ACCEPTED and admission.pool != new_job.pool is not None:
            for claim in (Claim(new_job.pool), *new_job.others):
                if claim.pool == admission.pool:
                    break
                self._choice.full.note(claim.pool, new_job.tenant_id)

    def job_of_message(self, message: Message[Any]) -> JobId | None:
        """The job that a message to ``infer`` with its own idempotency key became; None where there is none.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        correlation_id, retry_token = keys_of_message(message)
        if not retry_token:
            return None
        found = self._reservations.job_with_key(self._tenant, correlation_id, retry_token)
        return None if found is None else found.job_id

    def why_not_now(self, request: JobRequest, tenant: TenantId) -> str | None:
        """Why no worker that lives can serve a request now, in words, which may be empty; None where one can.

        Raises:
          UnknownModel, PolicyRefused, PolicyUnreadable: It would be refused anyway.
          BreakerOpen: It fails wherever it is served.
          StoreUnavailable: The database is unavailable.
        """
        facts = self._facts(tenant)
        meant = request_meant(request, facts.policy, facts.now_ms)
        refusal = first_refusal(meant, facts, POLICY_GATES)
        if refusal is not None:
            raise refusal
        if self._choice.is_served(meant, tenant):
            return None
        if any(self._choice.is_served(one, tenant) for one in self._lesser(meant, facts)):
            return None
        if shut_out := refusal_by_breaker(self._choice, meant, tenant):
            raise shut_out
        return self._choice.why_not_served(meant, tenant)

    def no_live_worker(self, model: str, why: str) -> NoLiveWorker:
        """That no worker can serve a model now; ``why`` says more."""
        return self._shedding.no_live_worker(model, why)

    def why_unserved(self, job: Placeable) -> str:
        """Why no pool gets a job, in words; empty where one can, and where its model is served nowhere or is
        no longer configured."""
        try:
            return self._choice.why_unserved(job)
        except UnknownModel:
            return ""

    def explain(self, request: JobRequest, tenant: TenantId) -> Explanation:
        """Where a checked request would be placed now, and why. Nothing is accepted, and no quota is asked.

        Raises:
          TetherError: It would be refused.
          StoreUnavailable: The database is unavailable.
        """
        envelope = self.envelope(request, tenant)
        facts = self._facts(tenant)
        meant = request_meant(request, facts.policy, facts.now_ms)
        refusal = first_refusal(meant, with_breakers(self._choice, meant, facts))
        if refusal is not None:
            raise refusal
        return self._choice.explanation(self._placeable(envelope, meant, facts))

    def why_paused(self, pool: PoolName | None) -> str:
        """That a pool is paused, and why, in words; empty where it is not."""
        words = None if pool is None else self._choice.pauses.in_words().get(pool)
        return "" if words is None else f"pool {pool} {words}"

    def jobs_ahead(self, pool: PoolName) -> tuple[int, float]:
        """How many jobs a pool has, and how many of other pools its workers have, as of about a second ago.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        return self._choice.jobs_ahead(pool)

    def _judge(self, message: Message[Any], delay: int | None) -> _Passed | InferMessage | Exception:
        """The request that passed all gates; or the job that its keys belong to, or why it is refused."""
        try:
            envelope = message if isinstance(message, InferMessage) else self._envelope_of(message, delay)
            facts = self._facts(envelope.tenant_id)
            meant = request_meant(envelope.request, facts.policy, facts.now_ms)
            is_hasty = _is_refused_rather(envelope, meant)
            refusal = first_refusal(meant, with_breakers(self._choice, meant, facts) if is_hasty else facts)
            if isinstance(refusal, BreakerOpen) and any(self._lesser(meant, facts)):
                return _Passed(envelope, meant, facts, refusal)
            if refusal is not None:
                # Keys come before the gates. The commit looks them up anyway, so only here is there need to.
                return self._earlier(envelope) or refusal
            return _Passed(envelope, meant, facts)
        except StoreUnavailable:
            raise
        except Exception as error:
            # A message that no program can have meant: it costs itself alone.
            return error

    def _prepare(
        self,
        broker: Broker,
        passed: _Passed | InferMessage | Exception,
        charge: RateCharge | RateLimited | InvalidRequest | None,
        delay: int | None,
    ) -> _Prepared | InferMessage | Exception:
        """The job to admit; or the one that its keys belong to already, or why it is refused."""
        if not isinstance(passed, _Passed):
            return passed
        try:
            if isinstance(charge, Exception):
                return self._earlier(passed.envelope) or counted(charge)
            broker.emit_before("enqueue", passed.envelope, delay)
            return self._new_job(passed, charge.standings if charge else ())
        except (BreakerOpen, NoLiveWorker, QueueFull) as refusal:
            return self._earlier(passed.envelope) or refusal
        except StoreUnavailable:
            raise
        except Exception as error:
            # A hook's refusal: it costs itself alone.
            return error

    def _facts(self, tenant: TenantId) -> AdmissionFacts:
        return AdmissionFacts(
            registry=self._choice.registry,
            tenant_id=tenant,
            tenant_weight=self._tenants.weight(tenant),
            now_ms=self._now_ms(),
            policy=self.policies.of_tenant(tenant),
        )

    def _envelope_of(self, message: Message[Any], delay: int | None) -> InferMessage:
        """The envelope of a message that a program sent to the actor ``infer`` by itself."""
        request = request_of_message(message, delay, now_ms=self._now_ms())
        # The same message sent again after a failure is the same job.
        correlation_id, retry_token = keys_of_message(message)
        request = replace(request, correlation_id=correlation_id, retry_token=retry_token)
        envelope = self.envelope(request)
        return replace(envelope, options={**message.options, **envelope.options})

    def _earlier(self, envelope: InferMessage) -> InferMessage | TetherError | None:
        """The job that the message's keys belong to."""
        request = envelope.request
        if not request.retry_token:
            return None
        correlation_id = request.correlation_id or request.retry_token
        earlier = self._reservations.job_with_key(envelope.tenant_id, correlation_id, request.retry_token)
        if earlier is None:
            return None
        is_same = is_same_job(earlier.digest, earlier.retry_of, request.digest(), envelope.retry_of)
        kind = AdmissionKind.KNOWN if is_same else AdmissionKind.CONFLICT
        keyed = replace(request, correlation_id=correlation_id)
        admission = Admission(kind, earlier.job_id, earlier.state, degraded_from=earlier.degraded_from)
        return admission_answer(envelope, keyed, admission)

    def _new_job(self, passed: _Passed, standings: tuple[RateStanding, ...]) -> _Prepared:
        envelope, meant, facts = passed.envelope, passed.meant, passed.facts
        job_id, asked = JobId(envelope.message_id), envelope.request
        retry_token = asked.retry_token or job_id
        correlation_id = asked.correlation_id or retry_token
        request = replace(asked, retry_token=retry_token, correlation_id=correlation_id)
        job, chosen = self._placed(passed, correlation_id)
        new_job = NewJob(
            job=job,
            correlation_id=request.correlation_id,
            retry_token=request.retry_token,
            retry_of=envelope.retry_of,
            digest=request.digest(),
            labels=request.labels,
            pool=chosen.pool,
            now_ms=facts.now_ms,
            decision=chosen.decision,
            bound=chosen.claims[0].bound if chosen.claims else NO_BOUND,
            others=chosen.claims[1:],
            quotas=quotas_meant(facts.policy),
            retention_ms=retention_meant(facts.policy),
            degraded_from=self._degraded_from(meant, job),
        )
        return _Prepared(envelope, request, new_job, standings)

    def _placed(self, passed: _Passed, correlation_id: str) -> tuple[Placeable, ChosenPools]:
        """The job and the choice of its pool: with a lesser model where it is not to wait and would have to.

        Raises:
          BreakerOpen, NoLiveWorker, QueueFull: No model that it may run on can begin with it.
        """
        envelope, meant, facts = passed.envelope, passed.meant, passed.facts
        try:
            if passed.shut_out is not None:
                raise passed.shut_out
            job = self._placeable(envelope, replace(meant, correlation_id=correlation_id), facts)
            is_hasty = _is_refused_rather(envelope, meant)
            return job, self._first_choice(job, facts.now_ms, is_hasty=is_hasty)
        except (BreakerOpen, NoLiveWorker, QueueFull) as refusal:
            for lesser in self._lesser(meant, facts):
                job = self._placeable(envelope, replace(lesser, correlation_id=correlation_id), facts)
                decision = self._choice.choose(job, is_new=True)
                if decision.pool is not None:
                    return job, self._choice.chosen_pools(decision, job.priority, facts.now_ms)
            raise refusal

    def _lesser(self, meant: JobRequest, facts: AdmissionFacts) -> Iterator[JobRequest]:
        """What may run instead of a request, and passes all gates."""
        model = facts.registry.find(meant.model)
        for lesser in degraded_requests(meant, facts.policy, model):
            if first_refusal(lesser, with_breakers(self._choice, lesser, facts)) is None:
                yield lesser

    def _degraded_from(self, meant: JobRequest, job: Placeable) -> str | None:
        asked = self._choice.registry.find(meant.model)
        is_same = (asked.name, asked.version) == (job.model, job.model_version)
        return None if is_same else f"{asked.name}@{asked.version}"

    def _first_choice(self, job: Placeable, now_ms: int, *, is_hasty: bool) -> ChosenPools:
        """
        Raises:
          NoLiveWorker, QueueFull: No pool takes a job that is not to wait.
        """
        if job.not_before > now_ms:
            # It is placed when it may start, by the fleet of then: until then it is to keep nobody out.
            return ChosenPools(())
        decision = self._choice.choose(job, is_new=True)
        if decision.pool is None and is_hasty and (refusal := self._shedding.refusal(job, decision)):
            raise refusal
        return self._choice.chosen_pools(decision, job.priority, now_ms)

    def _placeable(self, envelope: InferMessage, request: JobRequest, facts: AdmissionFacts) -> Placeable:
        assert facts.tenant_weight is not None
        return new_placeable(
            envelope,
            request,
            facts.registry.find(request.model),
            weight=facts.tenant_weight,
            region=self._region,
            now_ms=facts.now_ms,
        )


def _is_refused_rather(envelope: InferMessage, meant: JobRequest) -> bool:
    """Whether a job is refused rather than accepted to wait. What a task submitted, and what retries a dead
    letter, waits: nobody would hear of the refusal, or come again."""
    return waits_not(meant) and not envelope.is_promised and envelope.retry_of is None


def _charge_of(passed: _Passed | InferMessage | Exception) -> WantedCharge | None:
    if not isinstance(passed, _Passed) or not isinstance(passed.facts.policy, Policy):
        return None
    limits = passed.facts.policy.limits.rates
    if not limits:
        return None
    tokens = estimated_cost(passed.meant) + passed.meant.sampling.max_tokens
    return WantedCharge(passed.envelope.tenant_id, limits, tokens, passed.envelope.is_promised)
