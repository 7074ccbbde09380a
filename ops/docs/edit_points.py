"""Counts the files that changes of each kind cost: product code and hand-written documentation.

Tests do not count, nor do pages, or regions of pages, that ops/generate-docs makes. Without arguments,
a table of the kinds of changes is printed, from the branches edit-points/<kind> and
edit-points/before/<kind>, each one commit; with arguments, what each range or commit costs, and its files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BRANCHES = "edit-points"
NOT_COUNTED = ("tests/", "tether/discovery/swarm/sidecar/test/")
WHOLE_PAGE_MARK = "by ops/generate-docs: change it there. -->"
END_MARK = "<!-- End of what is made. -->"


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    Attributes:
      branch: Where it was done, below ``edit-points/``.
      goal: Files that it may cost.
      before: What it cost before the fields had a table, counted by reading; a branch counts more.
    """

    name: str
    branch: str
    goal: int
    before: int


KINDS = (
    Kind("a stored job field", "stored-field", 6, 20),
    Kind("a job field that is not stored", "unstored-field", 4, 11),
    Kind("a route with its method in the SDK", "route", 5, 11),
    Kind("a setting", "setting", 2, 3),
    Kind("a loop of the orchestrator", "loop", 2, 2),
    Kind("a verb of the command", "verb", 2, 2),
    Kind("a script in Redis", "script", 3, 4),
)


def git(*arguments: str) -> str:
    """Return what git prints.

    Raises:
      subprocess.CalledProcessError: It failed.
    """
    return subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True).stdout


def written_by_hand(page: str) -> str:
    """Return a page without what is made from the code: a region between two marks, or all after a mark
    that no other ends."""
    kept: list[str] = []
    is_made = False
    for line in page.splitlines():
        if line.endswith(WHOLE_PAGE_MARK):
            is_made = True
        elif line == END_MARK:
            is_made = False
        elif not is_made:
            kept.append(line)
    return "\n".join(kept)


def counted(paths: Iterable[str], before: str, after: str) -> Iterator[str]:
    """Yield the paths that count among those that differ between two commits."""
    for path in paths:
        if path.startswith(NOT_COUNTED):
            continue
        if path.endswith(".md") and written_by_hand(_page(before, path)) == written_by_hand(
            _page(after, path)
        ):
            continue
        yield path


def files_of(change: str) -> list[str]:
    """Return the files that a range (``a..b``) or a single commit costs."""
    before, dots, after = change.partition("..")
    if not dots:
        before, after = f"{change}^", change
    names = git("diff", "--name-only", "--no-renames", before, after).splitlines()
    return list(counted(names, before, after))


def table(kinds: Iterable[Kind]) -> str:
    """Return the table of kinds, in Markdown."""
    lines = ["| kind of change | goal | before | after |", "|---|---|---|---|"]
    for kind in kinds:
        before = _files_of_branch(f"{BRANCHES}/before/{kind.branch}")
        after = _files_of_branch(f"{BRANCHES}/{kind.branch}")
        told_before = f"{kind.before} (by reading)" if before is None else str(len(before))
        told_after = "not done" if after is None else str(len(after))
        lines.append(f"| {kind.name} | {kind.goal} | {told_before} | {told_after} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table, or what each range costs, and return the exit status."""
    parser = argparse.ArgumentParser(prog="ops/count-edit-points", description=__doc__)
    parser.add_argument("ranges", nargs="*", metavar="RANGE", help="a..b, or a commit")
    ranges = parser.parse_args(arguments).ranges
    if not ranges:
        print(table(KINDS))
    for change in ranges:
        files = files_of(change)
        print(f"{change}: {len(files)}")
        print("".join(f"  {name}\n" for name in files), end="")
    return 0


def _files_of_branch(branch: str) -> list[str] | None:
    found = subprocess.run(
        ("git", "rev-parse", "--verify", "--quiet", branch), cwd=ROOT, check=False, capture_output=True
    )
    return None if found.returncode else files_of(branch)


def _page(commit: str, path: str) -> str:
    found = subprocess.run(
        ("git", "show", f"{commit}:{path}"), cwd=ROOT, check=False, capture_output=True, text=True
    )
    return "" if found.returncode else found.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
