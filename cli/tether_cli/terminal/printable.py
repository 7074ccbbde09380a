"""Text that others made, fit for a terminal."""

from __future__ import annotations

_KEPT = "\n\t"
_CONTROLS = {
    # Unicode has a visible character for each of C0; C1 have none.
    **{number: chr(0x2400 + number) for number in range(0x20) if chr(number) not in _KEPT},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    # At the end of a line it is harmless, elsewhere what follows would hide what stands before.
    0x0D: None,
}


def printable(text: str) -> str:
    """The text without control characters, but for line feeds and tabs.

    A model can be made to say anything, escape sequences too: these could change a terminal's title and
    clipboard, hide what was printed before, or type answers. They are shown as visible characters.
    """
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """The same on one line, for a cell of a table."""
    return printable(" ".join(text.split("\n")).replace("\t", " "))
