"""Samples tokens: greedily, or at random in a way that depends on the seed and the absolute position alone.

Adding Gumbel noise to the logits and taking the greatest draws exactly from their softmax (Gumbel 1954;
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
class SamplingStep:
    """How one sequence's next token is chosen.

    Attributes:
      sampling: What the job asks for.
      position: The token's absolute position: tokens of the prompt and of the answer before it.
    """

    sampling: Sampling
    position: int


def sample(logits: torch.Tensor, steps: Sequence[SamplingStep]) -> list[int | None]:
    """The next token of each row; None where its logits are not numbers.

    Args:
      logits: Of shape (rows, vocabulary).
      steps: One for each row.
    """
    logits = logits.float()
    sound = torch.isfinite(logits.amax(dim=-1)).tolist()
    random = [row for row, step in enumerate(steps) if step.sampling.temperature > 0]
    if random:
        logits = logits.clone()
        logits[random] = _noisy(logits[random], [steps[row] for row in random])
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    return [token if is_sound else None for token, is_sound in zip(tokens, sound, strict=True)]


def _noisy(logits: torch.Tensor, steps: Sequence[SamplingStep]) -> torch.Tensor:
    temperatures = torch.tensor([step.sampling.temperature for step in steps], device=logits.device)
    # The greatest becomes 0, so that a very low temperature makes the others minus infinity and not it.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperatures[:, None]
    narrowed = [row for row, step in enumerate(steps) if step.sampling.top_k or step.sampling.top_p < 1.0]
    if narrowed:
        logits[narrowed] = _narrowed(logits[narrowed], [steps[row].sampling for row in narrowed])
    return logits + gumbel_noise([_key(step) for step in steps], logits.shape[-1], logits.device)


def _narrowed(logits: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Minus infinity for all but the ``top_k`` best, and for what lies beyond the mass ``top_p`` of those."""
    size = logits.shape[-1]
    best, order = logits.sort(dim=-1, descending=True, stable=True)
    most = torch.tensor([sampling.top_k or size for sampling in samplings], device=logits.device)
    best = best.masked_fill(torch.arange(size, device=logits.device) >= most[:, None], -torch.inf)
    mass = best.softmax(dim=-1)
    wanted = torch.tensor([sampling.top_p for sampling in samplings], device=logits.device)
    before = mass.cumsum(dim=-1) - mass
    # The best one stays, whatever rounding does.
    beyond = before >= wanted[:, None]
    beyond[:, 0] = False
    best = best.masked_fill(beyond, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, best)


def _key(step: SamplingStep) -> int:
    return _mixed(_mixed(step.sampling.seed & _MASK) ^ (step.position * _GOLDEN & _MASK))


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
    offsets = torch.arange(1, size + 1, dtype=torch.int64, device=device) * _signed(_GOLDEN)
    number = first[:, None] + offsets
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
