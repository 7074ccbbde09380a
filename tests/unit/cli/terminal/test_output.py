"""What goes to standard output and standard error while a job is followed."""

import io
import logging

import pytest

from tether_cli.terminal.output import Notes, TextOutput, telling_of_interruptions


class Terminal:
    def __init__(self, encoding="utf-8"):
        self.encoding = encoding
        self.buffer = io.BytesIO()


def written(*texts, is_terminal, encoding="utf-8"):
    stream = Terminal(encoding)
    output = TextOutput(stream, is_terminal=is_terminal)
    for text in texts:
        output.write(text)
    output.end_line()
    return stream.buffer.getvalue()


def test_a_pipe_gets_every_byte_and_nothing_more():
    assert written("a\x1b", "\r\n", "", "ü", is_terminal=False) == "a\x1b\r\nü".encode()


def test_a_terminal_gets_what_it_can_show_and_ends_its_line():
    assert written("ü☃", is_terminal=True, encoding="latin-1") == b"\xfc?\n"
    assert written("a\n", "", is_terminal=True) == b"a\n"
    assert written("a", "\r", is_terminal=True) == b"a\n"
    assert written("", is_terminal=True) == b""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_no_text_in_any_encoding_stops_nothing(is_terminal):
    assert written("a\ud800\n", is_terminal=is_terminal) == b"a?\n"


def test_notes_of_progress_are_for_terminals_and_warnings_for_all(capsys):
    output = TextOutput(Terminal(), is_terminal=False)
    Notes(output, is_terminal=False).progress("running")
    Notes(output, is_terminal=True, is_silent=True).warning("void")
    assert capsys.readouterr().err == ""
    Notes(output, is_terminal=False).warning("void \x1b")
    assert capsys.readouterr().err == "void ␛\n"


def test_what_a_client_logs_meanwhile_is_told(capsys):
    log = logging.getLogger("tether.client")
    before = (log.level, list(log.handlers))
    with telling_of_interruptions(Notes(TextOutput(Terminal(), is_terminal=False), is_terminal=False)):
        log.info("A stream was interrupted. Reconnecting.", extra={"why": "Connection refused"})
    log.info("unheard")
    assert capsys.readouterr().err == "A stream was interrupted. Reconnecting. (Connection refused)\n"
    assert (log.level, list(log.handlers)) == before
