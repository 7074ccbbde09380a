"""How long streams stood still when their workers were killed. Pure: over what clients wrote."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos_log import ChaosEntry, Received


@dataclass(frozen=True)
class Loss:
    """A running attempt whose worker was killed.

    Attributes:
      fault: Its number.
      type: Of the fault.
      at: When.
    """

    fault: int
    type: str
    at: float
    job_id: str


@dataclass(frozen=True)
class Gap:
    """From the kill to the first token of the next attempt, as a client got it.

    Attributes:
      type: Of the fault.
      seconds: How long.
    """

    type: str
    job_id: str
    seconds: float


def failover_gaps(losses: Sequence[Loss], entries: Iterable[ChaosEntry]) -> list[Gap]:
    """The gap of each loss whose job had a reader then, and went on with further tokens.

    A token counts from the next ``rerouted`` on: some that the former attempt made may come after its end. A
    job that loses its next worker too, before a token, has one gap, from the first.
    """
    events: dict[str, list[Received]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Received):
            events[entry.job_id].append(entry)
    for each in events.values():
        each.sort(key=lambda event: event.at)
    found = []
    covered: dict[str, float] = {}
    for loss in sorted(losses, key=lambda loss: loss.at):
        if loss.at < covered.get(loss.job_id, 0.0):
            continue
        after = events[loss.job_id]
        after = after[bisect_left(after, loss.at, key=lambda event: event.at) :]
        is_rerouted = False
        for event in after:
            is_rerouted = is_rerouted or event.kind == "rerouted"
            if is_rerouted and event.kind == "delta":
                covered[loss.job_id] = event.at
                found.append(Gap(loss.type, loss.job_id, event.at - loss.at))
                break
    return found


def distribution(gaps: Sequence[Gap]) -> dict[str, float]:
    """Count, median, 95th percentile and maximum, in seconds; empty where there are none."""
    seconds = sorted(gap.seconds for gap in gaps)
    if not seconds:
        return {}
    p95 = statistics.quantiles(seconds, n=100, method="inclusive")[94] if len(seconds) > 1 else seconds[0]
    return {
        "count": len(seconds),
        "median": statistics.median(seconds),
        "p95": p95,
        "max": seconds[-1],
    }
