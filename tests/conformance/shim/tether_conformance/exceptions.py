"""The tests that cannot apply to TetherBroker: read from a file, each with its reason."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

MAX_EXCEPTIONS = 5
"""More than this, and the broker is no drop-in."""


class BadExceptions(Exception):
    """The list of exceptions does not have the form that it must have."""


@dataclass(frozen=True)
class NotApplicable:
    """One test that is not run.

    Attributes:
      test: Its id in pytest's form, from the source distribution's folder (``tests/test_x.py::test_y``).
      reason: Why it cannot apply.
    """

    test: str
    reason: str


def read_exceptions(path: Path) -> tuple[NotApplicable, ...]:
    """Read the exceptions.

    Raises:
      BadExceptions: The file cannot be read, an entry lacks its id or reason, an id stands there twice, or
        there are too many.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadExceptions(f"{path} cannot be read: {error}") from error
    entries = document.get("not_applicable", [])
    if set(document) - {"not_applicable"} or not isinstance(entries, list):
        raise BadExceptions(f"{path}: only [[not_applicable]] tables belong here")
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise BadExceptions(f"{path}: {entry!r} is no table")
        test, reason = entry.get("test"), entry.get("reason")
        if set(entry) != {"test", "reason"} or not isinstance(test, str) or not isinstance(reason, str):
            raise BadExceptions(f"{path}: each entry has a test and a reason and nothing else: {entry!r}")
        if not test.startswith("tests/test_") or "::" not in test:
            raise BadExceptions(f"{path}: {test!r} is no test id like 'tests/test_x.py::test_y'")
        if len(reason.split()) < 5:
            raise BadExceptions(f"{path}: {test} needs a reason in a sentence")
        found.append(NotApplicable(test, reason))
    if len({entry.test for entry in found}) != len(found):
        raise BadExceptions(f"{path}: a test is listed twice")
    if len(found) > MAX_EXCEPTIONS:
        raise BadExceptions(f"{path}: {len(found)} exceptions, at most {MAX_EXCEPTIONS} are allowed")
    return tuple(found)
