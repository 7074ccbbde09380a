"""How the command ends where something fails: an exit status, and one line or JSON object that says why.

It is loaded where something has failed: the command starts without it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tether.client.error_documents import error_to_json
from tether.errors import TetherError
from tether_cli.terminal.printable import printable

INTERNAL = 70
"""A fault of Tether's own (``EX_SOFTWARE`` of sysexits.h)."""

INPUT_OUTPUT = 74
"""A file or standard output could not be read or written (``EX_IOERR``)."""

INTERRUPTED = 130
"""Ctrl-C: 128 and the number of SIGINT, as shells tell it."""

BROKEN_PIPE = 141
"""What read the output went away: 128 and the number of SIGPIPE."""


@dataclass(frozen=True)
class CommandExit:
    """How to exit.

    Attributes:
      status: The exit status.
      message: The message for people; may be empty.
      document: The same for programs.
    """

    status: int
    message: str = ""
    document: Mapping[str, Any] | None = None


def exit_for(error: BaseException) -> CommandExit:
    """How an error ends the command."""
    if isinstance(error, KeyboardInterrupt):
        return CommandExit(INTERRUPTED)
    # Some errors of ours are errors of the system too.
    if isinstance(error, TetherError):
        return CommandExit(error.exit_status, str(error), error_to_json(error))
    if isinstance(error, BrokenPipeError):
        return CommandExit(BROKEN_PIPE)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        message = f"cannot read or write: {place}{error.strerror or error}"
        inner = error_to_json(TetherError(message))["error"]
        return CommandExit(INPUT_OUTPUT, message, {"error": {**inner, "code": "io_failed"}})
    message = f"internal error: {type(error).__name__}: {error}; run again with --debug, and report it"
    return CommandExit(INTERNAL, message, error_to_json(TetherError(message)))


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line has ``--json`` among its options."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def tell(ending: CommandExit, *, as_json: bool) -> None:
    """Say it on standard error, where that can still be written."""
    if not ending.message:
        return
    line = json.dumps(ending.document) if as_json else f"tether: {printable(ending.message)}"
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)


def tell_misuse(error: click.ClickException) -> None:
    """Show what is wrong with the command line, and its usage, on standard error."""
    with contextlib.suppress(OSError, ValueError):
        error.show()


def tell_trace(error: BaseException) -> None:
    """Show the traceback on standard error."""
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error, file=sys.stderr)
