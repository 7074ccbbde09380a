"""Quotas of what a tenant may spend in a day and a month of UTC: requests and tokens. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from tether.ids import TenantId

DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)


class Span(StrEnum):
    """How long a window of spending is."""

    DAY = "day"
    MONTH = "month"


class Window(NamedTuple):
    """One day or month of one tenant.

    Attributes:
      number: Days or months since January 1, 1970.
    """

    tenant_id: TenantId
    span: Span
    number: int


class Amount(NamedTuple):
    """What is spent, or may be."""

    requests: int
    tokens: int

    def plus(self, other: Amount) -> Amount:
        return Amount(self.requests + other.requests, self.tokens + other.tokens)

    def minus(self, other: Amount) -> Amount:
        return Amount(self.requests - other.requests, self.tokens - other.tokens)


NOTHING = Amount(0, 0)


@dataclass(frozen=True, kw_only=True)
class SpendingQuotas:
    """How much a tenant may spend in each day and month; None is without limit.

    A job spends one request and the tokens of its prompt and answer.
    """

    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    requests_per_month: int | None = None
    tokens_per_month: int | None = None

    @property
    def is_unlimited(self) -> bool:
        return not any(self.limits(span) != (None, None) for span in Span)

    def limits(self, span: Span) -> tuple[int | None, int | None]:
        """The most requests and the most tokens in such a window."""
        if span is Span.DAY:
            return self.requests_per_day, self.tokens_per_day
        return self.requests_per_month, self.tokens_per_month


UNLIMITED = SpendingQuotas()
"""Of tenants without such quotas."""


class Overspent(NamedTuple):
    """Why a job is refused.

    Attributes:
      unit: ``requests`` or ``tokens``.
      limit: How many of these the window has.
      left: How many of them are not spent or held.
      window: Which one it is.
      wanted: How many of them the job counts for.
    """

    unit: str
    limit: int
    left: int
    window: Window
    wanted: int

    @property
    def is_for_good(self) -> bool:
        """Whether no window of that length could ever take the job."""
        return self.wanted > self.limit


def windows_at(tenant: TenantId, now_ms: int) -> tuple[Window, Window]:
    """The day and the month that a job counts in which is accepted now, in milliseconds since the epoch."""
    day = now_ms // DAY_MS
    at = _EPOCH + timedelta(days=day)
    return Window(tenant, Span.DAY, day), Window(tenant, Span.MONTH, (at.year - 1970) * 12 + at.month - 1)


def window_begins(span: Span, number: int) -> date:
    """The first day of a window."""
    if span is Span.DAY:
        return _EPOCH + timedelta(days=number)
    return date(1970 + number // 12, number % 12 + 1, 1)


def window_ends_ms(window: Window) -> int:
    """When a window ends, in milliseconds since the epoch."""
    after = window_begins(window.span, window.number + 1)
    return int(datetime(after.year, after.month, after.day, tzinfo=UTC).timestamp()) * 1000


def overspent(
    quotas: SpendingQuotas, wanted: Amount, spent: dict[Window, Amount], windows: tuple[Window, ...]
) -> Overspent | None:
    """Return why a job that wants so much has no room in one of its windows; None where it has.

    What no window could ever take comes first: waiting would not help.

    Args:
      spent: What was spent in each window, and what is held of it.
    """
    found = [
        Overspent(unit, limit, max(0, limit - so_far), window, amount)
        for window in windows
        for unit, limit, amount, so_far in zip(
            Amount._fields, quotas.limits(window.span), wanted, spent[window], strict=True
        )
        if limit is not None and so_far + amount > limit
    ]
    return next((each for each in found if each.is_for_good), next(iter(found), None))


def truly_spent(*, is_success: bool, is_stopped: bool, input_tokens: int, output_tokens: int) -> Amount:
    """What a job has spent in the end: what it was given if it succeeded, or was stopped by its client or its
    time limit after it had begun; nothing where it failed.

    Args:
      is_stopped: Whether it was cancelled or has expired.
    """
    tokens = input_tokens + output_tokens
    return Amount(1, tokens) if is_success or (is_stopped and tokens > 0) else NOTHING
