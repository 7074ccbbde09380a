"""A job request with two fields more in the table alone: one for the worker, one for the scheduler."""

from dataclasses import dataclass, field
from typing import Annotated

from tether.requests.fields import JobRequest, Sampling
from tether.requests.rules import Number, Text
from tether.requests.table import About, Place, Table


@dataclass(frozen=True, kw_only=True)
class WideSampling(Sampling):
    whimsy: Annotated[float, About("A field for tests.", Number(0, 1), Place.SAMPLING)] = 0.0


@dataclass(frozen=True, kw_only=True)
class WideRequest(JobRequest):
    sampling: WideSampling = field(default_factory=WideSampling)
    purpose: Annotated[str, About("What it is for.", Text(max_bytes=10))] = ""


WIDE_TABLE = Table(WideRequest)
