"""Which NVIDIA GPUs this machine has, as the driver's files tell it: without loading any library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MAX_CLASS_CHARACTERS = 32
_DRIVER = Path("proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
      device: What ``CUDA_VISIBLE_DEVICES`` calls it.
      gpu_class: Its kind, as workers announce it.
    """

    device: str
    gpu_class: str


def find_gpus(environ: Mapping[str, str], root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The GPUs that a program here would see.

    ``CUDA_VISIBLE_DEVICES`` limits them, as it does in CUDA: the first entry that names none ends the list.

    Args:
      root: The folder in which ``/proc`` and ``/dev`` are.
    """
    models = _models(root)
    visible_devices = environ.get("CUDA_VISIBLE_DEVICES")
    if visible_devices is None:
        return tuple(Gpu(str(number), class_of(model)) for number, model in enumerate(models))
    gpus = []
    for entry in (part.strip() for part in visible_devices.split(",")):
        if entry.isascii() and entry.isdigit() and int(entry) < len(models):
            gpus.append(Gpu(entry, class_of(models[int(entry)])))
        elif models and re.match(r"(GPU|MIG)-", entry):
            # Which of them has this name only the driver knows; where all are alike that makes no difference.
            gpus.append(Gpu(entry, class_of(models[0])))
        else:
            break
    return tuple(gpus)


def class_of(model: str) -> str:
    """A GPU's class: its model's name in lower case letters, digits and hyphens, at most 32."""
    words = re.sub(r"^(nvidia|tesla)\s+|^nvidia\s+(tesla|geforce)\s+", "", model.strip().lower())
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:_MAX_CLASS_CHARACTERS].strip("-")
    return slug or "gpu"


def _models(root: Path) -> list[str]:
    try:
        folders = sorted((root / _DRIVER).iterdir())
    except OSError:
        folders = []
    if folders:
        return [_model_in(folder / "information") for folder in folders]
    try:
        devices = [entry.name for entry in (root / "dev").iterdir()]
    except OSError:
        return []
    return ["gpu" for name in devices if re.fullmatch(r"nvidia\d+", name)]


def _model_in(path: Path) -> str:
    try:
        match = re.search(r"^Model:\s*(.+)$", path.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return "gpu"
    return match.group(1) if match else "gpu"
