"""The scenario of the placement simulation: a fleet that is not alike, models that are not equally wanted."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tether.envelopes import Placeable
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import Priority
from tether.models.registry import ModelVersion, pool_name

REGIONS = ("eu", "us")
HOPS = {True: 1, False: 4}
"""25 ms steps from a gateway to workers of its own region, and of the other."""


@dataclass(frozen=True)
class Machines:
    """Workers of one GPU class.

    Attributes:
      gpu_class: Theirs.
      count: How many there are in each region.
      slots: Of each.
      rate: Tokens a second of a busy slot.
      load_seconds: To load a model.
      resident: Models that fit into its memory.
    """

    gpu_class: str
    count: int
    slots: int
    rate: float
    load_seconds: float
    resident: int


MACHINES = (
    Machines("h100", 3, 8, 80.0, 6.0, 3),
    Machines("a10", 8, 4, 25.0, 15.0, 2),
    Machines("cpu", 6, 2, 8.0, 5.0, 2),
)
MODELS, MODELS_PER_WORKER = 20, 6
ZIPF = 1.1
"""The exponent by which models are wanted: the n-th as often as ``1 / n ** ZIPF``."""


@dataclass(frozen=True)
class SimulatedWorker:
    """One worker, and the pools that it draws from, by model."""

    number: int
    machines: Machines
    region: str
    pools: dict[str, PoolName]


@dataclass(frozen=True)
class SimulatedJob:
    """A job: when it comes to which gateway, and how many tokens it will make, of those that it may."""

    number: int
    at: float
    gateway: int
    model: ModelVersion
    tokens: int
    max_tokens: int


@dataclass(frozen=True)
class Scenario:
    """A fleet and what is asked of it.

    Attributes:
      models: The most wanted first.
      gateways: The regions of the gateways.
    """

    workers: tuple[SimulatedWorker, ...]
    models: tuple[ModelVersion, ...]
    gateways: tuple[str, ...]
    jobs: tuple[SimulatedJob, ...]


def make_models(count: int) -> tuple[ModelVersion, ...]:
    """So many models, alike but for their names and digests."""
    return tuple(
        ModelVersion(
            name=f"model-{number}",
            version="1",
            digest=hashlib.sha256(f"model-{number}".encode()).hexdigest(),
            context=8_192,
        )
        for number in range(count)
    )


def placeable(job: SimulatedJob) -> Placeable:
    """The envelope that a gateway places. Its clients name no region: the gateway's is preferred."""
    return asking_for(job.model, job.max_tokens, region=REGIONS[job.gateway % len(REGIONS)])


def asking_for(model: ModelVersion, max_tokens: int, *, region: str = "") -> Placeable:
    """A job for a model, best served in a region."""
    return Placeable(
        job_id=JobId("job"),
        tenant_id=TenantId("default"),
        model=model.name,
        model_version=model.version,
        priority=Priority.STANDARD,
        weight=1.0,
        cost=200,
        max_tokens=max_tokens,
        payload="",
        region=region,
        prefer="region" if region else "",
    )


def make_scenario(seed: int, *, jobs: int, load: float) -> Scenario:
    """Make a fleet and its jobs.

    Jobs come as a Poisson process whose rate is doubled for a minute in four. Their tokens are lognormal,
    with a median of 120; their ``max_tokens`` are what clients set: the next power of two above twice that.

    Args:
      load: Share of all tokens that the fleet could decode that are asked for on the average.
    """
    source = random.Random(seed)
    models = make_models(MODELS)
    wanted = list(itertools.accumulate(1 / (number + 1) ** ZIPF for number in range(MODELS)))
    workers = tuple(_workers(source, models, wanted))
    capacity = sum(each.machines.slots * each.machines.rate for each in workers)
    gateways = REGIONS * 2
    made: list[SimulatedJob] = []
    now, mean_tokens = 0.0, 120 * math.exp(0.8**2 / 2)
    for number in range(jobs):
        busy = 2.0 if now % 240 < 60 else 2 / 3
        now += source.expovariate(busy * load * capacity / mean_tokens)
        tokens = max(1, min(4_096, round(source.lognormvariate(math.log(120), 0.8))))
        made.append(
            SimulatedJob(
                number=number,
                at=now,
                gateway=source.randrange(len(gateways)),
                model=models[_pick(source, wanted)],
                tokens=tokens,
                max_tokens=1 << (2 * tokens).bit_length(),
            )
        )
    return Scenario(workers, models, gateways, tuple(made))


def _workers(
    source: random.Random, models: Sequence[ModelVersion], wanted: Sequence[float]
) -> list[SimulatedWorker]:
    workers = []
    numbers = itertools.count()
    for region, machines in itertools.product(REGIONS, MACHINES):
        for _ in range(machines.count):
            number = next(numbers)
            # Each model has some worker in either region; the others serve what is wanted.
            served = {number % MODELS, (number + MODELS // 2) % MODELS}
            while len(served) < MODELS_PER_WORKER:
                served.add(_pick(source, wanted))
            pools = {
                models[each].name: pool_name(machines.gpu_class, region, models[each])
                for each in sorted(served)
            }
            workers.append(SimulatedWorker(number, machines, region, pools))
    return workers


def _pick(source: random.Random, wanted: Sequence[float]) -> int:
    return bisect.bisect(wanted, source.uniform(0, wanted[-1]))
