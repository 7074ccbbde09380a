"""The pages of the documentation that are made from the code."""

import subprocess
import sys

import pytest

from support.paths import ROOT
from tether import errors
from tether.errors import TetherError

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
