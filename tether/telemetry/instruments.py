"""Counters, gauges and histograms in the memory of this process.

Those of ``prometheus_client`` will not do. That library decides once, when it is first imported, whether a
process shares its metrics with others over files, in the folder that ``PROMETHEUS_MULTIPROC_DIR`` names. A
program, and Dramatiq's Prometheus middleware, set that variable when a worker has booted, long after Tether
was imported: imported by Tether, it would leave their metrics out of the folder; imported once the variable
is set, it would write Tether's into it, among theirs. So it is imported by a scrape alone.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from prometheus_client import Metric

INFINITY = "+Inf"


@dataclass(frozen=True)
class Reading:
    """One value: the end of its name, labels beside the instrument's own, and how much it is."""

    suffix: str
    value: float
    labels: Mapping[str, str]


class Cell:
    """One number that any thread may change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0.0

    @property
    def value(self) -> float:
        """How much it is now."""
        return self._value

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``."""
        with self._lock:
            self._value += amount

    def readings(self) -> list[Reading]:
        """What a scrape shows of it."""
        return [Reading("", self._value, {})]


class CounterCell(Cell):
    """A number that only grows."""

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``.

        Raises:
          ValueError: It is less than 0.
        """
        if amount < 0:
            raise ValueError(f"a counter only grows: add 0 or more, not {amount}")
        super().inc(amount)

    def readings(self) -> list[Reading]:
        return [Reading("_total", self._value, {})]


class GaugeCell(Cell):
    """A number that goes up and down."""

    def dec(self, amount: float = 1) -> None:
        """Subtract ``amount``."""
        self.inc(-amount)

    def set(self, value: float) -> None:
        """Make it ``value``."""
        with self._lock:
            self._value = float(value)


class HistogramCell:
    """How many observations were no greater than each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, amount: float) -> None:
        """Count an observation."""
        with self._lock:
            self._counts[bisect_left(self._bounds, amount)] += 1
            self._sum += amount

    def readings(self) -> list[Reading]:
        """What a scrape shows of it."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        bounds = [*(str(float(bound)) for bound in self._bounds), INFINITY]
        return [
            *(Reading("_bucket", count, {"le": bound}) for bound, count in zip(bounds, counts, strict=True)),
            Reading("_count", counts[-1], {}),
            Reading("_sum", total, {}),
        ]


C = TypeVar("C", CounterCell, GaugeCell, HistogramCell)


class Instrument(Generic[C]):
    """A metric: one cell for each combination of its labels' values.

    Attributes:
      kind: What Prometheus calls it.
      name: Without the ``_total`` of a counter.
      about: What it means.
      label_names: Its labels.
    """

    def __init__(
        self, kind: str, name: str, about: str, label_names: Sequence[str], new_cell: Callable[[], C]
    ) -> None:
        self.kind = kind
        self.name = name
        self.about = about
        self.label_names = tuple(label_names)
        self._new_cell: Callable[[], C] = new_cell
        self._lock = threading.Lock()
        self._cells: dict[tuple[str, ...], C] = {}
        if not label_names:
            self.labels()

    def labels(self, *values: object, **named: object) -> C:
        """The cell of these values, by the labels' order or by their names.

        Raises:
          ValueError: They are not the metric's labels.
        """
        if named:
            if values or named.keys() != set(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, not {tuple(named)}")
            values = tuple(named[name] for name in self.label_names)
        if len(values) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}: give a value for each")
        key = tuple(map(str, values))
        cell = self._cells.get(key)
        if cell is None:
            with self._lock:
                cell = self._cells.setdefault(key, self._new_cell())
        return cell

    def readings(self) -> list[Reading]:
        """All that a scrape shows of it, with all labels."""
        with self._lock:
            cells = list(self._cells.items())
        return [
            Reading(
                reading.suffix,
                reading.value,
                {**dict(zip(self.label_names, key, strict=True)), **reading.labels},
            )
            for key, cell in cells
            for reading in cell.readings()
        ]


class Counter(Instrument[CounterCell]):
    """A metric that only grows."""

    def __init__(
        self, name: str, about: str, label_names: Sequence[str] = (), *, registry: MetricsRegistry
    ) -> None:
        super().__init__("counter", name, about, label_names, CounterCell)
        registry.add(self)

    def inc(self, amount: float = 1) -> None:
        """Add ``amount`` where there are no labels."""
        self.labels().inc(amount)


class Gauge(Instrument[GaugeCell]):
    """A metric that goes up and down."""

    def __init__(
        self, name: str, about: str, label_names: Sequence[str] = (), *, registry: MetricsRegistry
    ) -> None:
        super().__init__("gauge", name, about, label_names, GaugeCell)
        registry.add(self)

    def inc(self, amount: float = 1) -> None:
        """Add ``amount`` where there are no labels."""
        self.labels().inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract ``amount`` where there are no labels."""
        self.labels().dec(amount)

    def set(self, value: float) -> None:
        """Make it ``value`` where there are no labels."""
        self.labels().set(value)


class Histogram(Instrument[HistogramCell]):
    """A metric of how observations are spread. ``buckets`` are upper bounds, in ascending order."""

    def __init__(
        self,
        name: str,
        about: str,
        label_names: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: MetricsRegistry,
    ) -> None:
        super().__init__("histogram", name, about, label_names, lambda: HistogramCell(buckets))
        registry.add(self)


class MetricsRegistry:
    """Instruments that are shown together. It can be given to ``prometheus_client.generate_latest``.

    Attributes:
      instruments: By name.
    """

    def __init__(self) -> None:
        self.instruments: dict[str, Counter | Gauge | Histogram] = {}

    def add(self, instrument: Counter | Gauge | Histogram) -> None:
        """Show an instrument.

        Raises:
          ValueError: There is one with this name.
        """
        if instrument.name in self.instruments:
            raise ValueError(f"there is a metric {instrument.name} already: give each its own name")
        self.instruments[instrument.name] = instrument

    def value_of(self, sample: str, labels: Mapping[str, str] | None = None) -> float | None:
        """The value that a scrape shows under a name, ending and all; None where it shows none."""
        for instrument in self.instruments.values():
            for reading in instrument.readings():
                if instrument.name + reading.suffix == sample and reading.labels == (labels or {}):
                    return reading.value
        return None

    def collect(self) -> Iterator[Metric]:
        """The instruments as ``prometheus_client`` has them."""
        from prometheus_client import Metric

        for instrument in self.instruments.values():
            metric = Metric(instrument.name, instrument.about, instrument.kind)
            for reading in instrument.readings():
                metric.add_sample(instrument.name + reading.suffix, dict(reading.labels), reading.value)
            yield metric
