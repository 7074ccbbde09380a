"""Where a prompt comes from: the command line, a file, or standard input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

STANDARD_INPUT = "-"


def read_prompt(
    argument: str | None, file: str | None, *, standard_input: Callable[[], BinaryIO], is_terminal: bool
) -> str:
    """Return the prompt, unchanged: a trailing line feed is part of it.

    Standard input is read with ``-``, or if nothing else is given and it is not a terminal.

    Args:
      argument: The argument on the command line.
      file: The name of a file.
      is_terminal: Whether standard input is a terminal.

    Raises:
      InvalidRequest: There is no prompt, or more than one, or it cannot be read. The message says which.
    """
    from tether.errors import InvalidRequest

    if argument is not None and file is not None:
        raise InvalidRequest("there are two prompts, an argument and --file: give only one")
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
    """Return a conversation with the prompt as a user message.

    Args:
      system: The system message before it; None is none.
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
    from tether.requests.fields import MAX_PROMPT_BYTES

    data = source.read(MAX_PROMPT_BYTES + 1)
    if len(data) > MAX_PROMPT_BYTES:
        raise InvalidRequest(f"{place} exceeds the maximum of {MAX_PROMPT_BYTES} bytes for a prompt")
    try:
        return _not_empty(data.decode(), place)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"{place} is not UTF-8 text (line {line}): a prompt must be UTF-8") from None


def _check_encoding(text: str) -> None:
    from tether.errors import InvalidRequest

    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "the prompt on the command line is not UTF-8 text: a prompt must be UTF-8"
        ) from None


def _not_empty(text: str, place: str) -> str:
    from tether.errors import InvalidRequest

    if not text:
        raise InvalidRequest(f"{place} is empty: a prompt needs at least one byte")
    return text
