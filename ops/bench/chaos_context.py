"""What faults and the counting of their effects have in common: the installation, and who watches it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chaos_parts import Part, send
from chaos_script import FaultType, ScriptedFault
from chaos_site import Site
from chaos_watch import ClientWatch, JobWatch, LogMarks, RunningAttempt

EffectCounts: TypeAlias = dict[str, int]
CountEffects: TypeAlias = Callable[[], EffectCounts]
FaultInjectors: TypeAlias = Mapping[FaultType, Callable[[ScriptedFault], CountEffects]]

LOST_SECONDS = 8.0
"""After this every lost attempt is known to be lost."""


@dataclass(frozen=True)
class FaultContext:
    """What is struck, and what is looked at meanwhile.

    Attributes:
      stop: Ends all waiting.
    """

    site: Site
    watch: JobWatch
    clients: ClientWatch
    stop: threading.Event

    def running_on(self, part: Part) -> list[RunningAttempt]:
        """The attempts that run on a worker."""
        boot_id = part.log.look().boot_id
        return [one for one in self.watch.running() if one.worker == boot_id]

    def count_lost(self, victims: Sequence[RunningAttempt]) -> EffectCounts:
        """How many of these attempts their workers lost."""
        return {"attempts lost": self.watch.count_lost(victims, LOST_SECONDS)}

    def all_marks(self) -> LogMarks:
        """Where the logs of all parts end now."""
        return LogMarks([part.log for part in self.site.parts.values()])

    def stop_for(self, fault: ScriptedFault, pids: Sequence[int]) -> None:
        """Stop these processes for as long as the fault lasts."""
        send(signal.SIGSTOP, pids)
        self.stop.wait(fault.seconds)
        send(signal.SIGCONT, pids)
