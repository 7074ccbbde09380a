"""Workers of the fleet as rows and lines, and their changes, from their documents: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tether.discovery.announcements.presence import LATENCY_STEP_MS
from tether.ids import PoolName
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import fitting_columns, time_text

Document: TypeAlias = Mapping[str, Any]
"""What a gateway answers, or the same from Redis: see :mod:`tether.core.fleet_documents`."""

COLUMNS: tuple[str, ...] = (
    *("worker", "name", "state", "gpu class", "region", "free", "queue", "tokens/s", "models", "vram"),
    *("hops", "last seen", "version"),
)
LEFT_OUT_FIRST = ("version", "hops", "vram", "queue", "tokens/s", "region", "gpu class")
"""The columns that a narrow terminal does without, in this order."""

_WHY_STATE = {
    "unroutable": ": it lost a job",
    "silent": ": it draws no jobs",
    "disconnected": ": it cannot reach Redis",
}
_MARKS = {"warm": "*", "loading": "+"}
_GIB = 2**30


def row(worker: Document) -> tuple[str, ...]:
    """The cells of a worker, one for each of :data:`COLUMNS`."""
    cells = (
        *(worker["worker_id"], worker["name"] or "-", worker["state"], worker["gpu_class"], worker["region"]),
        *(f"{worker['free']}/{worker['slots']}", str(worker["queue_depth"])),
        f"{worker['tokens_per_second']:.1f}",
        " ".join(f"{model['name']}{_MARKS.get(model['state'], '')}" for model in worker["models"]) or "-",
        _vram(worker),
        str(worker["latency_hops"]),
        f"{worker['heard_ms'] / 1000:.1f}s",
        worker["software_version"] or "-",
    )
    return tuple(map(one_line, cells))


def fitting(rows: Sequence[Sequence[str]], width: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns for which a terminal has room, and the rows with these alone.

    Args:
      rows: As of :func:`row`.
      width: Characters of a line of the terminal.
    """
    return fitting_columns(COLUMNS, rows, LEFT_OUT_FIRST, width)


def lines(worker: Document) -> list[tuple[str, str]]:
    """Everything that is known of a worker, as names and values; the cache aside."""
    asked_ms = worker["asked_ms"]
    return [
        ("worker", worker["worker_id"]),
        ("name", worker["name"] or "-"),
        ("state", worker["state"]),
        ("boot id", worker["boot_id"]),
        ("key", worker["pub_key"]),
        ("gpu class", worker["gpu_class"]),
        ("region", worker["region"]),
        ("topic", worker["topic"]),
        ("slots", f"{worker['free']} of {worker['slots']} free"),
        ("queue", str(worker["queue_depth"])),
        ("tokens/s", f"{worker['tokens_per_second']:.1f}"),
        ("prefill", _prefill(worker["prefill_tokens_per_second"])),
        ("vram free", _vram(worker)),
        ("hops", f"{worker['latency_hops']} of {LATENCY_STEP_MS} ms"),
        ("last seen", f"{worker['heard_ms'] / 1000:.1f} s ago"),
        ("last draw", "-" if asked_ms is None else f"{asked_ms / 1000:.1f} s ago"),
        ("version", worker["software_version"] or "-"),
        *(("model", _model_text(model)) for model in worker["models"]),
        *(("pool", f"{pool}{_silence_in(PoolName(pool), worker)}") for pool in worker["pools"]),
        *(("last of", f"{one['pool']} ({one['waiting']} waiting)") for one in worker["last_of"]),
    ]


def cache_lines(cache: Document) -> list[tuple[str, str]]:
    """The artifacts that are told of, as names and values."""
    return [(f"cached {artifact['kind']}", _artifact_text(artifact)) for artifact in cache["artifacts"]]


def change_line(change: Document) -> str:
    """What happened to a worker, in one line."""
    worker, name = change["worker_id"], change["name"]
    shown = f"{worker} ({name})" if name else worker
    return one_line(f"{time_text(change['at'])}  {shown}  {_told(change)}")


def _told(change: Document) -> str:
    kind, state, slots = change["kind"], change["state"], change["slots"]
    if kind == "left":
        return "left: it said goodbye" if change["said_goodbye"] else "left: its announcements stopped"
    if kind == "state":
        return f"{state}, was {change['former_state']}{_WHY_STATE.get(state, '')}"
    many = f"{slots} slot{'s' if slots != 1 else ''}"
    return f"{kind}: {state}, {change['gpu_class']} in {change['region']}, {many}"


def _silence_in(pool: PoolName, worker: Document) -> str:
    if pool in worker["silent_pools"]:
        return ", from which it draws no jobs"
    held = worker["held_pools"]
    return f", from which it is held: {held[pool]}" if pool in held else ""


def _vram(worker: Document) -> str:
    if not worker["vram_total"]:
        return "-"
    return f"{worker['vram_free'] / _GIB:.1f}/{worker['vram_total'] / _GIB:.1f} GiB"


def _model_text(model: Document) -> str:
    seconds = model["load_seconds"]
    loads = f", loads in {seconds:g} s" if seconds else ""
    return f"{model['name']} {model['version']}, {model['state']}{loads}, {model['digest']}"


def _prefill(rate: float) -> str:
    return f"{rate:.0f} tokens/s" if rate else "-"


def _artifact_text(artifact: Document) -> str:
    size = f", {artifact['size'] / _GIB:.2f} GiB" if artifact["size"] else ""
    pinned = ", pinned" if artifact["pinned"] else ""
    used = f"used {time_text(artifact['last_use'])}" if artifact["last_use"] else "never used"
    return f"{artifact['digest']}, {artifact['state']}{size}{pinned}, {used}"
