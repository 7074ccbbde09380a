"""Pools as rows and lines, from their documents: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import time_text

PoolDoc: TypeAlias = Mapping[str, Any]
"""A document of a pool: see :mod:`tether.core.pool_documents`."""

POOL_COLUMNS: tuple[str, ...] = (
    *("pool", "model", "state", "workers", "free", "jobs", "waiting", "owed", "tokens/s"),
    *("gpu class", "region"),
)
POOL_LEFT_OUT_FIRST = ("region", "gpu class", "model", "tokens/s", "owed", "free")
"""The columns that a narrow terminal does without, in this order: the name of a pool has its class and
region."""

MEMBER_COLUMNS: tuple[str, ...] = ("worker", "name", "state", "model", "free", "tokens/s")

_STATES = {"no_workers": "no workers", "held_back": "all held back"}


def pool_row(pool: PoolDoc) -> tuple[str, ...]:
    """The cells of a pool, one for each of :data:`POOL_COLUMNS`."""
    cells = (
        *(pool["pool"], model_text(pool), state_text(pool), workers_text(pool)),
        *(f"{pool['free']}/{pool['slots']}", str(pool["jobs"]), count_text(pool["waiting"])),
        *(str(pool["owed"]), f"{pool['tokens_per_second']:.1f}"),
        *(pool["gpu_class"] or "-", pool["region"] or "-"),
    )
    return tuple(map(one_line, cells))


def member_row(member: PoolDoc) -> tuple[str, ...]:
    """The cells of one of a pool's workers, one for each of :data:`MEMBER_COLUMNS`."""
    state = "held back" if member["held"] else "silent" if member["is_silent"] else member["state"]
    cells = (
        *(member["worker_id"], member["name"] or "-", state, member["model_state"]),
        *(f"{member['free']}/{member['slots']}", f"{member['tokens_per_second']:.1f}"),
    )
    return tuple(map(one_line, cells))


def pool_lines(pool: PoolDoc) -> list[tuple[str, str]]:
    """What is known of a pool, as names and values; its workers aside."""
    return [
        ("pool", pool["pool"]),
        ("model", model_text(pool)),
        ("state", state_text(pool)),
        *([("paused", _pause_text(pool))] if pool["paused_at"] is not None else []),
        ("gpu class", pool["gpu_class"] or "-"),
        ("region", pool["region"] or "-"),
        ("workers", workers_text(pool)),
        ("slots", f"{pool['free']} of {pool['slots']} free"),
        ("model is", "loaded" if pool["is_warm"] else "not loaded"),
        ("tokens/s", f"{pool['tokens_per_second']:.1f}"),
        ("jobs", f"{pool['jobs']} that wait or run"),
        *((f"waiting {each['priority']}", _class_text(each)) for each in pool["classes"]),
    ]


def state_text(pool: PoolDoc) -> str:
    """Its state in words."""
    state: str = pool["state"]
    return _STATES.get(state, state)


def model_text(pool: PoolDoc) -> str:
    """What it serves."""
    return f"{pool['model']}@{pool['version']}" if pool["model"] else "-"


def workers_text(pool: PoolDoc) -> str:
    """How many workers it has, and what is wrong with some, where something is."""
    kinds = ("suspect", "held", "silent")
    wrong = [f"{count} {kind}" for kind in kinds if (count := pool[f"{kind}_workers"])]
    return f"{pool['workers']}" + (f" ({', '.join(wrong)})" if wrong else "")


def count_text(count: int | None) -> str:
    """A number of jobs; ``?`` where Redis does not tell."""
    return "?" if count is None else str(count)


def _pause_text(pool: PoolDoc) -> str:
    since = f"since {time_text(pool['paused_at'])}"
    return f"{since}: {pool['reason']}" if pool["reason"] else since


def _class_text(each: PoolDoc) -> str:
    alone = f", {each['waiting_alone']} more that must run alone" if each["waiting_alone"] else ""
    return f"{count_text(each['waiting'])} in Redis{alone}, {each['owed']} in the database"
