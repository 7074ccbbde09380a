"""What is known of a pool, and which state that is: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName
from tether.store.pool_pauses import PoolPause


class PoolState(StrEnum):
    """What becomes of jobs in a pool.

    Values:
      SERVING: A worker has its model loaded, and draws from it.
      COLD: It has workers, and none has loaded its model, or can.
      PAUSED: An operator has paused it.
      NO_WORKERS: No live worker draws from it.
      HELD_BACK: All its workers are held back, since they fail what others do.
    """

    SERVING = "serving"
    COLD = "cold"
    PAUSED = "paused"
    NO_WORKERS = "no_workers"
    HELD_BACK = "held_back"


@dataclass(frozen=True, kw_only=True)
class PoolFacts:
    """What is known of a pool.

    Attributes:
      model, version: What it serves; empty where nobody announces it and its model is not configured.
      view: What its workers can do together; None where none announces it.
      pause: None where it is not paused.
      jobs: Jobs with a hold on its capacity: those that wait there, in Redis or for room in it, and those
        that run.
      waiting: Jobs that wait in Redis; None where that does not tell.
      owed: Jobs that wait in the database for room in Redis.
      tokens_per_second: What its workers announce that they make now, together. One that draws from several
        pools counts in each.
    """

    name: PoolName
    model: str = ""
    version: str = ""
    view: PoolView | None = None
    pause: PoolPause | None = None
    jobs: int = 0
    waiting: int | None = 0
    owed: int = 0
    tokens_per_second: float = 0.0

    @property
    def state(self) -> PoolState:
        """A pause comes before all else, since nothing else can help until it is over."""
        if self.pause is not None:
            return PoolState.PAUSED
        if self.view is None or self.view.workers == 0:
            return PoolState.NO_WORKERS
        if self.view.able(None) <= 0 and not self.view.unloadable:
            return PoolState.HELD_BACK
        return PoolState.SERVING if self.view.warm else PoolState.COLD


def is_worth_listing(facts: PoolFacts) -> bool:
    """Whether a pool is announced, paused, or has jobs: others only had some once."""
    return facts.view is not None or facts.pause is not None or any((facts.jobs, facts.waiting, facts.owed))


def others_that_serve(pool: PoolFacts, digest: str, found: Mapping[PoolName, PoolFacts]) -> list[PoolName]:
    """The pools that would get what waits in a pool, by name: of the same version, with workers, not paused.
    While the pool itself may get jobs, they must be better than those that are chosen only where no other can
    serve a job.

    Args:
      digest: Of the version that it serves.
    """
    able = {PoolState.SERVING, PoolState.COLD}
    if pool.pause is not None:
        able.add(PoolState.HELD_BACK)
    return sorted(
        name
        for name, other in found.items()
        if name != pool.name
        and other.view is not None
        and other.view.digest == digest
        and other.state in able
        and (min(other.view.sure, other.view.able(None)) > 0 or pool.pause is not None)
    )
