"""Reports of what tenants have used, with what is spent and held of a tenant's quotas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection

from tether.errors import InvalidRequest, PolicyUnreadable
from tether.ids import TenantId
from tether.policies.decisions import spending_quotas
from tether.policies.kept import UnreadablePolicy, kept_policy
from tether.spending import DAY_MS, UNLIMITED, Amount, SpendingQuotas, window_begins, windows_at
from tether.store.policies import policy_of
from tether.store.spending import spending_in
from tether.store.usage import MAX_USAGE_ROWS, Usage, usage_of

_EPOCH = date(1970, 1, 1)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
DEFAULT_DAYS = 30
"""Days of a report that names none, today included."""


@dataclass(frozen=True)
class UsageDays:
    """The days of a report, both included; as days of UTC since January 1, 1970."""

    first: int
    last: int


@dataclass(frozen=True)
class QuotaUse:
    """What is spent of one quota.

    Attributes:
      unit: ``requests`` or ``tokens``.
      per: ``day`` or ``month``.
      begins: The first day of the window.
      spent: By jobs that have ended.
      held: By open jobs, estimated.
    """

    unit: str
    per: str
    begins: date
    limit: int
    spent: int
    held: int


@dataclass(frozen=True)
class UsageReport:
    """What was used.

    Attributes:
      is_whole: Whether these are all rows; there are never more than ``MAX_USAGE_ROWS``.
      quotas: Of the tenant, as they are now; None in a report of all tenants.
    """

    days: UsageDays
    rows: Sequence[Usage]
    is_whole: bool
    quotas: Sequence[QuotaUse] | None


def read_usage_days(first: str | None, last: str | None, now_ms: int) -> UsageDays:
    """Return the days from one date to another, as ``2026-12-31``: without them the last 30.

    Raises:
      InvalidRequest: One is no date, or the first is after the last.
    """
    today = now_ms // DAY_MS
    to = today if last is None else _day(last, "to")
    since = to - DEFAULT_DAYS + 1 if first is None else _day(first, "from")
    if since > to:
        raise InvalidRequest("the first day is after the last: give `from` and `to` in their order")
    return UsageDays(since, to)


def usage_report(
    connection: Connection, days: UsageDays, tenant: TenantId | None, now_ms: int
) -> UsageReport:
    """Return what a tenant used on these days, or all tenants.

    Raises:
      PolicyUnreadable: The tenant's policy, which has its quotas.
    """
    rows = usage_of(connection, days.first, days.last, () if tenant is None else (tenant,))
    quotas = None if tenant is None else _uses(connection, tenant, now_ms)
    return UsageReport(days, rows, len(rows) < MAX_USAGE_ROWS, quotas)


def usage_report_to_json(report: UsageReport) -> dict[str, Any]:
    """Return the document that says the same."""
    document: dict[str, Any] = {
        "object": "usage",
        "from": day_text(report.days.first),
        "to": day_text(report.days.last),
        "is_whole": report.is_whole,
        "data": [{**asdict(row), "day": day_text(row.day)} for row in report.rows],
    }
    if report.quotas is not None:
        document["quotas"] = [{**asdict(use), "begins": use.begins.isoformat()} for use in report.quotas]
    return document


def _uses(connection: Connection, tenant: TenantId, now_ms: int) -> list[QuotaUse]:
    quotas = _quotas_of(connection, tenant)
    windows = windows_at(tenant, now_ms)
    found = spending_in(connection, windows)
    return [
        QuotaUse(
            unit,
            window.span,
            window_begins(window.span, window.number),
            limit,
            getattr(found[window].spent, unit),
            getattr(found[window].held, unit),
        )
        for window in windows
        for unit, limit in zip(Amount._fields, quotas.limits(window.span), strict=True)
        if limit is not None
    ]


def _quotas_of(connection: Connection, tenant: TenantId) -> SpendingQuotas:
    row = policy_of(connection, tenant)
    if row is None:
        return UNLIMITED
    policy = kept_policy(row.version, row.document)
    if isinstance(policy, UnreadablePolicy):
        raise PolicyUnreadable(
            f"version {row.version} of the policy of tenant {tenant!r} cannot be read, and with it its "
            "quotas: set it anew (tether policies set)"
        )
    return spending_quotas(policy)


def _day(text: str, name: str) -> int:
    try:
        found = date.fromisoformat(text) if _DAY.match(text) else None
    except ValueError:
        found = None
    if found is None:
        raise InvalidRequest(f"{name}={text[:40]!r} is not a day: write it as in 2026-12-31")
    return (found - _EPOCH).days


def day_text(day: int) -> str:
    """Return a day as in ``2026-12-31``; it counts from January 1, 1970."""
    return (_EPOCH + timedelta(days=day)).isoformat()
