"""Text that others made, on a terminal."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tether_cli.terminal.printable import one_line, printable


def test_escape_sequences_are_shown_and_not_obeyed():
    assert printable("a\x1b[31m\x9bb\x07\x7f") == "a␛[31m\ufffdb␇␡"


def test_lines_and_columns_stay():
    assert printable("a\tb\r\nc\n") == "a\tb\nc\n"


def test_a_cell_is_one_line():
    assert one_line("a\nb\tc\x1b") == "a b c␛"


@given(st.text())
def test_nothing_that_controls_a_terminal_is_left(text):
    assert all(
        character in "\n\t" or unicodedata.category(character) != "Cc" for character in printable(text)
    )
    assert all(unicodedata.category(character) != "Cc" for character in one_line(text))
