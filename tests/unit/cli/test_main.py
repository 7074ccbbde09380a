"""The frame of the command: its verbs, usage errors, completion, and what it loads."""

import json
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete

import tether
from support.command_line import CommandLine
from support.paths import ROOT
from tether.errors import ConfigError
from tether.jobs import JobState
from tether_cli.main import VERBS, main
from tether_cli.options.connection import read_api_key

REFERENCE = ROOT / "docs" / "reference" / "cli.md"
HEAVY = {"aiohttp", "alembic", "dramatiq", "fastapi", "pydantic", "redis", "rich", "sqlalchemy", "torch"}


def commands(command=main, path=("tether",)):
    """Every command with its path."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


COMMANDS = dict(commands())


def test_help_lists_every_verb_and_loads_none():
    result = CommandLine().run("--help")
    assert result.exit_code == 0
    for verb in VERBS:
        assert f"  {verb} " in result.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_by_both_names(path):
    for name in ("-h", "--help"):
        result = CommandLine().run(*path[1:], name)
        assert result.exit_code == 0
        assert f"Usage: {' '.join(path)}" in result.stdout


def test_the_version_is_told():
    assert CommandLine().run("--version").stdout == f"tether, version {tether.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("submti",), "No such verb 'submti'. Did you mean 'submit'?"),
        (("jobs", "lst"), "No such verb 'lst'. Did you mean 'list'?"),
        (("xyzzy",), "No such verb 'xyzzy'.\n"),
        (("submit", "--modle", "m", "x"), "Did you mean"),
        (("submit", "x", "y"), "unexpected extra argument"),
        (("submit", "x", "--priority", "high"), "'high' is not one of"),
        (("submit", "x", "--delay", "soon"), "'soon' is not a duration"),
        (("submit", "x", "--label", "a"), "'a' is not a label: write it as NAME=VALUE."),
        (("submit", "x", "-l", "a=1", "-l", "a=2"), "the label 'a' is given twice."),
        (("submit", "x", "--events", "--json"), "--events cannot be combined with --json or --no-wait"),
        (("submit", "x", "--no-wait", "--timeout", "1"), "--timeout cannot be combined with --no-wait"),
        (("jobs", "list", "--since", "never"), "'never' is not a point in time"),
        (("jobs", "list", "--limit", "0"), "0 is not in the range"),
        (("jobs", "cancel"), "Give ids of jobs"),
        (("jobs", "watch", "x", "--offset", "-1"), "-1 is not in the range"),
        (("completion", "tcsh"), "'tcsh' is not one of"),
    ],
)
def test_a_command_that_cannot_be_understood_is_told_what_and_where_help_is(arguments, words):
    line = CommandLine()
    result = line.run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "--help' for help." in result.stderr
    assert result.stdout == ""
    assert line.opened == []


def completions(arguments, incomplete):
    found = ShellComplete(main, {}, "tether", "_TETHER_COMPLETE").get_completions(list(arguments), incomplete)
    return [item.value for item in found]


def test_verbs_options_and_values_are_completed():
    assert completions((), "s") == ["status", "submit"]
    assert completions((), "--d") == ["--debug"]
    assert completions(("jobs",), "") == ["cancel", "list", "reprioritise", "show", "watch"]
    assert completions(("submit",), "--pri") == ["--priority"]
    assert completions(("submit", "--priority"), "") == ["interactive", "standard", "batch"]
    assert completions(("jobs", "list", "--state"), "") == [state.value for state in JobState]
    assert completions(("completion",), "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(
    ("shell", "words"),
    [("bash", "complete -o nosort -F"), ("zsh", "#compdef tether"), ("fish", "complete --no-files")],
)
def test_the_script_for_a_shell_is_printed(shell, words):
    result = CommandLine().run("completion", shell)
    assert result.exit_code == 0
    assert words in result.stdout
    assert "_TETHER_COMPLETE" in result.stdout


def loaded_by(*arguments, **environ):
    """Which of the heavy packages a command line loads, in a process of its own."""
    program = (
        "import sys, atexit\n"
        "def tell(): print(' '.join({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "atexit.register(tell)\n"
        "from tether_cli.main import main\n"
        "main(prog_name='tether')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environ},
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    return HEAVY & set(done.stderr.rpartition("\n")[0].rpartition("\n")[2].split()) or done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("submit", "--help"),
        ("jobs", "list", "--help"),
        ("status", "--help"),
        ("completion", "fish"),
    ],
    ids=" ".join,
)
def test_the_command_starts_without_what_it_does_not_use(arguments):
    loaded = loaded_by(*arguments)
    assert isinstance(loaded, str), f"it loaded {loaded}"
    assert loaded


def test_what_a_verb_uses_is_seen_to_be_loaded():
    assert "pydantic" in loaded_by("config", "check")


def test_a_command_that_cannot_be_understood_loads_nothing_heavy():
    for arguments in (("submti",), ("submit", "--bogus"), ("submit", "x", "--delay", "soon")):
        assert loaded_by(*arguments) == ""


def test_completion_loads_nothing_heavy():
    for words in ("tether ", "tether jobs list --state "):
        loaded = loaded_by(
            _TETHER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()))
        )
        assert isinstance(loaded, str), f"it loaded {loaded}"
        assert "plain," in loaded


def section(path):
    text = REFERENCE.read_text()
    title = f"\n## `{' '.join(path)}`\n"
    assert title in text, f"docs/reference/cli.md has no section {title.strip()}"
    return text.partition(title)[2].partition("\n## ")[0]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_reference_names_every_verb_and_option(path):
    command = COMMANDS[path]
    told = REFERENCE.read_text() if isinstance(command, click.Group) else section(path)
    assert f"`{' '.join(path)}" in REFERENCE.read_text()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for name in parameter.opts:
                assert f"`{name}" in told, f"{' '.join(path)} {name} is not in docs/reference/cli.md"


def test_the_reference_names_nothing_that_is_not_there():
    told = {line[4:-1] for line in REFERENCE.read_text().splitlines() if line.startswith("## `tether")}
    assert told <= {" ".join(path) for path in COMMANDS}


def test_an_api_key_is_read_from_a_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("tk_abc\n")
    line = CommandLine()
    line.run("submit", "x", "--url", "http://127.0.0.1:1", "--api-key-file", str(path))
    assert line.opened == [("http://127.0.0.1:1", "tk_abc")]


def test_without_options_the_client_looks_in_the_environment_itself():
    line = CommandLine()
    line.run("submit", "x")
    assert line.opened == [(None, None)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b" \n", "is empty"),
        (b"tk_a tk_b", "more than one"),
        (b"\xff\xfe", "more than one"),
        (b"k" * 5000, "more"),
    ],
)
def test_a_file_with_no_api_key_is_refused_and_not_shown(tmp_path, content, words):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_api_key(path)
    assert "tk_a" not in str(caught.value)


def test_a_file_of_an_api_key_that_cannot_be_read_is_told(tmp_path):
    result = CommandLine().run("submit", "x", "--api-key-file", str(tmp_path))
    assert result.exit_code == 3
    assert result.stderr == f"tether: the API key file {tmp_path} cannot be read: Is a directory\n"


def test_settings_are_shown_with_their_sources_and_no_secrets(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TETHER_REDIS__URL", "redis://user:hunter2@127.0.0.1/0")
    shown = CommandLine().document("config", "show", "--json")
    found = {row["key"]: row for row in shown}
    assert found["redis.url"]["source"] == "environment TETHER_REDIS__URL"
    assert found["logs.form"] == {"key": "logs.form", "value": "human", "source": "default"}
    assert "hunter2" not in json.dumps(shown)
    result = CommandLine().run("config", "show")
    assert "logs.form\thuman\tdefault\n" in result.stdout
    assert "hunter2" not in result.stdout


def test_valid_settings_are_ok(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert CommandLine().run("config", "check").stdout == "ok\n"
    assert CommandLine().document("config", "check", "--json") == {"is_ok": True}


def test_every_problem_of_the_settings_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text("[worker]\nprocesses = 0\n[logs]\nfrom = 'json'\n")
    result = CommandLine().run("config", "check", str(path))
    assert result.exit_code == 3
    assert "2 problems" in result.stderr
    assert "worker.processes" in result.stderr
    assert "did you mean logs.form" in result.stderr
    told = json.loads(CommandLine().run("config", "check", str(path), "--json").stderr)
    assert told["error"]["code"] == "config_invalid"
