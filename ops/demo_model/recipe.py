"""The recipe of the demo model: its size, its data, its schedule. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ADAPTER",
    "BASELINE",
    "CHECK",
    "DEMO",
    "AdapterRecipe",
    "Optimizer",
    "Recipe",
    "Size",
    "Source",
    "Stage",
]

CONTEXT = 512
"""Tokens: the longest sequence that the model is trained with, and its `max_position_embeddings`."""


class Source(StrEnum):
    """A kind of text that a batch's rows are drawn from."""

    PROSE = "prose"
    COMMENTS = "comments"
    CODE = "code"
    CHAT = "chat"


class Optimizer(StrEnum):
    """What moves the weights. With Muon, embeddings and norms are still moved by AdamW."""

    ADAMW = "adamw"
    MUON = "muon"


@dataclass(frozen=True)
class Size:
    """A Llama with tied embeddings."""

    vocabulary: int = 3072
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 688


@dataclass(frozen=True)
class Stage:
    """A part of the training with one mixture of sources.

    Attributes:
      until: Share of all steps after which it ends.
      rows: Sequences in a batch.
      length: Tokens in a sequence.
      mixture: The share of rows of each source; together 1.
    """

    until: float
    rows: int
    length: int
    mixture: tuple[tuple[Source, float], ...]


@dataclass(frozen=True)
class Recipe:
    """One training from scratch.

    Attributes:
      peak: The highest learning rate.
      warm_up: Share of the steps in which the rate rises linearly to its peak.
      decay: Share of the steps, the last ones, in which it falls linearly to zero; cosine where it is 1.
    """

    size: Size = Size()
    optimizer: Optimizer = Optimizer.MUON
    peak: float = 4e-3
    weight_decay: float = 0.1
    warm_up: float = 0.03
    decay: float = 0.5
    steps: int = 550
    seed: int = 20
    stages: tuple[Stage, ...] = ()

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        done = (step + 1) / self.steps
        if done < self.warm_up:
            return self.peak * done / self.warm_up
        if self.decay >= 1:
            return self.peak * 0.5 * (1 + math.cos(math.pi * (done - self.warm_up) / (1 - self.warm_up)))
        return self.peak * min(1.0, (1 - step / self.steps) / self.decay)

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        return next(stage for stage in self.stages if step < stage.until * self.steps)


@dataclass(frozen=True)
class AdapterRecipe:
    """The training of a LoRA adapter on a finished model."""

    rank: int = 8
    alpha: int = 16
    peak: float = 3e-3
    steps: int = 250
    rows: int = 16
    length: int = 192
    seed: int = 21


_PROSE_ONLY = ((Source.PROSE, 1.0),)
BASELINE = Recipe(
    size=Size(vocabulary=2048, hidden=192, layers=4, heads=6, key_value_heads=3, intermediate=512),
    optimizer=Optimizer.ADAMW,
    peak=3e-3,
    decay=1.0,
    stages=(Stage(1.0, 16, 256, _PROSE_ONLY),),
)
"""The first try: a smaller model, on documentation alone."""

DEMO = Recipe(
    stages=(
        Stage(0.6, 32, 256, ((Source.PROSE, 0.6), (Source.CODE, 0.25), (Source.COMMENTS, 0.15))),
        Stage(
            1.0,
            16,
            512,
            ((Source.PROSE, 0.5), (Source.CHAT, 0.375), (Source.CODE, 0.0625), (Source.COMMENTS, 0.0625)),
        ),
    ),
)
"""What ships."""

CHECK = Recipe(
    optimizer=Optimizer.ADAMW, steps=20, decay=0.3, peak=6e-3, stages=(Stage(1.0, 8, 128, _PROSE_ONLY),)
)
"""A few steps, which show that the training works. With AdamW: torch's Muon computes in bfloat16 everywhere,
also where that takes ten seconds a step."""

ADAPTER = AdapterRecipe()
