"""What a client is told whose tenant has spent what it may in a day or month.

Only the commit knows that, so it is no gate."""

from __future__ import annotations

from tether.errors import InvalidRequest, SpendingExceeded
from tether.spending import Overspent, Span, window_begins, window_ends_ms


def spending_refusal(overspent: Overspent, now_ms: int) -> SpendingExceeded | InvalidRequest:
    """Return the error of a job that has no room: of what, how much is left, and until when.

    One that no day or month could ever take is invalid: its client must not wait for the next.

    Args:
      now_ms: Milliseconds since the epoch.
    """
    if overspent.is_for_good:
        return _never_fits(overspent)
    window = overspent.window
    begins = window_begins(window.span, window.number)
    when = f"{begins:%Y-%m}" if window.span is Span.MONTH else f"{begins:%Y-%m-%d}"
    refusal = SpendingExceeded(
        f"tenant {window.tenant_id!r} may spend {overspent.limit} {overspent.unit} in the {window.span} "
        f"{when} (UTC), {overspent.left} of them are left, and {_counts_for(overspent)}: wait until "
        "it ends, ask for less, or have the quota raised"
    )
    refusal.retry_after = max(0.0, (window_ends_ms(window) - now_ms) / 1000)
    return refusal


def _never_fits(overspent: Overspent) -> InvalidRequest:
    window, unit = overspent.window, overspent.unit
    quota = f"{unit}_per_{window.span}"
    if overspent.limit == 0:
        return InvalidRequest(
            f"tenant {window.tenant_id!r} may spend no {unit} in any {window.span}: its policy sets {quota} "
            "to 0, and an operator must raise that first"
        )
    error = InvalidRequest(
        f"{_counts_for(overspent)}, and tenant {window.tenant_id!r} may spend {overspent.limit} in a whole "
        f"{window.span}: lower max_tokens, shorten the prompt, or have {quota} raised in the quotas of its "
        "policy"
    )
    error.param = "max_tokens"
    return error


def _counts_for(overspent: Overspent) -> str:
    if overspent.unit == "requests":
        return "this request counts as one"
    return f"this request counts as {overspent.wanted} tokens (its prompt, as estimated, and max_tokens)"
