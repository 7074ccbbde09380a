"""How fast memory grows: pure functions of samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from report import Figure

GATEWAY, WORKERS, REDIS, DATABASE = "gateway and orchestrator", "workers", "Redis", "database"

MAX_GROWTH = 1.0
"""MB a minute."""

KEYS_PER_JOB = 2
"""In Redis: its hash and its stream."""

SETTLING_SECONDS = 15
"""For so long keys of ended jobs may be there beyond their life: the end's way to the database, and Redis's
own pace."""

OTHER_KEYS = 200
"""Keys that are not of jobs: of the fleet, of pools, of readers."""

MB = 1e6


@dataclass(frozen=True)
class Sample:
    """What was held at one time, in bytes.

    Attributes:
      at_seconds: Since the first job.
      ended: Jobs that have ended since then.
      under_way: Jobs that have not.
      surprises: Jobs that have ended otherwise than they should have.
      memory: Of processes, by the names of parts.
      redis: What Redis says that it uses.
      keys: Redis's.
      database: Of its files.
    """

    at_seconds: float
    ended: int
    under_way: int
    surprises: int
    memory: Mapping[str, int]
    redis: int
    keys: int
    database: int

    def held(self) -> dict[str, int]:
        """Bytes by part, servers too."""
        return {**self.memory, REDIS: self.redis, DATABASE: self.database}


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of the line through points, by least squares.

    Raises:
      ValueError: There are fewer than two different ``xs``.
    """
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if not spread:
        raise ValueError("a line needs two points")
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


def figures(
    samples: Sequence[Sample],
    rested: Sample,
    *,
    warm_up_seconds: float,
    life_seconds: float,
    judges_growth: bool,
) -> Iterator[Figure]:
    """Return what the samples say.

    Args:
      samples: Under load, in order; the last when all jobs had ended.
      rested: After a rest in which all jobs of Redis should have gone.
      warm_up_seconds: What was sampled before does not count for growth.
      life_seconds: How long Redis keeps a job that has ended.
      judges_growth: Whether they cover enough time for a goal.
    """
    counted = [each for each in samples[:-1] if each.at_seconds >= warm_up_seconds]
    first, last = counted[0], counted[-1]
    minutes = [each.at_seconds / 60 for each in counted]
    ended = [float(each.ended) for each in counted]
    rate = (last.ended - first.ended) / (last.at_seconds - first.at_seconds)
    yield Figure("jobs ended a second", rate, "", GATEWAY)
    for part in first.held():
        sizes = [float(each.held()[part]) for each in counted]
        growth = slope(minutes, sizes) / MB
        yield Figure("held after the warm-up", sizes[0] / MB, "MB", part)
        yield Figure("held at the end", sizes[-1] / MB, "MB", part)
        yield Figure("held after a rest", rested.held()[part] / MB, "MB", part)
        is_judged = judges_growth and part != DATABASE
        yield Figure(
            "growth a minute",
            growth,
            "MB",
            part,
            goal=f"{part} under {MAX_GROWTH:g} MB" if is_judged else "",
            met=growth < MAX_GROWTH if is_judged else None,
        )
        yield Figure("growth for each job", slope(ended, sizes), "bytes", part)
    # No more jobs than have ended in the life of one, and those under way.
    most = max(counted, key=lambda each: each.keys)
    jobs = rate * (life_seconds + SETTLING_SECONDS) + max(each.under_way for each in counted)
    allowed = round(KEYS_PER_JOB * jobs) + OTHER_KEYS
    yield Figure(
        "keys, at most",
        most.keys,
        "",
        REDIS,
        goal=f"at most {allowed:,}, those of {life_seconds + SETTLING_SECONDS:g} s",
        met=most.keys <= allowed,
    )
    yield Figure(
        "keys after a rest",
        rested.keys,
        "",
        REDIS,
        goal=f"at most {OTHER_KEYS}",
        met=rested.keys <= OTHER_KEYS,
    )
    yield Figure(
        "jobs that ended otherwise",
        samples[-1].surprises,
        "",
        GATEWAY,
        goal="none",
        met=not samples[-1].surprises,
    )
