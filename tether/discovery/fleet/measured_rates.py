"""What the workers of a pool measured of themselves, as one value that no single one of them rules. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import median_high, median_low
from typing import NamedTuple, TypeVar

from tether.discovery.announcements.presence import Presence

MAX_SLOT_TOKENS_PER_SECOND = 10_000.0
"""What no slot decodes; one that says so counts with that."""

MAX_SLOTS_OF_MEDIAN = 8
"""A worker counts with so many times the median of its pool's slots at most: one that says it has any number
of them shall neither draw all jobs nor be the pool's only measure."""

_Name = TypeVar("_Name", bound=Hashable)


class MeasuredRates(NamedTuple):
    """What was measured; each is 0 where it was not.

    Attributes:
      slot_tokens_per_second: Decoded by one busy slot.
      prefill_tokens_per_second: Read of one prompt.
      load_seconds: To load the model.
    """

    slot_tokens_per_second: float = 0.0
    prefill_tokens_per_second: float = 0.0
    load_seconds: float = 0.0


class ToldRates:
    """What several tell, each of its own: those that know nothing of something do not stand in it.

    Attributes:
      slot_rates, prefill_rates, load_seconds: Each greater than 0.
    """

    __slots__ = ("load_seconds", "prefill_rates", "slot_rates")

    def __init__(self) -> None:
        self.slot_rates: list[float] = []
        self.prefill_rates: list[float] = []
        self.load_seconds: list[float] = []

    def medians(self) -> MeasuredRates:
        """Of each the median; of two in the middle the one that promises less."""
        return MeasuredRates(
            median_low(self.slot_rates) if self.slot_rates else 0.0,
            median_low(self.prefill_rates) if self.prefill_rates else 0.0,
            median_high(self.load_seconds) if self.load_seconds else 0.0,
        )


def slot_rate(presence: Presence) -> float:
    """What one busy slot of a worker decodes in a second; 0 where that is not known."""
    if not presence.slots:
        return 0.0
    return min(presence.tokens_per_second / presence.slots, MAX_SLOT_TOKENS_PER_SECOND)


def with_those_of_the_like(
    measured: Mapping[_Name, MeasuredRates], kinds: Mapping[_Name, Hashable]
) -> dict[_Name, MeasuredRates]:
    """The same, where what is not known of one is the median of those of its kind.

    Args:
      measured: By name.
      kinds: What those have in common that measure alike, by name.
    """
    like: defaultdict[Hashable, ToldRates] = defaultdict(ToldRates)
    for name, rates in measured.items():
        told = like[kinds[name]]
        told.slot_rates += filter(None, (rates.slot_tokens_per_second,))
        told.prefill_rates += filter(None, (rates.prefill_tokens_per_second,))
        told.load_seconds += filter(None, (rates.load_seconds,))
    medians = {kind: told.medians() for kind, told in like.items()}
    return {
        name: rates if all(rates) else MeasuredRates(*_first_known(rates, medians[kinds[name]]))
        for name, rates in measured.items()
    }


def _first_known(own: MeasuredRates, others: MeasuredRates) -> Iterable[float]:
    return (mine or theirs for mine, theirs in zip(own, others, strict=True))


def max_slots(told: Iterable[int]) -> int:
    """With how many slots a worker of a pool counts at most, where these are what its workers say."""
    # One that says it has none shall not make the others' worth less.
    return MAX_SLOTS_OF_MEDIAN * median_low([slots for slots in told if slots] or [0])


def bounded_sum(values: Sequence[int], most: int) -> int:
    """The sum of these, none of which counts with more than ``most``."""
    return sum(values) if max(values, default=0) <= most else sum(min(value, most) for value in values)
