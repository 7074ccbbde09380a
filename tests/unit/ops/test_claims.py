"""What the README and the pages of benchmarks claim is what was measured, and stored beside the page."""

import importlib
import json
import re
from functools import cache

import pytest

from support.paths import ROOT

FOLDER = ROOT / "docs" / "benchmarks"
STORED = sorted(file.stem for file in FOLDER.glob("*.json"))
SOURCE = re.compile(r"\[(\w+)\]\(docs/benchmarks/(\w+)\.md\) (.+?)(?: \(of ([^()]*)\))?$")
RATIO = re.compile(r" \(×[\d.]+\)$")
OURS = ("TetherBroker", "Tether", "")
"""Subjects that are Tether's where a row names none."""
MEASURED = "## Measured"
QUANTITY = re.compile(r"[\d,.]*\d ?(?:ms|µs|s|/s|%|seconds|times)(?!\w)")


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "ops" / "bench"))
        yield importlib.import_module("report")


@cache
def stored(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["figures"]


def figures_of(report, name):
    """The figures of a benchmark as its table shows them, by (name, subject)."""
    found = {}
    for value in stored(name):
        spread = value["spread"] and tuple(value["spread"])
        figure = report.Figure(**{**value, "spread": spread})
        found[figure.name, figure.subject] = report.shown(figure)
    return found


def rows_of(text):
    """The rows of all tables, as (heading of the column by its place, cells)."""
    head = None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if head is None:
            head = cells
        elif not set(line) <= set("|-: "):
            yield head, cells


def readme():
    return (ROOT / "README.md").read_text("utf-8")


def claims():
    (section,) = re.findall(rf"^{MEASURED}\n(.*?)(?=^## )", readme(), re.M | re.S)
    return list(rows_of(section))


@pytest.mark.parametrize("name", STORED)
def test_a_page_shows_every_figure_that_is_stored_beside_it(report, name):
    rows = list(rows_of((FOLDER / f"{name}.md").read_text("utf-8")))
    told = {
        (cells[0], "" if heading == "measured" else heading, cell)
        for head, cells in rows
        for heading, cell in zip(head[1:], cells[1:], strict=False)
    }
    figures = {(*which, shown) for which, shown in figures_of(report, name).items()}
    assert figures - told == set(), f"docs/benchmarks/{name}.md does not say what {name}.json does"


@pytest.mark.parametrize("name", STORED)
def test_a_page_says_where_its_figures_were_read_and_how(name):
    text = (FOLDER / f"{name}.md").read_text("utf-8")
    machine = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["machine"]
    assert f"ops/bench/run {name}" in text
    assert machine["cpu"] in text


def test_the_readme_claims_what_was_measured(report):
    rows = claims()
    assert rows
    for head, cells in rows:
        source = SOURCE.match(cells[-1])
        assert source, (
            f"{cells[0]}: the last column must be [NAME](docs/benchmarks/NAME.md) FIGURE (of SUBJECT)"
        )
        shown, page, figure, subject = source.groups()
        assert shown == page
        figures = {which: RATIO.sub("", text) for which, text in figures_of(report, page).items()}
        ours = [subject] if subject else OURS
        for heading, cell in list(zip(head, cells, strict=True))[1:-1]:
            found = {
                figures[figure, each]
                for each in (ours if heading == "Tether" else [heading])
                if (figure, each) in figures
            }
            assert ({cell} if cell else set()) == found, f"README: {cells[0]}, {heading}"


def test_the_readme_claims_nothing_that_missed_its_goal():
    for _, cells in claims():
        _, page, name, _ = SOURCE.match(cells[-1]).groups()
        missed = [each for each in stored(page) if each["name"] == name and each["met"] is False]
        assert not missed, f"README: {cells[0]} missed its goal"


def test_the_readme_has_no_quantities_but_those_and_what_others_document():
    text = re.sub(r"^```.*?^```$", "", readme(), flags=re.M | re.S)
    text = re.sub(rf"^{MEASURED}\n.*?(?=^## )", "", text, flags=re.M | re.S)
    assert QUANTITY.findall(text) == []


def test_a_wrong_figure_is_found(report, monkeypatch):
    changed = [{**each, "value": (each["value"] or 0) + 1000} for each in stored("queue")]
    monkeypatch.setattr(f"{__name__}.stored", lambda name: changed)
    with pytest.raises(AssertionError):
        test_the_readme_claims_what_was_measured(report)
