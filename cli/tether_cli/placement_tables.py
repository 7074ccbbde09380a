"""Why a job is placed where it is, as `tether explain` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_table, time_text

if TYPE_CHECKING:
    from tether.explanations import Explanation, JobPlacements, PlacementRecord, PoolExplanation

_HOW = {
    "chosen": "chosen",
    "unserved": "no pool could serve it, or had room",
    "repeated": "its pool again, since Redis was built anew",
    "unknown": "nothing is kept of its choice, as of jobs of older versions",
    "unreadable": "what is kept of its choice cannot be read",
}


def print_explanation(explanation: Explanation) -> None:
    """Print a choice: the pick and why, then a table of its pools."""
    for line in explanation_lines(explanation):
        click.echo(line)
    if explanation.pools:
        click.echo()
        names = tuple(explanation.worth)
        columns = ("POOL", "COST", "WAIT", "TOTAL", "AHEAD", "SLOTS", "TOKENS/S", *names, "EXCLUDED")
        print_table(columns, [_pool_row(each, names) for each in explanation.pools])
        if any(each.terms for each in explanation.pools):
            say_aside(_cost_text(explanation))
    if explanation.omitted:
        say_aside(f"{explanation.omitted} further pools are not told.")


def print_placements(found: JobPlacements, dispatch: int | None = None) -> None:
    """Print how a job came to its pools, then the choice of one hand-over.

    Args:
      dispatch: Which one; None is the newest of which a choice is kept.
    """
    lines = [("job", found.job_id), ("state", found.state.value)]
    for name, value in lines:
        click.echo(f"{name:<8}{value}")
    if not found.placements:
        say_aside(
            "It has got no pool yet, and nothing is kept of a choice. "
            f"Why it waits says tether jobs show {found.job_id}"
        )
        return
    click.echo()
    columns = ("DISPATCH", "DECIDED", "POOL", "WAIT EXPECTED", "WAITED", "HOW")
    print_table(columns, [_placement_row(each) for each in found.placements])
    shown = _shown(found.placements, dispatch)
    if shown is None:
        return
    if shown.explanation is None:
        say_aside(f"Of hand-over {shown.dispatch}: {_HOW.get(shown.origin, shown.origin)}.")
        return
    click.echo(f"\ndispatch {shown.dispatch}, as it was decided at {time_text(shown.decided_at)}")
    print_explanation(shown.explanation)


def explanation_lines(explanation: Explanation) -> list[str]:
    """The pick and why, as lines."""
    lines = [f"pool    {one_line(explanation.pool or '-')}", f"why     {one_line(explanation.why)}"]
    picked = next((each for each in explanation.pools if each.pool == explanation.pool), None)
    if picked is not None and picked.wait_seconds is not None and picked.total_seconds is not None:
        loads = f", {picked.load_seconds:.3g} s of it to load the model" if picked.load_seconds else ""
        lines.append(f"wait    {picked.wait_seconds:.3g} s expected until it begins{loads}")
        lines.append(f"total   {picked.total_seconds:.3g} s until its last token, if it uses --max-tokens")
    return lines


def _shown(placements: Sequence[PlacementRecord], dispatch: int | None) -> PlacementRecord | None:
    if dispatch is not None:
        return next((each for each in placements if each.dispatch == dispatch), None)
    told = [each for each in placements if each.explanation is not None]
    return told[-1] if told else None


def _placement_row(record: PlacementRecord) -> tuple[str, ...]:
    cells = (
        str(record.dispatch),
        time_text(record.decided_at),
        record.pool or "-",
        _seconds(record.wait_seconds),
        _seconds(record.waited_seconds),
        _HOW.get(record.origin, record.origin),
    )
    return tuple(map(one_line, cells))


def _pool_row(pool: PoolExplanation, names: Sequence[str]) -> tuple[str, ...]:
    rate = "-" if pool.tokens_per_second is None else f"{pool.tokens_per_second:.4g}"
    if pool.is_measured is False:
        rate += " assumed"
    cells = (
        pool.pool,
        _seconds(pool.cost_seconds),
        _seconds(pool.wait_seconds),
        _seconds(pool.total_seconds),
        "-" if pool.ahead is None else f"{pool.ahead:.4g}",
        "-" if pool.slots is None else str(pool.slots),
        rate,
        *(f"{pool.terms[name]:.3g}" if name in pool.terms else "-" for name in names),
        "" if pool.excluded is None else f"{pool.excluded}: {pool.words}",
    )
    return tuple(map(one_line, cells))


def _cost_text(explanation: Explanation) -> str:
    worth = " + ".join(f"{seconds:.3g} * {name}" for name, seconds in explanation.worth.items())
    return f"cost = {explanation.depth_weight:.3g} * total - ({worth}), in seconds: the least is chosen."


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s" if abs(value) < 100 else f"{value:.0f} s"
