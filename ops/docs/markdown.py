"""Texts of docstrings as Markdown."""

from __future__ import annotations

import re


def markdown_of(text: str) -> str:
    """Return a docstring's text as Markdown, each reference, as ``:class:`~a.b.C```, as its last name."""
    named = re.sub(r":\w+:`~?([^`]+)`", lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    return named.replace("``", "`")


def words_of(paragraph: str) -> str:
    """Return a paragraph on one line, as Markdown."""
    return markdown_of(" ".join(paragraph.split()))
