"""The `tether` command as a process: terminals, pipes, signals, broken output."""

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import TESTS
from support.waiting import PATIENCE_SECONDS


def environment(**more):
    # Where the interpreter buffers nothing, nothing shows whether the command does.
    others = ("TETHER_", "LC_", "PYTHONUNBUFFERED", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**kept, "PYTHONPATH": str(TESTS), "LANG": "C.UTF-8", "TERM": "xterm", **more}


def command(scene, *arguments):
    return [sys.executable, "-m", "support.cli_program", scene, *arguments]


def start(scene, *arguments, environ=None, **options):
    return subprocess.Popen(
        command(scene, *arguments),
        env=environ or environment(),
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def run(scene, *arguments, **options):
    """The exit status, standard output and standard error."""
    with start(scene, *arguments, **options) as process:
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, output, errors


class Terminal:
    """A command whose standard output and standard error are a terminal."""

    def __init__(self, scene, *arguments, **options):
        self._master, slave = pty.openpty()
        self.seen = b""
        self.process = start(scene, *arguments, stdout=slave, stderr=slave, stdin=slave, **options)
        os.close(slave)

    def read_until(self, text):
        while text not in self.seen and self._read():
            pass
        assert text in self.seen, self.seen

    def end(self):
        """The exit status, and all that was seen."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(PATIENCE_SECONDS), self.seen.decode()

    def _read(self):
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(self._master, 65_536)
        self.seen += data
        return data


def test_a_terminal_shows_the_job_its_states_the_text_and_a_last_line_feed():
    status, seen = Terminal("said", "submit", "hello you").end()
    assert status == 0
    first, second, text, last, rest = seen.split("\r\n")
    assert first.startswith("\x1b[2mjob ")
    assert first.endswith(": queued\x1b[0m")
    assert "running" in second
    assert text == "hello you"
    assert "succeeded (stop): 2 tokens" in last
    assert rest == ""


def test_a_terminal_gets_no_control_characters_of_a_model():
    status, seen = Terminal("escapes", "submit", "x").end()
    assert status == 0
    assert "a␛[2J\ufffd31mb\r\n␇c\r\n" in seen
    assert "\x1b[2J" not in seen


def test_a_pipe_gets_the_bytes_of_a_model():
    assert run("escapes", "submit", "x") == (0, "a\x1b[2J\x9b31mb\r\n\x07c".encode(), b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_cannot_show_stops_nothing(encoding):
    environ = environment(LANG="C", PYTHONIOENCODING=encoding)
    assert run("wide", "submit", "x", environ=environ) == (0, "süß ☃".encode(), b"")
    status, output, _ = run("wide", "submit", "x", "--json", environ=environ)
    assert (status, json.loads(output)["text"]) == (0, "süß ☃")
    terminal = Terminal("wide", "submit", "x", environ=environ)
    while terminal._read():
        pass
    assert "süß ☃".encode(encoding, "replace") in terminal.seen


def test_text_comes_out_while_the_job_runs_and_ctrl_c_leaves_it_running():
    process = start("halfway", "submit", "x")
    assert process.stdout.read(8) == b"one two "
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert output == b""
    assert b" continues. Follow it: tether jobs watch " in errors
    assert b"tether jobs cancel " in errors
    assert b"Traceback" not in errors


def test_ctrl_c_on_a_terminal_in_the_middle_of_a_line_begins_a_new_one():
    terminal = Terminal("halfway", "submit", "x")
    terminal.read_until(b"one two ")
    terminal.process.send_signal(signal.SIGINT)
    status, seen = terminal.end()
    assert status == 130
    assert "one two \r\njob " in seen


def test_notes_are_not_dimmed_where_nobody_wants_colours():
    _, seen = Terminal("said", "submit", "x", environ=environment(NO_COLOR="1")).end()
    assert ": queued\r\n" in seen
    assert "\x1b" not in seen


def test_ctrl_c_with_json_prints_what_is_known():
    process = start("halfway", "submit", "x", "--json", "--timeout", "600")
    assert process.stderr.readline() == b"followed\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (130, b"")
    told = json.loads(output)
    assert told["state"] in ("accepted", "running")
    assert "one two ".startswith(told["text"])


@pytest.mark.parametrize("options", [(), ("--events",)], ids=["text", "events"])
def test_a_reader_that_goes_away_ends_it_quietly(options):
    with start("endless", "submit", "x", "--max-tokens", "50000", *options) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(PATIENCE_SECONDS) == 141
        # On a busy machine the answer may take so long that this is told.
        assert errors in (b"", b"the gateway has not responded yet: still trying (Ctrl-C stops)\n")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("submit", "x"), ("submit", "x", "--json"), ("submit", "x", "--no-wait"), ("jobs", "list")),
        *(("--version",), ("--help",), ("submit", "--help")),
    ],
)
def test_a_full_disk_is_told(arguments):
    with Path("/dev/full").open("wb") as full:
        status, _, errors = run("said", *arguments, stdout=full)
    assert status == 74
    assert b"No space left on device" in errors
    assert errors.count(b"\n") == 1


@pytest.mark.parametrize(
    ("status", "scene", "arguments"),
    [
        (70, "fault", ("submit", "x")),
        *((2, "said", wrong) for wrong in ((), ("sumbit",), ("submit", "--bogus"), ("fleet", "drain"))),
        *((0, "said", told) for told in (("dlq", "list"), ("jobs", "cancel", "--where", "model=m"))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_standard_error_that_cannot_be_written_does_not_change_how_a_verb_ends(status, scene, arguments):
    with Path("/dev/full").open("wb") as full:
        assert run(scene, *arguments, stderr=full)[0] == status
    read, write = os.pipe()
    os.close(read)
    # As in a shell, who prints a note for nobody is ended by that.
    assert run(scene, *arguments, stderr=write)[0] == (status or 141)
    os.close(write)
    assert run_in_shell(scene, *arguments, redirect="2>&-") == status


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("submit", "--help"), ("submit", "x")])
def test_a_full_disk_ends_a_verb_alike_where_nothing_can_tell_of_it(arguments):
    assert run_in_shell("said", *arguments, redirect=">/dev/full 2>&-") == 74
    assert run_in_shell("said", *arguments, redirect=">/dev/full 2>/dev/full") == 74


def run_in_shell(scene, *arguments, redirect):
    """The exit status."""
    line = f"{shlex.join(command(scene, *arguments))} </dev/null {redirect}"
    ran = subprocess.run(["/bin/sh", "-c", line], env=environment(), check=False, timeout=PATIENCE_SECONDS)
    return ran.returncode


def test_closed_standard_streams_stop_nothing(tmp_path):
    line = " ".join(command("said", "submit", "hello"))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{line} <&- >&- 2>{tmp_path / 'errors'}"],
        env=environment(),
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert (done.returncode, (tmp_path / "errors").read_text()) == (0, "")


def test_a_prompt_comes_through_a_pipe_to_the_byte():
    process = start("said", "submit", stdin=subprocess.PIPE)
    output, _ = process.communicate("süß\r\n".encode(), timeout=PATIENCE_SECONDS)
    assert (process.returncode, output) == (0, "süß\r\n".encode())


def test_at_a_terminal_nobody_is_waited_for_without_a_prompt():
    status, seen = Terminal("said", "submit").end()
    assert status == 2
    assert seen.startswith("tether: there is no prompt")


def test_a_fault_is_one_line_and_with_debug_a_traceback():
    status, output, errors = run("fault", "submit", "x")
    assert (status, output) == (70, b"")
    assert errors == b"tether: internal error: RuntimeError: a bug; run again with --debug, and report it\n"
    status, _, errors = run("fault", "--debug", "submit", "x")
    assert status == 70
    assert b"Traceback (most recent call last)" in errors


def test_a_list_on_a_terminal_is_a_table():
    status, seen = Terminal("said", "jobs", "list").end()
    assert status == 0
    assert "JOB" in seen
    assert "─" in seen
