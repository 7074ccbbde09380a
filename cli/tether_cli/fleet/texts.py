"""Workers of the fleet as rows and lines, and their changes: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tether.core.fleet_changes import Change, ChangeKind, Seen
from tether.core.fleet_documents import Drawing, announced_ms_ago
from tether.discovery.announcements.presence import (
    LATENCY_STEP_MS,
    Artifact,
    CacheManifest,
    ModelState,
    Presence,
    Supported,
)
from tether.discovery.fleet.shown_states import ShownState
from tether.ids import PoolName, WorkerId
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import time_text

COLUMNS: tuple[str, ...] = (
    *("worker", "name", "state", "gpu class", "region", "free", "queue", "tokens/s", "models", "vram"),
    *("hops", "last seen", "version"),
)
LEFT_OUT_FIRST = ("version", "hops", "vram", "queue", "tokens/s", "region", "gpu class")
"""The columns that a narrow terminal does without, in this order."""

_WHY_STATE = {
    ShownState.UNROUTABLE: ": it lost a job",
    ShownState.SILENT: ": it draws no jobs",
    ShownState.DISCONNECTED: ": it cannot reach Redis",
}
_MARKS = {ModelState.WARM: "*", ModelState.LOADING: "+", ModelState.COLD: ""}
_GIB = 2**30


def row(seen: Seen, name: str, now: int) -> tuple[str, ...]:
    """The cells of a worker, one for each of :data:`COLUMNS`.

    Args:
      now: Milliseconds of the clock that the fleet's times are of.
    """
    presence = seen.member.presence
    cells = (
        *(presence.worker_id, name or "-", seen.state.value, presence.gpu_class, presence.region),
        *(f"{presence.free}/{presence.slots}", str(presence.queue_depth)),
        f"{presence.tokens_per_second:.1f}",
        " ".join(f"{model.name}{_MARKS[model.state]}" for model in presence.supported) or "-",
        _vram(presence),
        str(presence.latency_hops),
        f"{announced_ms_ago(seen.member, now) / 1000:.1f}s",
        presence.software_version or "-",
    )
    return tuple(map(one_line, cells))


def fitting(rows: Sequence[Sequence[str]], width: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns for which a terminal has room, and the rows with these alone.

    Args:
      rows: As of :func:`row`.
      width: Characters of a line of the terminal.
    """
    places = list(range(len(COLUMNS)))
    widths = [max(map(len, cells)) for cells in zip(COLUMNS, *rows, strict=True)]
    for name in LEFT_OUT_FIRST:
        # Each cell has three characters around it, the last one four.
        if sum(widths[place] + 3 for place in places) + 1 > width:
            places.remove(COLUMNS.index(name))
    return (
        tuple(COLUMNS[place] for place in places),
        [tuple(cells[place] for place in places) for cells in rows],
    )


def lines(seen: Seen, name: str, now: int, drawing: Drawing) -> list[tuple[str, str]]:
    """Everything that is known of a worker, as names and values; the cache aside."""
    presence = seen.member.presence
    return [
        ("worker", presence.worker_id),
        ("name", name or "-"),
        ("state", seen.state.value),
        ("boot id", presence.boot_id),
        ("key", presence.pub_key),
        ("gpu class", presence.gpu_class),
        ("region", presence.region),
        ("topic", presence.topic),
        ("slots", f"{presence.free} of {presence.slots} free"),
        ("queue", str(presence.queue_depth)),
        ("tokens/s", f"{presence.tokens_per_second:.1f}"),
        ("vram free", _vram(presence)),
        ("hops", f"{presence.latency_hops} of {LATENCY_STEP_MS} ms"),
        ("last seen", f"{announced_ms_ago(seen.member, now) / 1000:.1f} s ago"),
        ("last draw", "-" if drawing.asked_ms is None else f"{drawing.asked_ms / 1000:.1f} s ago"),
        ("version", presence.software_version or "-"),
        *(("model", _model_text(model)) for model in presence.supported),
        *(("pool", f"{pool}{_silence_in(pool, drawing)}") for pool in presence.pools),
    ]


def cache_lines(cache: CacheManifest) -> list[tuple[str, str]]:
    """The artifacts that are told of, as names and values."""
    return [(f"cached {artifact.kind}", _artifact_text(artifact)) for artifact in cache.artifacts]


def change_line(change: Change, names: Mapping[WorkerId, str], at: int) -> str:
    """What happened, in one line.

    Args:
      names: By worker id.
      at: Milliseconds since the epoch.
    """
    worker = change.member.presence.worker_id
    name = names.get(worker, "")
    shown = f"{worker} ({name})" if name else worker
    return one_line(f"{time_text(at)}  {shown}  {_told(change)}")


def _told(change: Change) -> str:
    presence = change.member.presence
    if change.kind is ChangeKind.LEFT:
        return "left: it said goodbye" if change.said_goodbye else "left: its announcements stopped"
    if change.kind is ChangeKind.STATE:
        return f"{change.state.value}, was {change.former}{_WHY_STATE.get(change.state, '')}"
    slots = f"{presence.slots} slot{'s' if presence.slots != 1 else ''}"
    return f"{change.kind.value}: {change.state.value}, {presence.gpu_class} in {presence.region}, {slots}"


def _silence_in(pool: PoolName, drawing: Drawing) -> str:
    if pool in drawing.silent:
        return ", from which it draws no jobs"
    return f", from which it is held: {drawing.held[pool]}" if pool in drawing.held else ""


def _vram(presence: Presence) -> str:
    if not presence.vram_total:
        return "-"
    return f"{presence.vram_free / _GIB:.1f}/{presence.vram_total / _GIB:.1f} GiB"


def _model_text(model: Supported) -> str:
    return f"{model.name} {model.version}, {model.state.value}, {model.digest}"


def _artifact_text(artifact: Artifact) -> str:
    size = f", {artifact.size / _GIB:.2f} GiB" if artifact.size else ""
    pinned = ", pinned" if artifact.pinned else ""
    used = f"used {time_text(artifact.last_use)}" if artifact.last_use else "never used"
    return f"{artifact.digest}, {artifact.state.value}{size}{pinned}, {used}"
