"""What chaos runs found: a file for each stage, and the table over all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from chaos_failover import Gap, distribution
from chaos_promises import Promise
from report import Figure

COUNTED = (Promise.LOST, Promise.DOUBLED, Promise.WRONGLY_DEAD)
"""Broken promises with a row of their own in the table."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Attributes:
      name: Of the stage.
      model: ``null`` or ``demo``.
      seconds: From the start of the installation to the judgement.
      accepted: Jobs.
      states: How many of them ended in which.
      faults: By type, how many there were.
      effects: By type, how often what happened by them.
      deaths: Faults that killed processes.
      attempts_lost: As the database has them.
      violations: Promises that were broken, each with the words.
      gaps: Of streams whose workers were killed: until they went on.
      commit: Of the source that ran; empty where that is not known.
    """

    name: str
    model: str
    seed: int
    seconds: float
    accepted: int
    states: dict[str, int]
    faults: dict[str, int]
    effects: dict[str, dict[str, int]]
    deaths: int
    attempts_lost: int
    violations: list[tuple[str, str]]
    gaps: list[Gap] = field(default_factory=list)
    commit: str = ""


def write_result(result: RunResult, file: Path) -> None:
    """Write it, whole or not at all."""
    aside = file.with_suffix(".new")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    os.rename(aside, file)


def read_result(file: Path) -> RunResult:
    """What :func:`write_result` wrote."""
    return msgspec.json.decode(file.read_bytes(), type=RunResult)


def broken(results: Sequence[RunResult], promise: Promise | None = None) -> int:
    """How often a promise was broken; any, where none is named."""
    return sum(promise in (None, name) for result in results for name, _ in result.violations)


def figures_over(results: Sequence[RunResult]) -> list[Figure]:
    """The rows of the table, with a column for each model."""
    found = []
    for model in dict.fromkeys(result.model for result in results):
        found += _figures_of([result for result in results if result.model == model], model)
    return found


def _figures_of(results: Sequence[RunResult], model: str) -> list[Figure]:
    def row(name: str, value: float | None, unit: str = "", **more: Any) -> Figure:
        return Figure(name, value, unit, model, **more)

    def none(name: str, value: int) -> Figure:
        return row(name, value, goal="none", met=value == 0)

    faults: Counter[str] = Counter()
    for result in results:
        faults.update(result.faults)
    figures = [
        row("jobs", sum(result.accepted for result in results)),
        row("processes killed", sum(result.deaths for result in results)),
        row("other faults", faults.total() - sum(result.deaths for result in results)),
        row("attempts lost", sum(result.attempts_lost for result in results)),
        *(none(promise.value, broken(results, promise)) for promise in COUNTED),
        none("other promises broken", broken(results) - sum(broken(results, one) for one in COUNTED)),
    ]
    gaps = [gap for result in results for gap in result.gaps]
    for kind in sorted({gap.type for gap in gaps}):
        of_kind = distribution([gap for gap in gaps if gap.type == kind])
        figures.append(row(f"{kind}: streams that went on", of_kind["count"]))
        figures += [
            row(f"{kind}: until the next token, {name}", of_kind[name], "s")
            for name in ("median", "p95", "max")
        ]
    for kind, count in sorted(faults.items()):
        effects: Counter[str] = Counter()
        for result in results:
            effects.update(result.effects.get(kind, {}))
        figures.append(row(f"{kind}: faults", count))
        figures += [row(f"{kind}: {what}", times) for what, times in sorted(effects.items()) if times]
    return figures
