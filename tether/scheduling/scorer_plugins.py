"""Scorers of users' own, found by entry point."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points

from tether.errors import ConfigError
from tether.scheduling.affinity import DEFAULT_AFFINITY, Candidate, Scorer
from tether.scheduling.filters import PlacementRequest
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

GROUP = "tether.scorers"

LOG_SECONDS = 60.0
"""How often a scorer that goes on failing is logged: it is asked for each job and pool."""


class IsolatedScorer:
    """A scorer whose errors cost nothing but its own term, which is 0 then. They are logged and counted.

    Attributes:
      name, weight: Those of the scorer, as they were when it was loaded.
    """

    def __init__(self, scorer: Scorer, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
          clock: Seconds.
        """
        self.name = scorer.name
        self.weight = float(scorer.weight)
        self._scorer = scorer
        self._clock = clock
        self._silent_until = -math.inf
        self._log = get_logger("tether.scheduling")

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        try:
            return float(self._scorer.score(request, candidate))
        except Exception:
            metrics.SCORER_FAILURES.labels(scorer=self.name).inc()
            now = self._clock()
            if now >= self._silent_until:
                self._silent_until = now + LOG_SECONDS
                self._log.exception(
                    "A scorer failed. Placing without it.", scorer=self.name, pool=candidate.pool.name
                )
            return 0.0


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def load_scorers(find: Callable[[], Iterable[EntryPoint]] = _installed) -> tuple[Scorer, ...]:
    """The scorers that installed packages offer, by name. Each entry point is called without arguments.

    Raises:
      ConfigError: One cannot be loaded, is no scorer, or has the name of another term.
    """
    scorers: list[Scorer] = []
    taken = {scorer.name for scorer in DEFAULT_AFFINITY.scorers}
    for entry in sorted(find(), key=lambda entry: entry.name):
        try:
            scorer = entry.load()()
            is_scorer = isinstance(scorer.name, str) and scorer.weight >= 0 and callable(scorer.score)
        except Exception as error:
            raise ConfigError(
                f"scorer {entry.name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}; "
                "repair or uninstall its package"
            ) from error
        if not is_scorer:
            raise ConfigError(
                f"scorer {entry.name!r} ({entry.value}) needs a name, a weight of 0 or more, and score()"
            )
        if scorer.name in taken:
            # Terms are kept and told by their names: one would count for both.
            raise ConfigError(
                f"scorer {entry.name!r} ({entry.value}) has the name {scorer.name!r}, as another term of the "
                "score: give it another one"
            )
        taken.add(scorer.name)
        scorers.append(IsolatedScorer(scorer))
    return tuple(scorers)
