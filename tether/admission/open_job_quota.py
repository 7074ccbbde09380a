"""What a tenant is told that has as many open jobs as it may: pure."""

from __future__ import annotations

from tether.errors import QuotaExceeded
from tether.ids import TenantId


def over_quota(tenant: TenantId, open_jobs: int) -> QuotaExceeded:
    """That a tenant with so many open jobs has reached its quota of them."""
    if open_jobs:
        return QuotaExceeded(
            f"tenant {tenant!r} has {open_jobs} open jobs, which is its quota: wait until some have ended"
        )
    error = QuotaExceeded(
        f"tenant {tenant!r} may have no open jobs: its quota of them is 0 until an operator raises it with "
        "`tether tenants set`"
    )
    # No client is to wait for that.
    error.retry_after = None
    return error
