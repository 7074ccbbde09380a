"""What a verb says beside its output, on standard error: where that cannot be written, the verb goes on.

And what becomes of standard streams that are closed, or cannot be written.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

import click


def say_aside(text: str) -> None:
    """Print a line on standard error, where that can still be written.

    Raises:
      BrokenPipeError: Whoever read it went away.
    """
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError):
        let_go_of(sys.stderr)


def let_go_of(stream: TextIO) -> None:
    """Put nothing in the place of a standard stream where that cannot be written any more.

    The interpreter writes out what is left at its end; that would fail again, with noise and another status.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


def open_missing_streams() -> None:
    """Open standard streams that were closed by whoever started this process: nothing is read, nothing kept.

    Else the next file or socket that is opened takes their numbers.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def let_go_of_output() -> None:
    """Let go of standard output and standard error, where they cannot be written any more."""
    for stream in (sys.stdout, sys.stderr):
        let_go_of(stream)
