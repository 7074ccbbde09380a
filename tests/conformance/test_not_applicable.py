"""The list of conformance tests that cannot apply must stay short, and each entry must say why."""

import importlib
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent


@pytest.fixture
def exceptions(monkeypatch):
    monkeypatch.syspath_prepend(HERE / "shim")
    return importlib.import_module("tether_conformance.exceptions")


def entry(number, reason="It is about another broker than Redis."):
    return f'[[not_applicable]]\ntest = "tests/test_x.py::test_{number}"\nreason = "{reason}"\n'


def test_at_most_five_tests_are_listed_and_each_says_why(exceptions):
    listed = exceptions.read_exceptions(HERE / "not_applicable.toml")
    assert len(listed) <= 5
    assert all(len(one.reason.split()) >= 5 for one in listed)


def test_five_entries_with_reasons_are_accepted(exceptions, tmp_path):
    path = tmp_path / "not_applicable.toml"
    path.write_text("".join(map(entry, range(5))))
    assert [one.test for one in exceptions.read_exceptions(path)] == [
        f"tests/test_x.py::test_{number}" for number in range(5)
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("".join(map(entry, range(6))), "at most 5", id="six entries"),
        pytest.param(entry(1, reason=""), "needs a reason", id="empty reason"),
        pytest.param(entry(1, reason="Slow."), "needs a reason", id="one word"),
        pytest.param(entry(1) + entry(1), "listed twice", id="twice"),
        pytest.param('[[not_applicable]]\ntest = "tests/test_x.py::test_1"\n', "a reason", id="no reason"),
        pytest.param(entry(1).replace("::test_1", ""), "no test id", id="a whole file"),
        pytest.param(entry(1) + 'until = "later"\n', "nothing else", id="an unknown field"),
        pytest.param("[[skipped]]\n", "only \\[\\[not_applicable", id="an unknown table"),
        pytest.param("not_applicable = 3\n", "only \\[\\[not_applicable", id="no tables"),
        pytest.param("not_applicable = [3]\n", "no table", id="not a table"),
        pytest.param("[[", "cannot be read", id="not TOML"),
    ],
)
def test_a_list_of_another_form_is_refused(exceptions, tmp_path, text, complaint):
    path = tmp_path / "not_applicable.toml"
    path.write_text(text)
    with pytest.raises(exceptions.BadExceptions, match=complaint):
        exceptions.read_exceptions(path)


def test_the_pinned_source_distribution_is_of_the_version_that_is_installed():
    constraints = (CHECKOUT / "ops" / "constraints.txt").read_text()
    pinned = (HERE / "sdist.txt").read_text()
    version = re.search(r"^dramatiq==(\S+)$", constraints, re.MULTILINE)[1]
    assert re.search(rf"^dramatiq=={re.escape(version)} --hash=sha256:[0-9a-f]{{64}}$", pinned, re.MULTILINE)
