"""Asks the rate limits of tenants: in Redis, where all processes share them, or here while Redis is away."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import redis

from tether.broker.rate_buckets import BucketChange, ChargedGroup, ChargeGroup, RateBuckets
from tether.clocks import boot_seconds
from tether.errors import CommitUnknown, InvalidRequest, RateLimited
from tether.ids import TenantId
from tether.rate_limits import (
    MAX_BURST_SECONDS,
    RateLimits,
    RateMeasure,
    RateStanding,
    RateVerdict,
    TakenUnits,
    full_again_ms,
    give_back_to_buckets,
    owe_to_buckets,
    standings,
    take_from_buckets,
)
from tether.scheduling.rate_charges import ChargedRequests, RateCharge, WantedCharge
from tether.scheduling.rate_leases import RateLeases
from tether.scheduling.shared_charges import SharedCharges
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

REST_SECONDS = 2.0
"""For so long Redis is not asked again after it did not answer; then one request tries it."""

LOCAL_BUCKETS = 4_096
"""Buckets that are kept here before those are looked for that are full again."""


class RateLimiter:
    """Thread-safe. Threads that ask at once share a round trip. It owns the buckets that it is given;
    :meth:`close` closes them.

    While Redis is away, each process has buckets of its own, by the same rule: n gateways then admit up to n
    times as much. They begin with what Redis said last.
    """

    def __init__(self, buckets: RateBuckets, *, clock: Callable[[], float] = boot_seconds) -> None:
        """
        Args:
          clock: Seconds, by which the buckets of this process fill.
        """
        self._buckets = buckets
        self._shared = SharedCharges(self._in_redis)
        self._clock = clock
        self._lock = threading.Lock()
        self._local: dict[TenantId, tuple[RateLimits, TakenUnits]] = {}
        self._prune_above = LOCAL_BUCKETS
        self._leases = RateLeases(self._ask, self._known, clock)
        self._is_away = False
        self._is_tried = False
        self._next_try = 0.0
        self._log = get_logger("tether.scheduling")

    def close(self) -> None:
        """Close the connections."""
        self._buckets.close()

    def charge(
        self, wanted: Sequence[WantedCharge | None]
    ) -> list[RateCharge | RateLimited | InvalidRequest | None]:
        """Charge requests, each tenant's in their order, all in one round trip; none where nobody is limited.

        Returns:
          For each what was taken, or why it is refused; None where there is nothing to ask.
        """
        answers: list[RateCharge | RateLimited | InvalidRequest | None] = [None] * len(wanted)
        members: dict[tuple[TenantId, bool], list[int]] = {}
        for number, one in enumerate(wanted):
            if one is None or not one.limits:
                continue
            max_tokens = one.limits.max_tokens
            if max_tokens is not None and one.tokens > max_tokens and not one.is_owed:
                answers[number] = _too_large(one, max_tokens)
            else:
                members.setdefault((one.tenant, one.is_owed), []).append(number)
        groups = [
            _group_of([one for number in numbers if (one := wanted[number])]) for numbers in members.values()
        ]
        if not groups:
            return answers
        for numbers, group, charged in zip(
            members.values(), groups, self._leases.charge(groups), strict=True
        ):
            is_local = charged is None
            if is_local:
                metrics.RATE_LIMITS_ASKED_LOCALLY.inc(len(numbers))
            result = charged or self._here(group)
            left = standings(result.taken, group.limits)
            verdicts = result.verdicts or (RateVerdict(),) * len(numbers)
            for number, verdict in zip(numbers, verdicts, strict=True):
                one = wanted[number]
                assert one is not None
                if verdict.is_admitted:
                    answers[number] = RateCharge(one, result.taken.at_ms, is_local, left)
                else:
                    answers[number] = _refusal(one, verdict, left)
        return answers

    @contextlib.contextmanager
    def charged(self, wanted: Sequence[WantedCharge | None]) -> Iterator[ChargedRequests]:
        """Charge requests, and put back what was not kept at the end, where that is known."""
        requests = ChargedRequests(self.charge(wanted))
        try:
            yield requests
        except CommitUnknown:
            raise
        except BaseException:
            self.give_back(requests.unused())
            raise
        self.give_back(requests.unused())

    def give_back(self, charges: Iterable[RateCharge]) -> None:
        """Put back what was taken for requests that became no jobs. Raises nothing."""
        groups: dict[tuple[TenantId, int, bool], list[RateCharge]] = {}
        for one in charges:
            groups.setdefault((one.wanted.tenant, one.at_ms, one.is_local), []).append(one)
        back = {
            key: ChargeGroup(
                BucketChange.GIVE,
                group[0].wanted.tenant,
                group[0].wanted.limits,
                tuple(one.wanted.tokens for one in group),
                group[0].at_ms,
            )
            for key, group in groups.items()
        }
        in_redis = [group for (*_, is_local), group in back.items() if not is_local]
        if in_redis:
            # Where Redis is away, they fill again by themselves.
            self._ask(in_redis)
        for (*_, is_local), group in back.items():
            if is_local:
                self._here(group)

    def _ask(self, groups: Sequence[ChargeGroup]) -> list[ChargedGroup] | None:
        """Charge groups in Redis, with those of other threads; None while it is away."""
        is_mine = False
        with self._lock:
            if self._is_away:
                if self._is_tried or self._clock() < self._next_try:
                    return None
                # Others go on without it while this one waits: they do not even stand behind it.
                self._is_tried = is_mine = True
        try:
            return self._shared.charge(groups)
        finally:
            if is_mine:
                with self._lock:
                    self._is_tried = False

    def _in_redis(self, groups: Sequence[ChargeGroup]) -> list[ChargedGroup] | None:
        """What Redis says; None while it is away."""
        with self._lock:
            if self._is_away and not self._is_tried:
                return None
        try:
            charged = self._buckets.charge(groups)
        except redis.RedisError as error:
            with self._lock:
                is_first, self._is_away = not self._is_away, True
                self._next_try = self._clock() + REST_SECONDS
            if is_first:
                self._log.warning(
                    "Redis cannot be asked for rate limits. Until it can, this process counts for itself.",
                    error=type(error).__name__,
                )
            return None
        now_ms = self._now_ms()
        with self._lock:
            has_returned, self._is_away = self._is_away, False
            for group, result in zip(groups, charged, strict=True):
                self._local[group.tenant] = group.limits, result.taken._replace(at_ms=now_ms)
            self._prune(now_ms)
        if has_returned:
            self._log.info("Rate limits are counted in Redis again.")
        return charged

    def _here(self, group: ChargeGroup) -> ChargedGroup:
        with self._lock:
            now_ms = self._now_ms()
            _, taken = self._local.get(group.tenant, (group.limits, TakenUnits(at_ms=now_ms)))
            verdicts: tuple[RateVerdict, ...] = ()
            if group.change is BucketChange.TAKE:
                taken, verdicts = take_from_buckets(taken, group.limits, group.costs, now_ms)
            elif group.change is BucketChange.OWE:
                taken = owe_to_buckets(taken, group.limits, group.costs, now_ms)
            else:
                taken = give_back_to_buckets(taken, group.limits, group.costs, group.taken_at_ms, now_ms)
            self._local[group.tenant] = group.limits, taken
            self._prune(now_ms)
        return ChargedGroup(taken, verdicts)

    def _known(self, tenant: TenantId) -> TakenUnits | None:
        with self._lock:
            known = self._local.get(tenant)
        return None if known is None else known[1]

    def _prune(self, now_ms: int) -> None:
        if len(self._local) <= self._prune_above:
            return
        self._local = {
            tenant: (limits, taken)
            for tenant, (limits, taken) in self._local.items()
            if taken.at_ms + full_again_ms(taken, limits) > now_ms
        }
        self._prune_above = max(2 * len(self._local), LOCAL_BUCKETS)
        self._leases.forget(MAX_BURST_SECONDS)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _group_of(wanted: Sequence[WantedCharge]) -> ChargeGroup:
    # Of one call, all of one tenant have the same limits.
    first = wanted[0]
    change = BucketChange.OWE if first.is_owed else BucketChange.TAKE
    return ChargeGroup(change, first.tenant, first.limits, tuple(one.tokens for one in wanted))


def _refusal(wanted: WantedCharge, verdict: RateVerdict, left: tuple[RateStanding, ...]) -> RateLimited:
    by_requests = verdict.requests_wait_ms >= verdict.tokens_wait_ms
    measure = RateMeasure.REQUESTS if by_requests else RateMeasure.TOKENS
    rate = wanted.limits.requests_per_minute if by_requests else wanted.limits.tokens_per_minute
    wait_ms = max(verdict)
    needs = "" if by_requests else f", and this request counts as {wanted.tokens}"
    error = RateLimited(
        f"tenant {wanted.tenant!r} has used up its rate limit of {rate} {measure} a minute{needs}: try again "
        f"in {wait_ms / 1000:.3g} s"
    )
    error.retry_after = wait_ms / 1000
    error.measure = measure
    error.standings = left
    return error


def counted(refusal: RateLimited | InvalidRequest) -> RateLimited | InvalidRequest:
    """Return the refusal, which its client is about to be told."""
    if isinstance(refusal, RateLimited) and refusal.measure is not None:
        metrics.RATE_LIMITED.labels(limit=refusal.measure.value).inc()
    return refusal


def _too_large(wanted: WantedCharge, max_tokens: int) -> InvalidRequest:
    error = InvalidRequest(
        f"the request counts as {wanted.tokens} tokens (its prompt, as estimated, and max_tokens), and the "
        f"rate limit of tenant {wanted.tenant!r} has room for {max_tokens} at once: lower max_tokens, "
        "shorten the prompt, or raise tokens_per_minute or burst_seconds in the limits of its policy"
    )
    error.param = "max_tokens"
    return error
