"""A public class or function stands under its name once, so that a search for the name finds one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DEMANDED = {
    "main": "what runs where a module is a program",
    "upgrade": "Alembic calls it in each revision",
    "downgrade": "Alembic calls it in each revision",
}
"""Names that may stand more than once, and who demands them."""

DIALECT = frozenset({"MOST", "LONGEST", "LARGEST", "LEAST", "SHORTEST", "SMALLEST", "A"})
"""Words of constants for which the field says MAX, MIN or PER."""


def product_files() -> list[Path]:
    return sorted(path for folder in ("tether", "workers", "cli") for path in (ROOT / folder).rglob("*.py"))


def is_verb(node: ast.stmt) -> bool:
    """Whether a function is a verb of the command: its name is the word that people type."""
    if not isinstance(node, ast.FunctionDef):
        return False
    called = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any(isinstance(each, ast.Attribute) and each.attr in ("command", "group") for each in called)


def public_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not (node.name.startswith("_") or node.name in DEMANDED or is_verb(node)):
            yield node.name


def duplicates(sources: dict[str, str]) -> dict[str, list[str]]:
    """The public names that more than one module defines, and those modules."""
    defined = defaultdict(set)
    for path, source in sources.items():
        for name in public_names(ast.parse(source)):
            defined[name].add(path)
    return {name: sorted(paths) for name, paths in defined.items() if len(paths) > 1}


def dialect(source: str) -> list[str]:
    """The constants of a module that do not say MAX, MIN or PER where they mean it."""
    constants = [
        target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z0-9_]+", target.id)
    ]
    return [name for name in constants if any(word in DIALECT for word in name.strip("_").split("_"))]


def test_a_public_name_is_defined_by_one_module():
    found = duplicates({str(path.relative_to(ROOT)): path.read_text() for path in product_files()})
    assert not found, "give each a name that a newcomer would search for"


def test_constants_say_max_min_and_per():
    found = {str(path.relative_to(ROOT)): dialect(path.read_text()) for path in product_files()}
    assert not {path: names for path, names in found.items() if names}


def test_names_that_a_framework_demands_are_still_defined_more_than_once():
    defined = defaultdict(set)
    for path in product_files():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                defined[node.name].add(path)
    assert not [name for name in DEMANDED if len(defined[name]) < 2], "an exception that nothing needs"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("class Answer: ...", "class Answer: ...", ["Answer"]),
        ("def read(): ...", "async def read(): ...", ["read"]),
        ("class _Answer: ...", "class _Answer: ...", []),
        ("class A:\n    def make(self): ...", "class B:\n    def make(self): ...", []),
        ("@jobs.command()\ndef show(): ...", "@fleet.command('show')\ndef show(): ...", []),
        ("@jobs.command()\ndef show(): ...", "def show(): ...", []),
        ("@functools.cache\ndef show(): ...", "def show(): ...", ["show"]),
        ("def main(): ...", "def main(): ...", []),
    ],
)
def test_what_counts_as_a_duplicate(first, second, expected):
    assert list(duplicates({"first": first, "second": second})) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("MOST_JOBS = 1", ["MOST_JOBS"]),
        ("_LONGEST_LINE: int = 1", ["_LONGEST_LINE"]),
        ("JOBS_A_PAGE = 1", ["JOBS_A_PAGE"]),
        ("MAX_JOBS = JOBS_PER_PAGE = 1", []),
    ],
)
def test_what_counts_as_dialect(source, expected):
    assert dialect(source) == expected
