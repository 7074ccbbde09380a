"""Dead letters as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tether.deaths import death_in_words, deaths_of_evidence
from tether_cli.jobs import age_text
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import time_text

if TYPE_CHECKING:
    from tether.dead_letters import DeadLetter, LetterDetails, LetterSummary, RetryLink


def letter_row(letter: DeadLetter, now_ms: int, *, with_tenant: bool) -> tuple[str, ...]:
    """A letter as a row of a table."""
    whose = (letter.tenant_id,) if with_tenant else ()
    reason = letter.reason if letter.problem is None else f"{letter.reason} ({letter.problem})".strip()
    cells = (
        *(letter.job_id, *whose, f"{age_text(now_ms - letter.created_at)} ago", reason),
        *("yes" if letter.retryable else "no", letter.model, str(len(letter.attempts) + letter.dropped)),
        letter.retry_token if letter.retried_as is None else f"retried as {letter.retried_as}",
    )
    return tuple(one_line(cell) or "-" for cell in cells)


def summary_text(summary: LetterSummary, now_ms: int) -> str:
    """How many letters are open, how old they are and when they expire, in one line."""
    count = f"{summary.open}{'' if summary.is_exact else ' or more'} open"
    if summary.oldest_at is None:
        return count
    oldest = f"{count}, the oldest {age_text(now_ms - summary.oldest_at)} old"
    if summary.next_expiry_at is None:
        return f"{oldest}; they do not expire"
    return f"{oldest}, which expires at {time_text(summary.next_expiry_at)}"


def letter_lines(letter: LetterDetails) -> list[tuple[str, str]]:
    """All that is known of a letter but its attempts, as names and values."""
    lines = [
        ("job", letter.job_id),
        ("tenant", letter.tenant_id),
        ("state", letter.state.value),
        ("reason", f"{letter.reason}{f': {letter.why}' if letter.why else ''}"),
        ("retryable", "yes" if letter.retryable else "no: only by force"),
        ("retry token", letter.retry_token or "-"),
        ("model", letter.model),
        ("pool", letter.pool or "-"),
        ("correlation id", letter.correlation_id),
        ("trace id", letter.trace_id or "-"),
        ("died", time_text(letter.created_at)),
        ("expires", time_text(letter.expires_at) if letter.expires_at is not None else "never")
        if letter.closed_at is None
        else ("closed", time_text(letter.closed_at)),
    ]
    if letter.error is not None:
        lines.append(("error", f"{letter.error.code}: {letter.error.message}"))
    if letter.problem is not None:
        lines.append(("problem", letter.problem))
    deaths = deaths_of_evidence(letter.evidence)
    lines += [(f"death {number}", death_in_words(death)) for number, death in enumerate(deaths, 1)]
    if len(letter.chain) > 1:
        lines += [
            (f"chain {number}", _link_text(link, letter)) for number, link in enumerate(letter.chain, 1)
        ]
    return lines


def _link_text(link: RetryLink, shown: LetterDetails) -> str:
    here = " (this one)" if link.job_id == shown.job_id else ""
    return f"{link.job_id} {link.state}{f' ({link.reason})' if link.reason else ''}{here}"
