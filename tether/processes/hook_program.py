"""The program that calls a hook: ``python -m tether.processes.hook_program``, from
:class:`~tether.processes.hook_process.HookProcess`.

It reads a line of JSON that names the hook, and then one for each call; it answers each with a line that has
the error, or null. What the hook prints goes where the parent's errors go.
"""

from __future__ import annotations

import json
import os
import sys
from typing import BinaryIO

from tether.codec import value_from_json
from tether.dead_letters import DeadLetter
from tether.errors import ConfigError
from tether.hooks import DeathHook, load_death_hook
from tether.processes.die_with_parent import die_with_parent

MAX_ERROR_CHARACTERS = 1_000


def main() -> None:
    """Answer lines until there are no more."""
    # Copies that neither the hook nor what it starts has under the usual numbers.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    start = json.loads(requests.readline())
    die_with_parent(start["parent"])
    # What the parent can import, this can.
    sys.path[:] = start["path"]
    try:
        hook = load_death_hook(start["hook"])
    except ConfigError as error:
        _answer(answers, str(error))
        return
    _answer(answers, None)
    for line in requests:
        _answer(answers, _error_of(hook, value_from_json(DeadLetter, json.loads(line))))


def _error_of(hook: DeathHook, letter: DeadLetter) -> str | None:
    try:
        hook(letter)
    except BaseException as error:
        # A hook may raise SystemExit: it is its own.
        return f"{type(error).__name__}: {error}"
    return None


def _answer(answers: BinaryIO, error: str | None) -> None:
    text = None if error is None else error[:MAX_ERROR_CHARACTERS]
    answers.write(json.dumps({"error": text}).encode() + b"\n")


if __name__ == "__main__":
    main()
