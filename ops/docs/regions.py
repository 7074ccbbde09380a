"""Regions of hand-written pages that are made from the code, each between two marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def begin_mark(source: str) -> str:
    """Return the line before a region that is made from this file."""
    return f"<!-- Made from {source} by ops/generate-docs: change it there. -->"


END_MARK = "<!-- End of what is made. -->"


def page_with_region(path: str, source: str, region: Callable[[], str]) -> Callable[[], str]:
    """Return what makes the page with its region as the code says now.

    Args:
      path: Of the page.
      source: The file from which its region is made.
      region: Writes it: whole lines, without the marks.

    Raises:
      ValueError: When called: the page lacks the marks.
    """

    def page() -> str:
        before, begin, rest = (ROOT / path).read_text("utf-8").partition(begin_mark(source))
        _, end, after = rest.partition(END_MARK)
        if not begin or not end:
            raise ValueError(f"{path} has no region between {begin_mark(source)} and {END_MARK}")
        return f"{before}{begin}\n\n{region()}\n{end}{after}"

    return page
