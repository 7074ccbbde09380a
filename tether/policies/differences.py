"""What differs between two documents of policies: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tether.config.quoting import bare


class PolicyDifference(NamedTuple):
    """A field that is not the same in both.

    Attributes:
      path: Its path, as in ``aliases.fast``.
      before, after: What it holds; None where it is not set.
    """

    path: str
    before: Any
    after: Any


def policy_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[PolicyDifference]:
    """Return what differs between two documents, by path. Lists are compared as a whole."""
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    return [
        PolicyDifference(path, old.get(path), new.get(path))
        for path in dict.fromkeys((*old, *new))
        if old.get(path) != new.get(path)
    ]


def _leaves(document: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        path = f"{prefix}{bare(name)}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value
