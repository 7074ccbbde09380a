"""The log of ended attempts that a job's hash keeps and its outcomes carry: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tether.attempts import MAX_COUNT, AttemptEnd
from tether.codec import value_from_json


@dataclass(frozen=True)
class AttemptLog:
    """What a log says.

    Attributes:
      ends: The ends of attempts, the first one first.
      dropped: Number of ends that were noted and are not among them: the log keeps the newest.
    """

    ends: tuple[AttemptEnd, ...] = ()
    dropped: int = 0


NO_LOG = AttemptLog()


def read_attempt_log(text: bytes | None, logged: bytes | None) -> AttemptLog:
    """Read the fields ``log`` and ``logged``. What cannot be read counts as dropped: nothing else does.

    Args:
      text: The log; None or empty where nothing was noted, or by an older version.
      logged: Number of ends that were noted.
    """
    lines = text.split(b"\n") if text else []
    ends = tuple(end for end in map(_end, lines) if end is not None)
    total = int(logged) if logged and logged.isdigit() and len(logged) < 10 else 0
    return AttemptLog(ends, min(max(total, len(lines)) - len(ends), MAX_COUNT))


def _end(line: bytes) -> AttemptEnd | None:
    try:
        return value_from_json(AttemptEnd, json.loads(line))
    except (ValueError, RecursionError):
        return None
