"""What the soak says of its samples."""

import importlib
from dataclasses import replace

import pytest

from support.paths import ROOT

MB = 1_000_000
PERIOD = 10
RATE = 30
LIFE = 60


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "ops" / "bench"))
    return importlib.import_module("soak_growth")


def samples_of(growth, count=60, **leaks):
    """Samples of ten minutes; ``leaks``: bytes for each job."""

    def sample(number):
        ended = number * PERIOD * RATE
        noise = (number % 3) * MB
        return growth.Sample(
            at_seconds=number * PERIOD,
            ended=ended,
            under_way=10,
            surprises=0,
            memory={
                growth.GATEWAY: 100 * MB + noise + ended * leaks.get("gateway", 0),
                growth.WORKERS: 90 * MB + noise,
            },
            redis=20 * MB + noise + ended * leaks.get("redis", 0),
            keys=int(min(ended, RATE * LIFE) * 2) + int(ended * leaks.get("keys", 0)),
            database=ended * 2_000,
        )

    return [sample(number) for number in range(1, count + 1)]


def missed(growth, samples, rested_keys=20):
    figures = growth.figures(
        samples,
        replace(samples[-1], keys=rested_keys),
        warm_up_seconds=120,
        life_seconds=LIFE,
        judges_growth=True,
    )
    return {(figure.subject, figure.name) for figure in figures if figure.met is False}


def test_what_stays_flat_meets_every_goal(growth):
    assert missed(growth, samples_of(growth)) == set()


@pytest.mark.parametrize(
    ("leaks", "goal"),
    [
        ({"gateway": 1_000}, ("gateway and orchestrator", "growth a minute")),
        ({"redis": 1_000}, ("Redis", "growth a minute")),
        ({"keys": 0.1}, ("Redis", "keys, at most")),
    ],
    ids=["gateway", "redis", "keys"],
)
def test_what_follows_the_number_of_jobs_misses_its_goal(growth, leaks, goal):
    assert missed(growth, samples_of(growth, **leaks)) == {goal}


def test_keys_that_stay_after_all_jobs_miss_their_goal(growth):
    assert missed(growth, samples_of(growth), rested_keys=500) == {("Redis", "keys after a rest")}


def test_a_slope_is_that_of_the_line_through_the_points(growth):
    assert growth.slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)
    assert growth.slope([0, 1, 2], [1, 0, 1]) == pytest.approx(0)
    with pytest.raises(ValueError, match="two points"):
        growth.slope([1, 1], [1, 2])
