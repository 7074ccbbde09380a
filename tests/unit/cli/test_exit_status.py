"""How the command ends where something fails."""

import errno
import json
import re

import pytest

from support.command_line import CommandLine
from support.paths import ROOT
from tether.errors import (
    AddressInUse,
    ConfigError,
    GatewayUnavailable,
    GatewayUnknown,
    JobCancelled,
    JobExpired,
    JobFailed,
    KeyConflict,
    ResultTimeout,
    ServerMissing,
    Unauthenticated,
    UnexpectedAnswer,
    UnknownModel,
    error_of,
)
from tether_cli.exit_status import INPUT_OUTPUT, INTERNAL, asks_for_json, exit_for

REFERENCE = ROOT / "docs" / "reference" / "cli.md"

STATUSES = [
    (JobFailed("it broke"), 1),
    (UnknownModel("no model"), 2),
    (KeyConflict("another request"), 2),
    (ConfigError("bad setting"), 3),
    (GatewayUnknown("no gateway"), 3),
    (GatewayUnavailable("not there"), 4),
    (ResultTimeout("late"), 4),
    (AddressInUse("in use"), 5),
    (ServerMissing("no server"), 5),
    (UnexpectedAnswer("no gateway of ours"), 5),
    (Unauthenticated("no key"), 6),
    (JobCancelled("cancelled"), 8),
    (JobExpired("expired"), 9),
    (OSError(errno.ENOSPC, "No space left on device"), 74),
]


def run_with(error, *before, json_too=False):
    def open_client(url, api_key, *, within=None):
        raise error

    options = ["--json"] if json_too else []
    return CommandLine().run(*before, "submit", "hello", *options, open_client=open_client)


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=lambda one: type(one).__name__)
def test_an_error_is_one_line_and_its_exit_status(error, status):
    result = run_with(error)
    assert result.exit_code == status
    assert result.stdout == ""
    assert result.stderr.startswith("tether: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=lambda one: type(one).__name__)
def test_with_json_an_error_is_one_object_on_standard_error(error, status):
    result = run_with(error, json_too=True)
    assert result.exit_code == status
    assert result.stdout == ""
    told = json.loads(result.stderr)["error"]
    assert told["code"] == getattr(error, "code", "io_failed")
    assert str(error).rpartition("] ")[2] in told["message"]


def test_a_bug_is_one_line_that_says_what_to_do():
    result = run_with(RuntimeError("odd"))
    assert result.exit_code == 70
    assert result.stderr == (
        "tether: internal error: RuntimeError: odd; run again with --debug, and report it\n"
    )
    assert json.loads(run_with(RuntimeError("odd"), json_too=True).stderr)["error"]["code"] == "internal"


@pytest.mark.parametrize("error", [RuntimeError("odd"), ConfigError("bad setting")], ids=["bug", "ours"])
def test_debug_adds_the_traceback_and_changes_no_status(error):
    result = run_with(error, "--debug")
    assert result.exit_code == run_with(error).exit_code
    assert "Traceback (most recent call last)" in result.stderr
    assert "Traceback" not in run_with(error).stderr


def test_an_interrupt_and_a_broken_pipe_say_nothing():
    for error, status in ((KeyboardInterrupt(), 130), (BrokenPipeError(), 141)):
        result = run_with(error)
        assert (result.exit_code, result.output) == (status, "")


def test_an_error_that_is_one_of_the_system_too_is_ours():
    assert isinstance(ResultTimeout("late"), OSError)
    assert exit_for(ResultTimeout("late")).status == 4


def test_the_file_that_cannot_be_written_is_named():
    assert exit_for(OSError(errno.EIO, "Input/output error", "/a/b")).message == (
        "cannot read or write: /a/b: Input/output error"
    )


def test_what_others_say_cannot_steer_the_terminal():
    assert run_with(UnknownModel("no model \x1b]0;x\x07")).stderr == "tether: no model ␛]0;x␇\n"


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        ((), False),
        (("jobs", "list", "--json"), True),
        (("submit", "--", "--json"), False),
        (("submit", "--json", "--", "x"), True),
    ],
)
def test_json_is_asked_for_by_an_option(arguments, asks):
    assert asks_for_json(arguments) is asks


def test_the_reference_tells_the_exit_status_of_every_code_that_it_names():
    rows = re.findall(r"^\| (\d+) \| .* \| (`.*`) \|$", REFERENCE.read_text(), re.MULTILINE)
    named = {code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    own = {"internal": INTERNAL, "io_failed": INPUT_OUTPUT}
    assert named == {code: own.get(code, error_of(code, "").exit_status) for code in named}
    assert {getattr(error, "code", "io_failed") for error, _ in STATUSES} <= set(named)
