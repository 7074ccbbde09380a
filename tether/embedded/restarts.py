"""When a supervised process that ended is started again: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass

from tether.errors import ConfigError


@dataclass(frozen=True)
class RestartPolicy:
    """How long to wait before a child is started again.

    Attributes:
      first_delay: Seconds before the first restart.
      longest_delay: Seconds that no wait exceeds.
      steady_after: Seconds that a child must have lived for its earlier failures to be forgotten.
      boot_limit: Seconds that a child may take to become ready; one that takes longer is killed.
    """

    first_delay: float = 0.25
    longest_delay: float = 30.0
    steady_after: float = 30.0
    boot_limit: float = 120.0

    def __post_init__(self) -> None:
        if not 0 < self.first_delay <= self.longest_delay or self.boot_limit <= 0 or self.steady_after < 0:
            raise ConfigError(
                f"{self} is not a restart policy: delays and limits are seconds above 0, and first_delay is "
                "at most longest_delay"
            )

    def failures_in_a_row(self, before: int, lived: float) -> int:
        """Failures to count when a child ends ``lived`` seconds after its start."""
        return 1 if lived >= self.steady_after else before + 1

    def delay(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row: doubled each time."""
        return min(self.first_delay * 2.0 ** min(failures - 1, 32), self.longest_delay)
