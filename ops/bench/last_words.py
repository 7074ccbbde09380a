"""What a stage prints when a benchmark fails: the ends of its logs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

LENGTH = 3_000
"""Characters of each log."""


def print_last_words(logs: Iterable[Path]) -> None:
    """Print the ends of these logs, as far as they are there, to standard error."""
    for log in logs:
        if log.exists():
            words = log.read_text(encoding="utf-8", errors="replace")[-LENGTH:]
            print(f"--- last words in {log.name}\n{words}", file=sys.stderr)
