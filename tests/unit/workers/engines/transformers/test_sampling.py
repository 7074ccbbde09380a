"""Random choices hang on seed and position alone, and are those of the softmax."""

import torch

from tether.jobs import Sampling
from tether_workers.engines.transformers.sampling import SamplingStep, gumbel_noise, sample

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])


def steps(count, **sampling):
    return [SamplingStep(Sampling(**{"temperature": 1.0, **sampling}), position) for position in range(count)]


def shares(count, **sampling):
    tokens = sample(LOGITS.repeat(count, 1), steps(count, **sampling))
    return torch.bincount(torch.tensor(tokens), minlength=5) / count


def test_a_choice_is_drawn_from_the_softmax():
    assert torch.allclose(shares(40_000), LOGITS.softmax(0), atol=0.01)


def test_temperature_sharpens_and_flattens():
    assert torch.allclose(shares(40_000, temperature=0.5), (LOGITS / 0.5).softmax(0), atol=0.01)


def test_the_most_probable_ones_alone_are_chosen_from():
    expected = torch.where(LOGITS >= 1.0, LOGITS, -torch.inf).softmax(0)
    assert torch.allclose(shares(40_000, top_k=2), expected, atol=0.01)


def test_the_mass_to_choose_from_includes_the_token_that_completes_it():
    first, second = LOGITS.softmax(0)[0], LOGITS.softmax(0)[1]
    assert shares(2_000, top_p=float(first) - 0.01)[0] == 1
    found = shares(40_000, top_p=float(first + second) - 0.01)
    assert found[2:].sum() == 0
    assert found[1] > 0.2


def test_temperature_zero_is_the_greatest_whatever_the_seed():
    tokens = sample(LOGITS.repeat(3, 1), [SamplingStep(Sampling(seed=seed), 7) for seed in range(3)])
    assert tokens == [0, 0, 0]


def test_a_very_low_temperature_is_the_greatest_and_no_overflow():
    assert shares(100, temperature=1e-30)[0] == 1


def test_a_row_is_chosen_for_alike_in_any_company():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(16, 500, generator=generator)
    asked = [
        SamplingStep(
            Sampling(temperature=0.3 * row, top_k=(row % 3) * 20, top_p=1 - row / 40, seed=row % 4), 90 + row
        )
        for row in range(16)
    ]
    together = sample(logits, asked)
    assert together == [sample(logits[row : row + 1], [asked[row]])[0] for row in range(16)]


def test_seeds_and_positions_make_choices_differ():
    logits = torch.zeros(200, 1_000)
    by_position = sample(
        logits, [SamplingStep(Sampling(temperature=1, seed=1), place) for place in range(200)]
    )
    by_seed = sample(logits, [SamplingStep(Sampling(temperature=1, seed=seed), 1) for seed in range(200)])
    assert len(set(by_position)) > 150
    assert len(set(by_seed)) > 150


def test_noise_is_finite_and_of_gumbels_mean_and_spread():
    noise = gumbel_noise([1, 2**64 - 1, 2**63], 100_000)
    assert torch.isfinite(noise).all()
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.std()) - 1.2825) < 0.01


def test_logits_that_are_no_numbers_choose_nothing():
    logits = torch.stack([LOGITS, torch.full((5,), torch.nan), LOGITS])
    assert sample(logits, steps(3, temperature=0.0)) == [0, None, 0]
