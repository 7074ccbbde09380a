"""What every benchmark reports: figures with their goals, the machine, a table and a JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
      name: What was measured.
      value: The number as measured; None where it could not be.
      unit: Its unit, empty for a plain count.
      subject: What it was measured on, where a benchmark compares several.
      lower_bound: Whether waiting ended first, so that the true value is greater.
      ratio: The value divided by that of the benchmark's own subject, where it has one.
      spread: Lowest and highest of the rounds that ``value`` is the median of.
      goal: What the value should be, in words; empty where there is no goal.
      met: Whether it is; None where there is no goal.
    """

    name: str
    value: float | None
    unit: str = ""
    subject: str = ""
    lower_bound: bool = False
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Machine:
    """Where the figures were measured. Memory is in GiB."""

    cpu: str
    cores: int
    memory: float
    system: str
    python: str
    redis: str


def describe_machine(redis: str) -> Machine:
    """The machine that this runs on; ``redis`` is the version of the server used, or empty."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            cpu = value.strip()
            break
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)),
        memory=round(pages * size / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        redis=redis,
    )


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``distributions`` that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def shown(figure: Figure) -> str:
    """The figure as a table shows it: value, unit, and the ratio where there is one."""
    if figure.value is None:
        return "not measured"
    size = abs(figure.value)
    digits = 0 if size >= 100 or float(figure.value).is_integer() else 1 if size >= 10 else 2
    text = f"{'> ' if figure.lower_bound else ''}{figure.value:,.{digits}f}"
    if figure.unit:
        text += f" {figure.unit}"
    return text if figure.ratio is None else f"{text} (×{figure.ratio:.2f})"


def _verdict(figures: Iterable[Figure]) -> str:
    return "; ".join(
        f"{figure.goal}: {'met' if figure.met else 'not measured' if figure.met is None else 'MISSED'}"
        for figure in figures
        if figure.goal
    )


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table, padded for the terminal: a row a name, a column a subject, the goal last."""
    names = list(dict.fromkeys(figure.name for figure in figures))
    subjects = list(dict.fromkeys(figure.subject for figure in figures))
    rows = [["", *(subject or "measured" for subject in subjects), "goal"]]
    for name in names:
        of_name = [figure for figure in figures if figure.name == name]
        cells = {figure.subject: shown(figure) for figure in of_name}
        rows.append([name, *(cells.get(subject, "") for subject in subjects), _verdict(of_name)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_json(
    path: Path, name: str, date: str, machine: Machine, libraries: dict[str, str], figures: Sequence[Figure]
) -> None:
    """Write everything that ``table`` shows and what is needed to judge it."""
    report = {
        "benchmark": name,
        "date": date,
        "machine": asdict(machine),
        "libraries": libraries,
        "figures": [asdict(figure) for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
