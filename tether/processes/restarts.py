"""When supervised processes are started, stopped, and started again: pure decisions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tether.errors import ConfigError


@dataclass(frozen=True)
class RestartPolicy:
    """How long to wait before a child is started again.

    Attributes:
      first_delay: Seconds before the first restart.
      max_delay: Seconds that no wait exceeds.
      steady_after: Seconds that a child must have lived for its earlier failures to be forgotten.
      served_after: Seconds that a child must have been ready for the same.
      boot_limit: Seconds that a child may take to become ready; one that takes longer is killed.
    """

    first_delay: float = 0.25
    max_delay: float = 30.0
    steady_after: float = 30.0
    served_after: float = 2.0
    boot_limit: float = 120.0

    def __post_init__(self) -> None:
        limits = (self.steady_after, self.served_after)
        if not 0 < self.first_delay <= self.max_delay or self.boot_limit <= 0 or min(limits) < 0:
            raise ConfigError(
                f"{self} is not a restart policy: delays and limits are seconds above 0, and first_delay is "
                "at most max_delay"
            )

    def failures_in_a_row(self, before: int, lived: float, served: float = 0.0) -> int:
        """Failures to count when a child ends ``lived`` seconds after its start, the last ``served`` of them
        ready."""
        return 1 if lived >= self.steady_after or served >= self.served_after else before + 1

    def delay(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row: doubled each time."""
        return min(self.first_delay * 2.0 ** min(failures - 1, 32), self.max_delay)


def startable(
    afters: Mapping[str, Collection[str]], started: Collection[str], ready: Collection[str]
) -> list[str]:
    """Those that were never started and whose turn it is now.

    Args:
      afters: Of each the names of those that must have been ready before it.
      started: Those that were started once.
      ready: Those that were ready once.
    """
    return [name for name, after in afters.items() if name not in started and set(after) <= set(ready)]


def stoppable(afters: Mapping[str, Collection[str]], running: Collection[str]) -> list[str]:
    """Those of the running ones on which no other running one stands: they are stopped first."""
    needed = {name for other in running for name in afters[other]}
    return [name for name in running if name not in needed]
