"""What jobs need of a pool as one text, and which of these texts a pool meets."""

import itertools
from dataclasses import replace

import pytest

from support.databases import new_job
from tether.store.needs import needed_vram_of, needs_met_in, needs_of

PLAIN = new_job(0).job
NEEDS = {
    "region": ("", "eu", "us"),
    "gpu_class": ("", "h100"),
    "min_vram": (0, 9),
    "any_version": (False, True),
}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, ""),
        ({"region": "eu"}, "region=eu"),
        ({"region": "eu", "prefer": "region"}, ""),
        ({"min_vram": 7, "prefer": "min_vram"}, ""),
        (
            {"any_version": True, "region": "eu", "gpu_class": "h100", "min_vram": 7},
            "any region=eu class=h100 vram",
        ),
        ({"gpu_class": "h100", "region": "eu", "prefer": "region"}, "class=h100"),
    ],
)
def test_only_what_is_required_is_a_need(asked, text):
    job = replace(PLAIN, **asked)
    assert needs_of(job) == text
    assert (needed_vram_of(job) > 0) == ("vram" in text)


@pytest.mark.parametrize("has_vram", [True, False])
@pytest.mark.parametrize("is_own_version", [True, False])
def test_a_pool_meets_the_needs_of_all_jobs_that_it_can_serve_and_of_no_others(has_vram, is_own_version):
    met = list(needs_met_in("eu", "h100", has_vram=has_vram, is_own_version=is_own_version))
    assert len(met) == len(set(met))
    for values in itertools.product(*NEEDS.values()):
        asked = dict(zip(NEEDS, values, strict=True))
        fits = asked["region"] != "us" and (has_vram or not asked["min_vram"])
        fits = fits and (is_own_version or asked["any_version"])
        text = needs_of(replace(PLAIN, **asked))
        if text:
            assert ((text, asked["min_vram"] > 0) in met) == fits
