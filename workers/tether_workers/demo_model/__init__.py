"""The bundled demo model: a tiny language model, its tokenizer, and a LoRA adapter.

It demonstrates the machinery and knows nothing; ``MODEL_CARD.md`` next to this file describes it. Its
files are package data, so that a fresh installation serves a model without a network.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tether.errors import ConfigError, ModelDamaged

__all__ = ["ADAPTERS", "FILES", "NAME", "SUMS", "adapter_folder", "folder", "verify"]

NAME = "tether-demo"
"""What the model is called where nobody gave it another name."""

ADAPTERS: tuple[str, ...] = ("code",)
"""The LoRA adapters that come with it. With ``code``, a prompt goes on as Python code."""

FILES: tuple[str, ...] = (
    "MODEL_CARD.md",
    "adapters/code/adapter_config.json",
    "adapters/code/adapter_model.safetensors",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
)
"""Every file of the model, relative to :func:`folder`; :data:`SUMS` has the digest of each."""

SUMS = "SHA256SUMS"
"""The file with the digests, in the format of ``sha256sum``."""


def folder() -> Path:
    """The folder that the model is loaded from."""
    return Path(__file__).parent


def adapter_folder(name: str) -> Path:
    """The folder of an adapter.

    Raises:
      ConfigError: There is no such adapter.
    """
    if name not in ADAPTERS:
        raise ConfigError(f"the demo model has no adapter {name!r}: use one of {', '.join(ADAPTERS)}")
    return folder() / "adapters" / name


def verify(where: Path | None = None) -> None:
    """Compares the SHA-256 of every file with what was released.

    Args:
      where: A copy of the folder; None for the one that is installed.

    Raises:
      ModelDamaged: A file is missing or differs, or the list of digests is not readable.
    """
    root = folder() if where is None else where
    sums = _sums(root)
    for name in FILES:
        try:
            digest = hashlib.sha256((root / name).read_bytes()).hexdigest()
        except OSError as problem:
            reason = problem.strerror or "it cannot be read"
            raise ModelDamaged(_advice(root / name, f"cannot be read: {reason}")) from problem
        if sums.get(name) != digest:
            raise ModelDamaged(
                _advice(root / name, f"is not the one listed in {SUMS}: its SHA-256 is {digest}")
            )


def _sums(root: Path) -> dict[str, str]:
    try:
        lines = (root / SUMS).read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ModelDamaged(_advice(root / SUMS, "cannot be read")) from problem
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _advice(file: Path, problem: str) -> str:
    return f"the demo model's file {file} {problem}. Install Tether again to have it as it was released."
