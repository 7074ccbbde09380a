"""The documents of pools, as the command line and the gateway show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tether.core.pool_changes import PoolChange
from tether.core.pool_states import PoolFacts
from tether.discovery.fleet.fleet import Fleet, Member, silent_in
from tether.discovery.fleet.liveness import Evidence
from tether.discovery.fleet.pool_views import PoolView
from tether.discovery.fleet.shown_states import shown_state
from tether.errors import TetherError
from tether.ids import JobId, PoolName, WorkerId
from tether.jobs import Priority
from tether.store.pool_pauses import PoolPause

MAX_ERRORS_TOLD = 20
"""Jobs that could not be changed of which is told why."""


def pool_to_json(facts: PoolFacts) -> dict[str, Any]:
    """A pool as JSON; its workers and classes aside."""
    view, pause = facts.view, facts.pause
    return {
        "object": "pool",
        "pool": facts.name,
        "model": facts.model or None,
        "version": facts.version or None,
        "state": facts.state.value,
        "reason": None if pause is None else pause.reason,
        "paused_at": None if pause is None else pause.paused_at,
        "gpu_class": None if view is None else view.gpu_class,
        "region": None if view is None else view.region,
        **_workers_to_json(view),
        "tokens_per_second": facts.tokens_per_second,
        "jobs": facts.jobs,
        "waiting": facts.waiting,
        "owed": facts.owed,
    }


def _workers_to_json(view: PoolView | None) -> dict[str, Any]:
    if view is None:
        counts = ("workers", "suspect_workers", "held_workers", "silent_workers", "slots", "free")
        return {**dict.fromkeys(counts, 0), "is_warm": False}
    return {
        "workers": view.workers,
        "suspect_workers": view.suspects,
        "held_workers": view.held - view.unloadable,
        "silent_workers": view.silent,
        "slots": view.slots,
        "free": view.free,
        "is_warm": view.warm,
    }


def whole_pool_to_json(
    facts: PoolFacts,
    *,
    waiting: Mapping[str, int] | None,
    owed: Mapping[Priority, int],
    fleet: Fleet,
    evidence: Evidence | None,
    names: Mapping[WorkerId, str],
    now: int,
) -> dict[str, Any]:
    """The same with its workers, and what waits by class.

    Args:
      waiting: Jobs that wait in Redis, by each class of lanes; None where Redis does not tell.
      owed: Jobs that wait for room there, by class.
      names: What workers are called.
      now: Milliseconds of the clock that the fleet's times are of.
    """
    members = sorted(
        (member for member in fleet.members.values() if any(name == facts.name for name, _ in member.serves)),
        key=lambda member: member.presence.worker_id,
    )
    held = {} if evidence is None else evidence.held
    return {
        **pool_to_json(facts),
        "classes": [
            {
                "priority": priority.value,
                "waiting": None if waiting is None else waiting[priority],
                "waiting_alone": None if waiting is None else waiting[f"alone.{priority}"],
                "owed": owed[priority],
            }
            for priority in Priority
        ],
        "members": [
            {
                **_member_to_json(facts.name, member, fleet),
                "name": names.get(member.presence.worker_id, ""),
                "state": shown_state(fleet, member, now).value,
                "held": reason.why.in_words()
                if (reason := held.get(member.presence.worker_id, {}).get(facts.name)) is not None
                and reason.why is not None
                else None,
            }
            for member in members
        ],
    }


def _member_to_json(pool: PoolName, member: Member, fleet: Fleet) -> dict[str, Any]:
    presence = member.presence
    return {
        "worker_id": presence.worker_id,
        "model_state": next(model.state.value for name, model in member.serves if name == pool),
        "is_silent": pool in silent_in(member, fleet.silent),
        "slots": presence.slots,
        "free": presence.free,
        "tokens_per_second": presence.tokens_per_second,
    }


def pause_to_json(pool: PoolName, pause: PoolPause | None, *, was_paused: bool) -> dict[str, Any]:
    """A pool's pause, or its end."""
    return {
        "object": "pool_pause",
        "pool": pool,
        "is_paused": pause is not None,
        "was_paused": was_paused,
        "reason": None if pause is None else pause.reason,
        "paused_at": None if pause is None else pause.paused_at,
    }


def pool_change_to_json(kind: str, pool: PoolName, change: PoolChange, **more: Any) -> dict[str, Any]:
    """What one call has moved or cancelled."""
    told: Sequence[tuple[JobId, Exception]] = sorted(change.errors.items(), key=lambda each: each[0])
    return {
        "object": kind,
        "pool": pool,
        **more,
        "jobs": change.done,
        "failed": len(told),
        "errors": [_error_to_json(job_id, error) for job_id, error in told[:MAX_ERRORS_TOLD]],
        "has_more": change.has_more,
    }


def _error_to_json(job_id: JobId, error: Exception) -> dict[str, Any]:
    if isinstance(error, TetherError):
        return {"job_id": job_id, "code": error.code, "message": error.outward or str(error)}
    # What a driver says may name what is its owner's business: the log of whoever finds it again has it.
    return {
        "job_id": job_id,
        "code": TetherError.code,
        "message": f"what is kept of it cannot be read or written ({type(error).__name__})",
    }
