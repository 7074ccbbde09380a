"""What goes to standard output and standard error while a job is followed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import click

from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import printable

WAIT_SECONDS, PIPE_WAIT_SECONDS = 3.0, 10.0
"""What an answer may take before that is told: at a terminal, and where standard error is none."""


class TextOutput:
    """The text of a job on standard output, each piece as soon as it comes.

    A pipe gets the text's own bytes, as UTF-8. A terminal gets it in the terminal's encoding, without control
    characters; see :func:`~tether_cli.terminal.printable.printable`.
    """

    def __init__(self, stream: TextIO, *, is_terminal: bool) -> None:
        self._stream = stream
        self.is_terminal = is_terminal
        self.is_amid_line = False

    def write(self, text: str) -> None:
        """
        Raises:
          OSError: It cannot be written; a ``BrokenPipeError`` where nobody reads it any more.
        """
        if not text:
            return
        if self.is_terminal:
            text = printable(text)
            data = text.encode(self._stream.encoding or "utf-8", "replace")
        else:
            data = text.encode("utf-8", "replace")
        self._stream.buffer.write(data)
        self._stream.buffer.flush()
        self.is_amid_line = not text.endswith("\n") if text else self.is_amid_line

    def end_line(self) -> None:
        """Begin a new line on a terminal, where one is not begun already."""
        if self.is_terminal and self.is_amid_line:
            self.write("\n")


class Notes:
    """What there is to say beside the text, on standard error."""

    def __init__(self, output: TextOutput, *, is_terminal: bool, is_silent: bool = False) -> None:
        self._output = output
        self._is_terminal = is_terminal
        self._is_silent = is_silent

    @property
    def patience(self) -> float:
        """What an answer may take before it is told that there is none yet, in seconds."""
        return WAIT_SECONDS if self._is_terminal else PIPE_WAIT_SECONDS

    def progress(self, text: str) -> None:
        """Only somebody at a terminal wants to know."""
        if self._is_terminal:
            self._say(text, dim=True)

    def warning(self, text: str) -> None:
        self._say(text, dim=False)

    def _say(self, text: str, *, dim: bool) -> None:
        if self._is_silent:
            return
        if self._is_terminal:
            self._output.end_line()
        shown = printable(text)
        is_dim = dim and not os.environ.get("NO_COLOR")
        say_aside(click.style(shown, dim=True) if is_dim else shown)


class _ClientNotes(logging.Handler):
    """Tells a person what the client logs."""

    def __init__(self, notes: Notes) -> None:
        # What is tried again is told elsewhere, and only where it takes long.
        super().__init__(logging.INFO)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        why = getattr(record, "why", "")
        self._notes.warning(record.getMessage() + (f" ({why})" if why else ""))


@contextlib.contextmanager
def telling_of_interruptions(notes: Notes) -> Iterator[None]:
    """Print what the client logs meanwhile: that a stream was interrupted, and that it goes on."""
    log = logging.getLogger("tether.client")
    handler, level = _ClientNotes(notes), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def open_output(*, is_silent: bool = False) -> tuple[TextOutput, Notes]:
    """This process's standard output and standard error.

    Args:
      is_silent: Whether programs read standard error: notes are for people.
    """
    output = TextOutput(sys.stdout, is_terminal=sys.stdout.isatty())
    return output, Notes(output, is_terminal=sys.stderr.isatty(), is_silent=is_silent)


def print_line(document: Any) -> None:
    """Print one document as one line, at once."""
    click.echo(json.dumps(document, separators=(",", ":")))
