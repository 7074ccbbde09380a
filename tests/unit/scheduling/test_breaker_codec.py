"""Breakers and attempts as Redis keeps them: what is not ours is not read."""

import json
from dataclasses import replace

import pytest

from tether.scheduling.attempt_samples import AttemptSample
from tether.scheduling.breaker import Breaker, BreakerProbe, TripCause
from tether.scheduling.breaker_codec import (
    breaker_from_bytes,
    breaker_to_bytes,
    sample_to_bytes,
    samples_from_bytes,
)

NOW = 1_800_000_000_000
SAMPLE = AttemptSample(at=NOW, began_at=NOW - 5, job_id="job", tenant="red", worker="one", ms_per_token=2.5)
BREAKER = Breaker(
    cause=TripCause.FAILURES,
    opened_at=NOW,
    until=NOW,
    trips=3,
    share=0.5,
    count=20,
    probe=BreakerProbe(job_id="job", tenant="red", claimed_at=NOW),
    passed_over=("red",),
    baseline=2.5,
)


def changed(text, **fields):
    return json.dumps({**json.loads(text), **fields}).encode()


def test_both_are_read_as_they_were_written():
    assert breaker_from_bytes(breaker_to_bytes(BREAKER)) == BREAKER
    assert samples_from_bytes([sample_to_bytes(SAMPLE)]) == [SAMPLE]


@pytest.mark.parametrize(
    "fields",
    [
        {"blame": float("nan")},
        {"blame": 2},
        {"blame": "x"},
        {"at": float("inf")},
        {"at": -1},
        {"began_at": NOW + 1},
        {"tenant": "\ud800"},
        {"tenant": "x" * 10_000},
        {"worker": None, "at": None},
        {"v": 2},
    ],
)
def test_an_attempt_with_garbage_is_left_out_and_costs_no_other(fields):
    found = samples_from_bytes([changed(sample_to_bytes(SAMPLE), **fields), sample_to_bytes(SAMPLE)])
    assert found == [SAMPLE]


@pytest.mark.parametrize("speed", [float("nan"), float("inf"), -1.0, 5e-324, 1e300])
def test_a_speed_that_is_none_says_nothing(speed):
    (found,) = samples_from_bytes([changed(sample_to_bytes(SAMPLE), ms_per_token=speed)])
    assert found == replace(SAMPLE, ms_per_token=0.0)
    assert breaker_from_bytes(changed(breaker_to_bytes(BREAKER), baseline=speed)).baseline == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"until": -1},
        {"since": 2**60},
        {"share": float("nan")},
        {"passed_over": ["x"] * 100},
        {"passed_over": ["\ud800"]},
        {"probe": {"job_id": "x" * 10_000, "tenant": "red", "claimed_at": NOW}},
    ],
)
def test_a_breaker_with_garbage_is_not_read(fields):
    assert breaker_from_bytes(changed(breaker_to_bytes(BREAKER), **fields)) is None
