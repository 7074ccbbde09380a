"""What a client is told whose tenant has spent what it may in a day or month.

Only the commit knows that, so it is no gate."""

from __future__ import annotations

from tether.errors import SpendingExceeded
from tether.spending import Overspent, Span, window_begins, window_ends_ms


def spending_refusal(overspent: Overspent, now_ms: int) -> SpendingExceeded:
    """Return the error of a job that has no room: of what, how much is left, and until when.

    Args:
      now_ms: Milliseconds since the epoch.
    """
    window = overspent.window
    begins = window_begins(window.span, window.number)
    when = f"{begins:%Y-%m}" if window.span is Span.MONTH else f"{begins:%Y-%m-%d}"
    what = "request" if overspent.unit == "requests" else "prompt and its longest answer"
    refusal = SpendingExceeded(
        f"tenant {window.tenant_id!r} may spend {overspent.limit} {overspent.unit} in the {window.span} "
        f"{when} (UTC), {overspent.left} of them are left, and this {what} needs more: wait until "
        "it ends, ask for less, or have the quota raised"
    )
    refusal.retry_after = max(0.0, (window_ends_ms(window) - now_ms) / 1000)
    return refusal
