"""A term of Tether's score: pools in regions that cost less are preferred.

Installed beside Tether, it is found by its entry point. `CHEAP_REGIONS` names the regions, with commas.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from tether.scheduling.affinity import Candidate
from tether.scheduling.filters import PlacementRequest


def _regions() -> frozenset[str]:
    return frozenset(filter(None, os.environ.get("CHEAP_REGIONS", "").split(",")))


@dataclass(frozen=True)
class CheapRegions:
    """1 in a region that costs less, else 0. With a weight of 2 a job waits up to ten seconds for it."""

    regions: frozenset[str] = field(default_factory=_regions)
    weight: float = 2.0
    name: str = "cheap_regions"

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        return float(candidate.pool.region in self.regions)
