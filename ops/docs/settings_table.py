"""The table of settings, made from the docstring below each of them and its default."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping

from tether.config.settings import MODELS, Settings

SOURCE = "tether/config/sections.py"


def settings_table() -> str:
    """Return a row for each setting: its key, its variable, its default, and what its docstring says.

    Raises:
      ValueError: A setting has no docstring.
    """
    described = {name: _docstrings(name) for name in Settings.model_fields if name != MODELS}
    lines = ["| key | variable | default | what |", "|---|---|---|---|"]
    for shown in Settings().describe():
        section, _, name = shown.key.partition(".")
        if section not in described:
            continue
        text = described[section].get(name)
        if text is None:
            raise ValueError(f"{shown.key} has no docstring below it in {SOURCE}")
        variable = f"TETHER_{section}__{name}".upper()
        lines.append(f"| `{shown.key}` | `{variable}` | `{shown.value}` | {text} |")
    return "".join(f"{line}\n" for line in lines)


def _docstrings(section: str) -> Mapping[str, str]:
    """Docstrings of a section's settings, by name, each as one line."""
    kind = Settings.model_fields[section].annotation
    assert kind is not None
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    texts[statement.target.id] = " ".join(text.split())
    return texts
