"""Chooses tokens: greedily, or at random in a way that depends on the seed and the absolute position alone.

Adding Gumbel noise to the scores and taking the greatest draws exactly from their softmax (Gumbel 1954;
Maddison et al., "A* Sampling", 2014). The noise is a hash of seed, position and token: the same in any batch,
on any device, and for any worker that goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tether.jobs import Sampling

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST_FACTOR = 0xBF58476D1CE4E5B9
_SECOND_FACTOR = 0x94D049BB133111EB


@dataclass(frozen=True)
class Draw:
    """How one row's next token is chosen.

    Attributes:
      sampling: What the job asks for.
      position: The token's absolute position: tokens of the prompt and of the answer before it.
    """

    sampling: Sampling
    position: int


def choose(scores: torch.Tensor, draws: Sequence[Draw]) -> list[int | None]:
    """The next token of each row; None where its scores are no numbers.

    Args:
      scores: Logits, of shape (rows, vocabulary).
      draws: One for each row.
    """
    scores = scores.float()
    sound = torch.isfinite(scores.amax(dim=-1)).tolist()
    drawn = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if drawn:
        scores = scores.clone()
        scores[drawn] = _noisy(scores[drawn], [draws[row] for row in drawn])
    tokens: list[int] = scores.argmax(dim=-1).tolist()
    return [token if is_sound else None for token, is_sound in zip(tokens, sound, strict=True)]


def _noisy(scores: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    temperatures = torch.tensor([draw.sampling.temperature for draw in draws], device=scores.device)
    # The greatest becomes 0, so that a very low temperature makes the others minus infinity and not it.
    scores = (scores - scores.amax(dim=-1, keepdim=True)) / temperatures[:, None]
    narrowed = [row for row, draw in enumerate(draws) if draw.sampling.top_k or draw.sampling.top_p < 1.0]
    if narrowed:
        scores[narrowed] = _narrowed(scores[narrowed], [draws[row].sampling for row in narrowed])
    return scores + gumbel_noise([_key(draw) for draw in draws], scores.shape[-1], scores.device)


def _narrowed(scores: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Minus infinity for all but the ``top_k`` best, and for what lies beyond the mass ``top_p`` of those."""
    size = scores.shape[-1]
    best, order = scores.sort(dim=-1, descending=True, stable=True)
    most = torch.tensor([sampling.top_k or size for sampling in samplings], device=scores.device)
    best = best.masked_fill(torch.arange(size, device=scores.device) >= most[:, None], -torch.inf)
    mass = best.softmax(dim=-1)
    wanted = torch.tensor([sampling.top_p for sampling in samplings], device=scores.device)
    before = mass.cumsum(dim=-1) - mass
    # The best one stays, whatever rounding does.
    beyond = before >= wanted[:, None]
    beyond[:, 0] = False
    best = best.masked_fill(beyond, -torch.inf)
    return torch.empty_like(scores).scatter_(-1, order, best)


def _key(draw: Draw) -> int:
    return _mixed(_mixed(draw.sampling.seed & _MASK) ^ (draw.position * _GOLDEN & _MASK))


def _mixed(number: int) -> int:
    """SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    number = (number + _GOLDEN) & _MASK
    number = ((number ^ number >> 30) * _FIRST_FACTOR) & _MASK
    number = ((number ^ number >> 27) * _SECOND_FACTOR) & _MASK
    return number ^ number >> 31


def gumbel_noise(keys: Sequence[int], size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Gumbel-distributed numbers of shape (keys, size): SplitMix64 of each key at each place.

    23 bits and a half make a number between 0 and 1, never either, that single precision holds exactly.
    """
    first = torch.tensor([_signed(key) for key in keys], dtype=torch.int64, device=device)
    steps = torch.arange(1, size + 1, dtype=torch.int64, device=device) * _signed(_GOLDEN)
    number = first[:, None] + steps
    number = (number ^ _shifted(number, 30)) * _signed(_FIRST_FACTOR)
    number = (number ^ _shifted(number, 27)) * _signed(_SECOND_FACTOR)
    number = number ^ _shifted(number, 31)
    uniform: torch.Tensor = (_shifted(number, 41).float() + 0.5) * 2.0**-23
    noise: torch.Tensor = -torch.log(-torch.log(uniform))
    return noise


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _shifted(number: torch.Tensor, bits: int) -> torch.Tensor:
    """Shifted to the right as unsigned numbers are."""
    shifted: torch.Tensor = (number >> bits) & (2 ** (64 - bits) - 1)
    return shifted
