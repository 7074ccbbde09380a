"""What a dead letter keeps of its job's attempts: enough to see what happened, whatever it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tether.store.rows import compact_json, value_from_text

MAX_LETTER_ATTEMPTS = 256
"""The newest attempts that a letter keeps; of the others their number."""

MAX_HISTORY_CHARACTERS = 128 * 1024
"""Of the attempts that a letter keeps, as JSON. Lists hold hundreds of letters in memory at once."""

MAX_MESSAGE_CHARACTERS = 500
"""Of an error's message there. The table of attempts has all of it, and the job the last one."""


def letter_history(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a letter keeps.

    Args:
      rows: The newest rows of a job in the table of attempts, in order.

    Returns:
      The newest that find room. What is left out counts as dropped with the first of them.
    """
    kept: list[dict[str, Any]] = []
    room = MAX_HISTORY_CHARACTERS
    for row in reversed(rows):
        one = _kept(row)
        room -= len(compact_json(one))
        if kept and room < 0:
            break
        kept.append(one)
    kept.reverse()
    if kept:
        left_out = rows[: len(rows) - len(kept)]
        kept[0]["dropped"] += sum((row["attempt"] > 0) + row["dropped"] for row in left_out)
    return kept


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    # SQLite keeps what it is given, bytes too: that must not keep the letter from being written.
    kept = {
        name: None if isinstance(value, bytes) else value for name, value in row.items() if name != "job_id"
    }
    kept["error"] = _shortened(kept["error"])
    if row["evidence"] is not None:
        try:
            kept["evidence"] = value_from_text(row["evidence"])
        except ValueError:
            kept["evidence"] = None
    return kept


def _shortened(error: str | None) -> str | None:
    """An error as its column has it, with a message of bounded length."""
    if error is None or len(error) <= MAX_MESSAGE_CHARACTERS:
        return error
    try:
        value = value_from_text(error)
    except ValueError:
        return None
    message = value.get("message") if isinstance(value, dict) else None
    if not isinstance(message, str):
        return None
    if len(message) > MAX_MESSAGE_CHARACTERS:
        value["message"] = f"{message[:MAX_MESSAGE_CHARACTERS]}…"
    return compact_json(value)
