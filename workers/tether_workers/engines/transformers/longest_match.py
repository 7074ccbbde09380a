"""Finds one of many fixed texts in another one: pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence

_NOTHING = re.compile("(?!)")


def longest_of(contents: Collection[str]) -> re.Pattern[str]:
    """A pattern for the longest of these that begins at a place; for nothing, where there are none.

    What several have in common at their beginnings stands in it once. Else a text of nothing but such
    beginnings would be compared with each of a model's hundreds, in one call that keeps all other threads
    waiting.
    """
    return re.compile(_alternatives(sorted(set(contents)))) if contents else _NOTHING


def _alternatives(contents: Sequence[str]) -> str:
    """
    Args:
      contents: In order, each once.
    """
    ends = zip(contents[0], contents[-1], strict=False)
    common = "".join(first for first, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    rests = [content[len(common) :] for content in contents]
    groups = itertools.groupby(filter(None, rests), lambda rest: rest[0])
    branches = [_alternatives(list(group)) for _, group in groups]
    if not branches:
        return re.escape(common)
    return f"{re.escape(common)}(?:{'|'.join(branches)}){'?' if '' in rests else ''}"
