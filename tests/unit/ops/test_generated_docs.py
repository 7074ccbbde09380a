"""The pages of the documentation that are made from the code."""

import subprocess
import sys
from functools import partial

import click
import pytest

from support.paths import ROOT
from tether import errors
from tether.errors import InvalidRequest, TetherError
from tether.gateway.openai.bodies import read_chat
from tether.models.registry import ModelVersion
from tether.store.audit import ACTIONS
from tether_cli.main import main

SCRIPTS = str(ROOT / "ops" / "docs")


@pytest.fixture(scope="module")
def generator():
    """The generator's modules, which import one another by their plain names."""
    before = set(sys.modules)
    sys.path.insert(0, SCRIPTS)
    import errors_page
    import generate

    yield generate, errors_page
    sys.path.remove(SCRIPTS)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(SCRIPTS):
            del sys.modules[name]


def test_every_page_is_as_the_code_says(generator):
    generate, _ = generator
    assert generate.stale_pages(ROOT) == [], "run ops/generate-docs"


def test_a_page_that_differs_or_is_missing_is_stale(generator, tmp_path):
    generate, _ = generator
    assert generate.stale_pages(tmp_path) == list(generate.PAGES)
    for path, page in generate.PAGES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(page())
    assert generate.stale_pages(tmp_path) == []
    (path, *_) = generate.PAGES
    with (tmp_path / path).open("a") as page:
        page.write("\n")
    assert generate.stale_pages(tmp_path) == [path]


def test_the_program_checks_without_writing():
    ran = subprocess.run(
        [sys.executable, f"{SCRIPTS}/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_page_of_errors_has_every_error(generator):
    _, errors_page = generator

    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    named = {getattr(errors, name) for name in errors.__all__ if name[0].isupper()}
    here = {kind for kind in below(TetherError) if kind.__module__ == errors.__name__}
    assert here <= named, "an error is missing in tether.errors.__all__"
    assert set(errors_page.error_classes()) == named
    text = errors_page.page()
    for kind in named:
        assert f"| [`{kind.code}`](#{kind.code}) | `{kind.__name__}` | {kind.http_status} | " in text


def test_an_error_whose_docstring_does_not_say_what_to_do_is_refused(generator):
    _, errors_page = generator

    class Mute(TetherError):
        """Something went wrong."""

    with pytest.raises(ValueError, match="Mute needs a meaning and one paragraph"):
        errors_page.split_docstring(Mute)


def test_the_table_of_operators_has_every_act_and_only_verbs_that_there_are():
    rows = table_rows("docs/guide/keys.md", "operators_table.py")
    assert {row[3].strip("`") for row in rows if row[3]} == set(ACTIONS)
    context = click.Context(main)
    for verb in {row[2].strip("`").removeprefix("tether ") for row in rows if row[2]}:
        command = main
        for word in verb.split():
            command = command.get_command(context, word)
            assert command is not None, verb


@pytest.mark.parametrize("ignores", [False, True])
def test_the_table_of_chat_fields_says_what_becomes_of_each(ignores):
    rows = table_rows("docs/guide/openai.md", "foreign_fields.py")
    assert len(rows) > 40
    model = ModelVersion(name="m", version="1", digest="ab" * 32, context=100)
    for cell, fate in rows:
        name = cell.strip("`")
        if fate == "honoured":
            continue
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], name: "what it never is"}
        read = partial(
            read_chat, body, 0, {}, find=lambda _: model, randomness=bytes, ignores_unknown=ignores
        )
        if fate.startswith("ignored") or (ignores and fate.endswith("ignored with the setting")):
            read()
        else:
            with pytest.raises(InvalidRequest, match=name):
                read()


def table_rows(page, source):
    """The cells of each row of the table that is made from this file."""
    _, _, made = (ROOT / page).read_text().partition(f"{source} by ops/generate-docs")
    lines = made.partition("<!-- End")[0].splitlines()
    return [split_row(line) for line in lines if line[:1] == "|"][2:]


def split_row(line):
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
