"""Scorers of users' own, found by entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points

from tether.errors import ConfigError
from tether.scheduling.affinity import Scorer

GROUP = "tether.scorers"


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def load_scorers(find: Callable[[], Iterable[EntryPoint]] = _installed) -> tuple[Scorer, ...]:
    """The scorers that installed packages offer, by name. Each entry point is called without arguments.

    Raises:
      ConfigError: One cannot be loaded, or is no scorer.
    """
    scorers: list[Scorer] = []
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
            raise ConfigError(f"scorer {entry.name!r} ({entry.value}) needs a name, a weight and score()")
        scorers.append(scorer)
    return tuple(scorers)
