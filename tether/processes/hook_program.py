"""The program that calls a hook: ``python -m tether.processes.hook_program``, from
:class:`~tether.processes.hook_process.HookProcess`.

It reads a line of JSON that names the hook, and then one for each call; it answers each with a line that has
the error, or null. What the hook prints goes where the parent's errors go.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import BinaryIO

from tether.codec import value_from_json
from tether.dead_letters import DeadLetter
from tether.errors import ConfigError
from tether.hooks import DeathHook, load_death_hook

MAX_ERROR_CHARACTERS = 1_000


def main() -> None:
    """Answer lines until there are no more."""
    # Copies that neither the hook nor what it starts has under the usual numbers.
    requests = os.fdopen(os.dup(0), "rb")
    # Open until the process has ended: its parent waits for that.
    answers = os.fdopen(os.dup(1), "wb", buffering=0, closefd=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    start = json.loads(requests.readline())
    _guard(requests.fileno(), answers.fileno())
    own = os.getpid()
    # What the parent can import, this can.
    sys.path[:] = start["path"]
    try:
        hook = load_death_hook(start["hook"])
    except ConfigError as error:
        _answer(answers, str(error))
        return
    _answer(answers, None)
    for line in requests:
        request = json.loads(line)
        if request is None:
            # Asked to end: what runs in the background ends as at the end of any program.
            return
        told = _error_of(hook, value_from_json(DeadLetter, request))
        if os.getpid() != own:
            # A copy that the hook has forked and let return: it has no part in what is said here.
            os._exit(0)
        _answer(answers, told)


def _guard(requests: int, answers: int) -> None:
    """Start a process that kills this one's group once its parent is gone. The kernel (PR_SET_PDEATHSIG)
    would kill this one alone, and already where the parent's thread ends that started it."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    if os.fork():
        # No child of the hook's process: a hook may wait for all of those.
        os._exit(0)
    os.close(answers)
    poll = select.poll()
    poll.register(requests, 0)
    poll.poll()
    os.killpg(0, signal.SIGKILL)


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
