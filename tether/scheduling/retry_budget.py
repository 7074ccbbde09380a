"""How many retries a pool may have: pure accounts, and the gate that keeps one for each pool.

Where much fails, retries come on top of a load that the pool does not bear already. So they may be a share of
the first attempts that ended there, and always a few a second. What is above that waits until the account is
even again: it is delayed, and never refused.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from tether.ids import JobId, PoolName
from tether.outcomes import Fence
from tether.scheduling.retry_policy import PlannedRetry

MAX_POOLS = 4_096
"""Accounts that are kept. One that was not used for longest begins anew."""

MAX_REMEMBERED = 4_096
"""Attempts that are remembered, so that a transaction that runs again counts nothing twice."""

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class BudgetRules:
    """What a pool's account is credited with.

    Attributes:
      share: Retries for each first attempt that ended, 0 to 1.
      per_second: Retries a second, whatever else ends; above 0.
      burst: Retries that may be saved up, 1 or more.
      window_ms: For how long the rate of first attempts is looked back on.
      max_delay_ms: Longest that a retry waits for its pool.
    """

    share: float = 0.2
    per_second: float = 10.0
    burst: float = 100.0
    window_ms: int = 60_000
    max_delay_ms: int = 300_000


@dataclass(frozen=True, kw_only=True)
class BudgetAccount:
    """One pool's account.

    Attributes:
      balance: Retries that it may still have now; below 0 those that wait.
      firsts_per_second: First attempts that ended, averaged over the window.
      at_ms: Of when these are, in milliseconds since the epoch.
    """

    balance: float
    firsts_per_second: float
    at_ms: int

    @classmethod
    def opened(cls, rules: BudgetRules, now_ms: int) -> BudgetAccount:
        return cls(balance=rules.burst, firsts_per_second=0.0, at_ms=now_ms)

    def at(self, now_ms: int, rules: BudgetRules) -> BudgetAccount:
        """The same later on. A clock that was set back adds nothing."""
        passed = max(0, now_ms - self.at_ms)
        return BudgetAccount(
            balance=min(rules.burst, self.balance + rules.per_second * passed / 1000),
            firsts_per_second=self.firsts_per_second * math.exp(-passed / rules.window_ms),
            at_ms=now_ms,
        )

    def after_first(self, rules: BudgetRules) -> BudgetAccount:
        """A first attempt has ended, however."""
        return BudgetAccount(
            balance=min(rules.burst, self.balance + rules.share),
            firsts_per_second=self.firsts_per_second + 1000 / rules.window_ms,
            at_ms=self.at_ms,
        )

    def after_retry(self, rules: BudgetRules) -> tuple[BudgetAccount, int]:
        """One retry is granted. Return how many milliseconds it has to wait, too."""
        rate = rules.per_second + rules.share * self.firsts_per_second
        # What waits for longest as it is waits no longer for those behind it.
        balance = max(self.balance - 1, -rate * rules.max_delay_ms / 1000)
        delay_ms = min(rules.max_delay_ms, math.ceil(max(0.0, -balance) / rate * 1000))
        after = BudgetAccount(balance=balance, firsts_per_second=self.firsts_per_second, at_ms=self.at_ms)
        return after, delay_ms


class BudgetGate:
    """Keeps an account for each pool, in this process: of several orchestrators each settles its part of a
    pool's outcomes, and grants retries for that part. One pool's account says nothing of another's.

    Not safe to use from several threads at once: who holds it locks.
    """

    name = "budget"

    def __init__(self, rules: BudgetRules) -> None:
        self._rules = rules
        self._accounts: OrderedDict[PoolName | None, BudgetAccount] = OrderedDict()
        self._firsts: OrderedDict[tuple[JobId, Fence], int] = OrderedDict()
        self._granted: OrderedDict[tuple[JobId, Fence], int] = OrderedDict()

    def note_first(self, job_id: JobId, fence: Fence, pool: PoolName | None, now_ms: int) -> None:
        """A first attempt ended in a pool. The same one again changes nothing."""
        key = (job_id, fence)
        if key not in self._firsts:
            _remember(self._firsts, key, now_ms, MAX_REMEMBERED)
            account = self._account(pool, now_ms).after_first(self._rules)
            _remember(self._accounts, pool, account, MAX_POOLS)

    def opens_at(self, retry: PlannedRetry) -> int:
        key = (retry.job_id, retry.fence)
        opens_at = self._granted.get(key)
        if opens_at is None:
            account, delay_ms = self._account(retry.pool, retry.now_ms).after_retry(self._rules)
            _remember(self._accounts, retry.pool, account, MAX_POOLS)
            opens_at = retry.now_ms + delay_ms
            _remember(self._granted, key, opens_at, MAX_REMEMBERED)
        return opens_at

    def _account(self, pool: PoolName | None, now_ms: int) -> BudgetAccount:
        known = self._accounts.get(pool)
        return BudgetAccount.opened(self._rules, now_ms) if known is None else known.at(now_ms, self._rules)


def _remember(known: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
