"""Where a prompt comes from: the command line, a file, or standard input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

STANDARD_INPUT = "-"


def read_prompt(
    argument: str | None, file: str | None, *, standard_input: Callable[[], BinaryIO], is_terminal: bool
) -> str:
    """The prompt, exactly as it is written: a last line feed is part of it.

    Standard input is read where ``-`` asks for it, or where nothing else is given and it is no terminal.

    Args:
      argument: What stands on the command line.
      file: The name of a file.
      is_terminal: Whether somebody types on standard input.

    Raises:
      InvalidRequest: There is no prompt, or more than one, or it cannot be read. The message says which.
    """
    from tether.errors import InvalidRequest

    if argument is not None and file is not None:
        raise InvalidRequest("there are two prompts, an argument and --file: give one of them")
    if argument is not None and argument != STANDARD_INPUT:
        _check_encoding(argument)
        return _not_empty(argument, "the prompt")
    if file is not None and file != STANDARD_INPUT:
        return _from_file(Path(file))
    if file is None and argument is None and is_terminal:
        raise InvalidRequest(
            "there is no prompt: give it as an argument, in a file (--file PATH) or on standard input"
        )
    return _text_of(standard_input(), "standard input")


def as_conversation(prompt: str, system: str | None) -> list[dict[str, str]]:
    """The messages of a conversation in which a user says the prompt.

    Args:
      system: What the system says before it; None is nothing.
    """
    said = [] if system is None else [{"role": "system", "content": system}]
    return [*said, {"role": "user", "content": prompt}]


def _from_file(path: Path) -> str:
    from tether.errors import InvalidRequest

    try:
        with path.open("rb") as opened:
            return _text_of(opened, f"the file {path}")
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidRequest):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"the file {path} cannot be read: {reason}") from None


def _text_of(source: BinaryIO, place: str) -> str:
    from tether.errors import InvalidRequest
    from tether.gateway.validation import LONGEST_PROMPT

    data = source.read(LONGEST_PROMPT + 1)
    if len(data) > LONGEST_PROMPT:
        raise InvalidRequest(f"{place} has more than the {LONGEST_PROMPT} bytes that a prompt may have")
    try:
        return _not_empty(data.decode(), place)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"{place} is not UTF-8 text (line {line}): a prompt must be") from None


def _check_encoding(text: str) -> None:
    from tether.errors import InvalidRequest

    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the prompt on the command line is not UTF-8 text: a prompt must be") from None


def _not_empty(text: str, place: str) -> str:
    from tether.errors import InvalidRequest

    if not text:
        raise InvalidRequest(f"{place} is empty: there is nothing to go on from")
    return text
