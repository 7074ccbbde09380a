"""The breakers that all gateways and orchestrators share: read from Redis, decided, and written again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tether.broker.pools.breaker_records import BreakerRecord, BreakerRecords
from tether.broker.pools.pools import Pools
from tether.ids import JobId, PoolName, TenantId
from tether.models.registry import Registry, is_pool_of, region_of_pool
from tether.outcomes import Outcome
from tether.scheduling.attempt_samples import AttemptSample
from tether.scheduling.breaker import (
    CLOSED_BREAKER,
    Breaker,
    BreakerName,
    BreakerProbe,
    BreakerRules,
    claimed_breaker,
    closed_breaker,
    freed_breaker,
)
from tether.scheduling.breaker_codec import (
    breaker_from_bytes,
    breaker_to_bytes,
    sample_to_bytes,
    samples_from_bytes,
)
from tether.scheduling.outcome_samples import samples_of

MAX_TRIES = 8
"""How often a change is tried while others write the same breaker."""

MAX_NAME_BYTES = 512
"""Of a breaker's name, as the scripts have it."""

Decision = Callable[[Breaker, Sequence[AttemptSample], int], Breaker | None]
"""What becomes of a breaker, by the attempts that ended lately and the time; None where it stays as it is."""


class ReadBreaker(NamedTuple):
    """A breaker as Redis has it, the attempts that ended lately, and Redis's time in milliseconds."""

    name: BreakerName
    breaker: Breaker
    samples: Sequence[AttemptSample]
    now: int
    record: BreakerRecord


class SharedBreakers:
    """Thread-safe. All methods raise ``OUTAGE_ERRORS`` where Redis is away.

    Each change is made of what was read, and written only if nobody has written meanwhile: however many
    processes decide, each decision is one of them, and one of two that ask for the probe gets it.

    Attributes:
      rules: When they open and close.
    """

    def __init__(self, pools: Pools, registry: Registry, rules: BreakerRules) -> None:
        self.rules = rules
        self._records = BreakerRecords(pools)
        self._registry = registry

    def name_of(self, pool: PoolName) -> BreakerName | None:
        """The breaker of a pool; None where its model is not configured."""
        region = region_of_pool(pool)
        model = next((each for each in self._registry.models if is_pool_of(pool, each)), None)
        return None if region is None or model is None else BreakerName(model.name, model.version, region)

    def note(self, ended: Iterable[tuple[Outcome, TenantId]], silent_too: bool) -> None:
        """Note the attempts that ended.

        Args:
          silent_too: Whether also those that say nothing: a probe may be among them.
        """
        texts: dict[str, list[bytes]] = {}
        for outcome, tenant in ended:
            for end, sample in samples_of(outcome, tenant):
                name = self.name_of(end.pool) if sample.blame is not None or silent_too else None
                if name is not None:
                    texts.setdefault(name.text, []).append(sample_to_bytes(sample))
        if texts:
            self._records.note(texts, 2 * self.rules.window_ms, self.rules.max_of_tenant)

    def read_all(self, since: int) -> list[ReadBreaker]:
        """All breakers with attempts since a time by Redis's clock, and all that are not closed."""
        names = self._records.names(since)
        return self._read([name for text in names if (name := _name(text)) is not None])

    def told(self) -> dict[BreakerName, Breaker]:
        """The breakers that are not closed."""
        found: dict[BreakerName, Breaker] = {}
        for text, data in self._records.told().items():
            name, breaker = _name(text), breaker_from_bytes(data)
            if name is not None and breaker is not None and breaker.cause is not None:
                found[name] = breaker
        return found

    def change(self, name: BreakerName, decide: Decision) -> Breaker:
        """Change a breaker. Return it as it is then.

        Raises:
          BreakerContended: Others wrote it all the while.
        """
        for _ in range(MAX_TRIES):
            (read,) = self._read([name])
            breaker = decide(read.breaker, read.samples, read.now)
            if breaker is None:
                return read.breaker
            if self.write(read, breaker):
                return breaker
        raise BreakerContended(f"breaker {name.text} was written by others all the while")

    def write(self, read: ReadBreaker, breaker: Breaker) -> bool:
        """Write what was made of a breaker that was read. Return whether nobody was faster."""
        data = breaker_to_bytes(breaker)
        return self._records.write(read.name.text, read.record, data, b"" if breaker.cause is None else data)

    def claim(self, name: BreakerName, job_id: JobId, tenant: TenantId) -> bool:
        """Whether a job may pass a breaker; where that is half-open, it is its probe from then on."""
        may_pass = False

        def decide(breaker: Breaker, samples: Sequence[AttemptSample], now: int) -> Breaker | None:
            nonlocal may_pass
            probe = BreakerProbe(job_id=job_id, tenant=tenant, claimed_at=now)
            after = claimed_breaker(breaker, probe, self.rules)
            may_pass = after is not None
            return None if after == breaker else after

        try:
            self.change(name, decide)
        except BreakerContended:
            return False
        return may_pass

    def free(self, name: BreakerName, probe: BreakerProbe) -> None:
        """Let another job try: this one is over. Where others write the breaker all the while, it stays."""
        with contextlib.suppress(BreakerContended):
            self.change(name, lambda breaker, samples, now: freed_breaker(breaker, probe))

    def reset(self, name: BreakerName) -> Breaker:
        """Close a breaker and forget what it knows, its baseline too. Return what it was.

        Raises:
          BreakerContended: Others wrote it all the while.
        """
        former = CLOSED_BREAKER

        def decide(breaker: Breaker, samples: Sequence[AttemptSample], now: int) -> Breaker:
            nonlocal former
            former = breaker
            return Breaker(since=closed_breaker(breaker, now).since)

        self.change(name, decide)
        return former

    def _read(self, names: Sequence[BreakerName]) -> list[ReadBreaker]:
        records = self._records.read([name.text for name in names]) if names else {}
        return [
            ReadBreaker(
                name,
                breaker_from_bytes(record.kept) or CLOSED_BREAKER,
                samples_from_bytes(record.attempts),
                record.now,
                record,
            )
            for name in names
            for record in (records[name.text],)
        ]


class BreakerContended(Exception):
    """A breaker could not be changed, since others wrote it all the while."""


def _name(text: str) -> BreakerName | None:
    # What was no UTF-8 is not ours, and could not be written again by this name.
    if not text.isprintable() or "\ufffd" in text or len(text.encode()) > MAX_NAME_BYTES:
        return None
    try:
        return BreakerName.of_text(text)
    except ValueError:
        return None
