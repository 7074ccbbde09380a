"""The loops of an orchestrator. A new one is a module with its step, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tether.config.settings import Settings
from tether.discovery.followed_models import FollowedModels
from tether.loops import IDLE, Step
from tether.orchestrator.breakers import BREAKERS, JudgeBreakers
from tether.orchestrator.context import LoopContext
from tether.orchestrator.deadlines import EndOverdue
from tether.orchestrator.death_hook import DEATH_HOOK, TellOfDeaths
from tether.orchestrator.held_workers import HELD_WORKERS, TellOfHeldWorkers
from tether.orchestrator.label_index import LABEL_INDEX, IndexLabels
from tether.orchestrator.lease_expiry import TickLeases
from tether.orchestrator.letter_copying import LETTER_COPIES, CopyLetters
from tether.orchestrator.letter_expiry import LETTER_EXPIRY, ExpireLetters
from tether.orchestrator.long_waits import LONG_WAITS, MoveLongWaits
from tether.orchestrator.lost_pools import LOST_POOLS, GiveBackLost
from tether.orchestrator.outbox_relay import RelayOutbox
from tether.orchestrator.outcomes import SettleOutcomes
from tether.orchestrator.pause_mirror import MirrorPauses
from tether.orchestrator.port_scripts import PublishPortScripts
from tether.orchestrator.pruning import Prune
from tether.orchestrator.reconcile import Reconcile
from tether.orchestrator.redis_sweep import SweepRedis
from tether.orchestrator.shut_pools import SHUT_POOLS, GiveBackShut
from tether.orchestrator.task_submissions import AdmitSubmits
from tether.orchestrator.trust_mirror import MirrorTrust
from tether.orchestrator.waiting import WAITING, PlaceWaiting

Interval = Callable[[Settings], float]


@dataclass(frozen=True)
class RegisteredLoop:
    """One loop of every orchestrator.

    Attributes:
      name: Of the loop, and of its thread after ``tether-``.
      make: Creates the step.
      interval: The maximum sleep between two steps, in seconds.
      is_leased: Whether only one of several orchestrators runs it at a time. Without a lease it continues
        while the database is unavailable, and must be safe to run concurrently.
      looks_at_fleet: Whether it works for the models alone whose workers its orchestrator knows: there is a
        lease for each set of such models.
    """

    name: str
    make: Callable[[LoopContext], Step]
    interval: Interval
    is_leased: bool = True
    looks_at_fleet: bool = False

    def lease(self, models: FollowedModels | None) -> str:
        """The name of its lease in an orchestrator that knows the workers of these models; None is all."""
        return self.name if models is None or not self.looks_at_fleet else f"{self.name}@{models.label}"


def every(seconds: float) -> Interval:
    """The same interval whatever the settings."""
    return lambda settings: seconds


def _outbox(settings: Settings) -> float:
    return settings.orchestrator.outbox_interval / 1000


def _leases(settings: Settings) -> float:
    return settings.orchestrator.lease_interval / 1000


def _sweep(settings: Settings) -> float:
    return settings.orchestrator.sweep_interval / 1000


LOOPS = (
    RegisteredLoop("outcomes", SettleOutcomes.make, every(IDLE), is_leased=False),
    RegisteredLoop("submits", AdmitSubmits.make, every(IDLE), is_leased=False),
    RegisteredLoop("leases", TickLeases.make, _leases, is_leased=False),
    RegisteredLoop(WAITING, PlaceWaiting.make, _outbox, looks_at_fleet=True),
    RegisteredLoop("outbox", RelayOutbox.make, _outbox),
    RegisteredLoop(LOST_POOLS, GiveBackLost.make, every(1.0), looks_at_fleet=True),
    RegisteredLoop(LONG_WAITS, MoveLongWaits.make, every(1.0), looks_at_fleet=True),
    RegisteredLoop(BREAKERS, JudgeBreakers.make, every(1.0)),
    RegisteredLoop(SHUT_POOLS, GiveBackShut.make, every(0.5), looks_at_fleet=True),
    RegisteredLoop(HELD_WORKERS, TellOfHeldWorkers.make, every(5.0), looks_at_fleet=True),
    RegisteredLoop("deadlines", EndOverdue.make, every(1.0)),
    RegisteredLoop("reconcile", Reconcile.make, every(0.5)),
    RegisteredLoop("pruning", Prune.make, every(5.0)),
    RegisteredLoop(LETTER_EXPIRY, ExpireLetters.make, every(5.0)),
    RegisteredLoop(LETTER_COPIES, CopyLetters.make, every(5.0)),
    RegisteredLoop(DEATH_HOOK, TellOfDeaths.make, every(1.0)),
    RegisteredLoop(LABEL_INDEX, IndexLabels.make, every(60.0)),
    RegisteredLoop("redis-sweep", SweepRedis.make, _sweep),
    RegisteredLoop("trust-mirror", MirrorTrust.make, every(1.0)),
    RegisteredLoop("pause-mirror", MirrorPauses.make, every(1.0)),
    RegisteredLoop("port-scripts", PublishPortScripts.make, every(5.0)),
)
