"""Which models a local Tether serves: those of the command line, of the settings, or the demo model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tether.errors import ConfigError

DEMO = "demo"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,127}")
_HUB = re.compile(r"hf:[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?", re.ASCII)


def read_model(text: str, demo: Mapping[str, Any], working_folder: Path) -> dict[str, Any]:
    """A model as ``NAME=SOURCE`` or ``SOURCE`` names it, in the form of a ``[[models]]`` table.

    The source is ``demo``, ``hf:org/name``, also with ``@revision``, or a folder with a ``config.json``.
    Without a name it is the source's last part, in lower case.

    Args:
      demo: The table of the demo model.

    Raises:
      ConfigError: It is none of these, or the folder is not there or holds no model.
    """
    name, separator, source = text.partition("=")
    if not separator:
        name, source = "", text
    if separator and _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"--model {text!r}: {name!r} is not a valid model name; use letters, digits, '.', "
            "'_', ':', '/' or '-'"
        )
    if source == DEMO:
        return {**demo, **({"name": name} if name else {})}
    if source.startswith("hf:"):
        if _HUB.fullmatch(source) is None:
            raise ConfigError(
                f"--model {text!r}: write a model of the hub as hf:org/name or hf:org/name@revision"
            )
        return {"name": name or _name_from(source.partition("@")[0]), "source": source}
    folder = (working_folder / Path(source).expanduser()).resolve()
    if not source or not folder.is_dir():
        raise ConfigError(
            f"--model {text!r}: there is no folder {str(folder)!r}; the source is demo, hf:org/name or a "
            "folder with a model"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"--model {text!r}: the folder {str(folder)!r} has no config.json; use one to which "
            "save_pretrained wrote a model"
        )
    return {"name": name or _name_from(str(folder)), "source": str(folder)}


def read_model_options(
    texts: Sequence[str], demo: Mapping[str, Any], working_folder: Path
) -> list[dict[str, Any]]:
    """The models that ``--model`` options name, see :func:`read_model`.

    Raises:
      ConfigError: One of them cannot be, or two have one name.
    """
    models = [read_model(text, demo, working_folder) for text in texts]
    names = [model["name"] for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"--model: two models are named {name!r}; write NAME=SOURCE to rename one of them"
            )
    return models


def _name_from(source: str) -> str:
    last = re.split(r"[/:]", source)[-1].lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", last).lstrip("._-")[:64]
    return name or "model"
