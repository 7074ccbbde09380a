"""What a verb says beside its output, on standard error: where that cannot be written, the verb goes on."""

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
