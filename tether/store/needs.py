"""What a job must find in a pool beside its model, as one text: by it, jobs that can be placed are found."""

from __future__ import annotations

from collections.abc import Iterator

from tether.envelopes import Placeable


def needs_of(job: Placeable) -> str:
    """The needs of a job that must be met; empty where any pool of its model will do."""
    required = {name: "" if name in job.preferred else getattr(job, name) for name in ("region", "gpu_class")}
    return _text(
        any_version=job.any_version,
        has_size=needed_vram_of(job) > 0,
        **required,
    )


def needed_vram_of(job: Placeable) -> int:
    """Bytes of GPU memory that a job requires; 0 where it requires none."""
    return 0 if "min_vram" in job.preferred else job.min_vram


def needs_met_in(
    region: str, gpu_class: str, *, has_vram: bool, is_own_version: bool
) -> Iterator[tuple[str, bool]]:
    """Yield the needs that a pool meets, each with whether there is a size of GPU memory among them.

    Args:
      has_vram: Whether it is known to have GPU memory; how much a job needs is no part of the text.
      is_own_version: Whether it serves the version that the jobs name; else only jobs that take any version.
    """
    for any_version in (True, False) if is_own_version else (True,):
        for has_size in (True, False) if has_vram else (False,):
            for one in {region, ""}:
                for other in {gpu_class, ""}:
                    text = _text(any_version=any_version, region=one, gpu_class=other, has_size=has_size)
                    if text:
                        yield text, has_size


def _text(*, any_version: bool, region: str, gpu_class: str, has_size: bool) -> str:
    parts = ["any"] if any_version else []
    parts += [f"region={region}"] if region else []
    parts += [f"class={gpu_class}"] if gpu_class else []
    parts += ["vram"] if has_size else []
    return " ".join(parts)
