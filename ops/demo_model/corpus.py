"""The text that the demo model learns from: what every installed Python has, under the PSF licence.

Documentation comes from docstrings, from the help topics of :mod:`pydoc_data`, and from the docstrings of
the modules written in C. Further text is the standard library's comments and source code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Corpus", "Entry", "SourceFile", "collect", "is_held_out"]

HELD_OUT_PERCENT = 5
"""Of the modules and topics; of each, nothing is trained on."""

SALT = 27
"""So chosen that several help topics are held out, and no module that everybody asks about."""

SHORTEST = 24
"""Characters; a docstring below says too little to be a document."""

MAX_NON_ASCII = 0.05
"""Share of the characters of a document; tables of characters are no prose."""

SKIPPED_FOLDERS = frozenset(
    {
        *("site-packages", "dist-packages", "__pycache__", "lib2to3", "turtledemo"),
        *("test", "tests", "idle_test", "distutils"),
    }
)
"""What others installed, what newer Pythons lack, and tests."""

SKIPPED_FILES = re.compile(
    r"^(_sysconfigdata.*|encodings/(?!__init__|idna|punycode|utf_8_sig).*|pydoc_data/.*)$"
)
NOT_IMPORTED = frozenset({"antigravity", "this", "idlelib", "turtledemo", "test"})
CODE_LIKE = re.compile(r"[=(){}\[\]<>|/\\_]|^\s*(def|class|import|from|if|for|return)\b.*$", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Entry:
    """The documentation of one thing.

    Attributes:
      group: The module or topic; a group is held out as a whole.
      name: What is documented, with its module: ``os.path.join``; the heading of a topic.
      kind: ``module``, ``class``, ``function``, ``method`` or ``topic``.
      text: The documentation, without indentation.
    """

    group: str
    name: str
    kind: str
    text: str


@dataclass(frozen=True, order=True)
class SourceFile:
    """One module's source code, and the longer comments in it."""

    group: str
    path: str
    text: str
    comments: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """All text, sorted and without repetition; the same for the same Python."""

    training: tuple[Entry, ...]
    held_out: tuple[Entry, ...]
    sources: tuple[SourceFile, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is in it, in hexadecimal: two machines with the same have the same text."""
        summed = hashlib.sha256()
        for entry in (*self.training, *self.held_out):
            summed.update(repr((entry.group, entry.name, entry.kind, entry.text)).encode())
        for source in self.sources:
            summed.update(repr((source.path, source.text)).encode())
        return summed.hexdigest()


def is_held_out(group: str) -> bool:
    """Whether this module or topic is kept for the measurement. It depends on the name alone."""
    return (
        int.from_bytes(hashlib.sha256(f"{SALT}{group}".encode()).digest()[:4], "big") % 100 < HELD_OUT_PERCENT
    )


def collect() -> Corpus:
    """Reads the standard library of the Python that runs this. Nothing held out is in what is trained on."""
    files = sorted(_files(Path(sysconfig.get_paths()["stdlib"])))
    parsed = [(group, path, text, tree) for group, path, text in files if (tree := _parse(text)) is not None]
    entries = [
        entry for group, path, _, tree in parsed for entry in _docstrings(group, _module_name(path), tree)
    ]
    entries += _c_docstrings()
    entries += _topics()
    unique: dict[str, Entry] = {}
    # Held-out first: of two equal texts the held-out one stays, and is not trained on.
    for entry in sorted(entries, key=lambda entry: (not is_held_out(entry.group), entry)):
        if _is_prose(entry.text):
            unique.setdefault(" ".join(entry.text.split()), entry)
    held_out = tuple(sorted(entry for entry in unique.values() if is_held_out(entry.group)))
    kept_back = {paragraph for entry in held_out for paragraph in _long_paragraphs(entry.text)}
    training = tuple(
        sorted(
            entry
            for entry in unique.values()
            if not is_held_out(entry.group) and kept_back.isdisjoint(_long_paragraphs(entry.text))
        )
    )
    sources = tuple(
        SourceFile(group, path, text, tuple(_comments(text)))
        for group, path, text, tree in parsed
        if not is_held_out(group) and kept_back.isdisjoint(_documented_paragraphs(group, path, tree))
    )
    return Corpus(training, held_out, sources)


def _files(library: Path) -> Iterator[tuple[str, str, str]]:
    for folder, inner, names in os.walk(library):
        inner[:] = sorted(set(inner) - SKIPPED_FOLDERS)
        for name in sorted(name for name in names if name.endswith(".py")):
            file = Path(folder, name)
            path = file.relative_to(library).as_posix()
            if not SKIPPED_FILES.match(path):
                yield from _file(file, path)


def _file(file: Path, path: str) -> Iterator[tuple[str, str, str]]:
    try:
        with tokenize.open(file) as opened:
            text = opened.read()
    except (SyntaxError, UnicodeDecodeError):
        return
    if len(text.encode()) <= (1 + MAX_NON_ASCII) * len(text):
        yield _group(_module_name(path)), path, text


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _group(module: str) -> str:
    # `_pyio` and `io`, `_pydecimal` and `decimal`: one text in two files must not be on both sides.
    name = module.split(".")[0].removeprefix("_").removeprefix("py")
    parts = [part for part in module.split(".")[1:2] if name not in ("os",)]
    return ".".join([{"datetime": "datetime", "posixpath": "path", "ntpath": "path"}.get(name, name), *parts])


def _docstrings(group: str, module: str, tree: ast.Module) -> Iterator[Entry]:
    public = {"posixpath": "os.path", "ntpath": "os.path"}.get(module, module)
    public = re.sub(r"^_py(?=io$|decimal$|datetime$)", "", public)

    def visit(node: ast.Module | ast.ClassDef, name: str, kind: str) -> Iterator[Entry]:
        if text := ast.get_docstring(node):
            yield Entry(group, name, kind, _tidy(text))
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                yield from visit(child, f"{name}.{child.name}", "class")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and (
                text := ast.get_docstring(child)
            ):
                inner = "method" if kind == "class" else "function"
                yield Entry(group, f"{name}.{child.name}", inner, _tidy(text))

    yield from visit(tree, public, "module")


def _c_docstrings() -> Iterator[Entry]:
    for name in sorted(sys.stdlib_module_names - NOT_IMPORTED):
        spec = importlib.util.find_spec(name) if name != "__main__" else None
        if spec is None or not (spec.origin == "built-in" or (spec.origin or "").endswith((".so", ".pyd"))):
            continue
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        public = {"builtins": "", "posix": "os."}.get(name, name.removeprefix("_") + ".")
        yield from _described(_group(name), public.rstrip(".") or name, "module", module)
        for attribute, value in sorted(vars(module).items()):
            if isinstance(value, type) and value.__module__.removeprefix("_") == name.removeprefix("_"):
                yield from _described(_group(name), public + attribute, "class", value)
                for method, inner in sorted(vars(value).items()):
                    if callable(inner) or isinstance(inner, property):
                        yield from _described(_group(name), f"{public}{attribute}.{method}", "method", inner)
            elif inspect.isbuiltin(value):
                yield from _described(_group(name), public + attribute, "function", value)


def _described(group: str, name: str, kind: str, value: object) -> Iterator[Entry]:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str):
        yield Entry(group, name, kind, _tidy(inspect.cleandoc(text)))


def _topics() -> Iterator[Entry]:
    from pydoc_data.topics import topics

    for key, text in sorted(topics.items()):
        heading, _, rest = text.strip().partition("\n")
        name = heading.strip(" *")
        yield Entry(f"topic {key}", name or key, "topic", _tidy(re.sub(r"^\s*[*=-]{4,}\s*\n", "", rest)))


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in text.expandtabs(4).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _is_prose(text: str) -> bool:
    if len(text) < SHORTEST or sum(not character.isascii() for character in text) > MAX_NON_ASCII * len(text):
        return False
    return sum(character.isalpha() or character == " " for character in text) > 0.6 * len(text)


def _long_paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        joined = " ".join(paragraph.split())
        if len(joined) > 80:
            yield joined


def _documented_paragraphs(group: str, path: str, tree: ast.Module) -> Iterator[str]:
    for entry in _docstrings(group, _module_name(path), tree):
        yield from _long_paragraphs(entry.text)


def _comments(text: str) -> Iterator[str]:
    """Comments of two lines and more that read as sentences."""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        if stripped.startswith("#") and not stripped.startswith("#!"):
            block.append(stripped.lstrip("#").strip(" -=*"))
            continue
        joined = _tidy("\n".join(block))
        if len(block) >= 2 and len(joined) >= 60 and _reads_as_sentences(joined):
            yield joined
        block = []


def _reads_as_sentences(text: str) -> bool:
    marks = len(CODE_LIKE.findall(text))
    return marks < len(text) / 60 and re.search(r"[a-z][.:]($|\s)", text) is not None


def paragraphs(text: str) -> Iterable[str]:
    """The paragraphs of a documentation, in order."""
    return (part.strip("\n") for part in re.split(r"\n\s*\n", text) if part.strip())
