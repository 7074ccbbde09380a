"""What the documentation points at is there: pages, headings, files of the code, names that it imports."""

import importlib
import re
from functools import cache

import pytest

from support.paths import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "examples", "tests")
    for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE_PATH = re.compile(r"`((?:tether|workers|cli|tests|ops|docs|examples)/[\w./-]+)`")
IMPORT = re.compile(r"^\s*from (tether[\w.]*) import ([\w, ]+)$", re.M)
NO_FILES = {"tether/gossip/1"}
"""Names in the form of a path: that of the sidecars' protocol."""
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)


@cache
def text_of(page):
    return (ROOT / page).read_text("utf-8")


@cache
def anchors_of(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text_of(page)), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCED.sub("", text_of(page))):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        place = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert place.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors_of(place.relative_to(ROOT).as_posix()), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_code_that_are_named_are_there(page):
    named = set(CODE_PATH.findall(text_of(page))) - NO_FILES
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_what_examples_import_is_there(page):
    for module, names in IMPORT.findall(text_of(page)):
        for name in re.findall(r"\w+", names):
            assert hasattr(importlib.import_module(module), name), f"{page}: from {module} import {name}"


def test_the_index_names_every_page():
    index = text_of("docs/README.md")
    pages = {page for page in PAGES if page.startswith("docs/")} - {"docs/README.md"}
    assert {page for page in pages if f"({page.removeprefix('docs/')}" not in index} == set()
