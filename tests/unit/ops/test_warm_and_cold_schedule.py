"""The schedule that the benchmark holds Tether's against."""

import importlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.paths import ROOT


@pytest.fixture(scope="module")
def schedule():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "ops" / "bench"))
        yield importlib.import_module("warm_and_cold_schedule")


def test_the_benchmarks_own(schedule):
    workers = [schedule.ReadyWorker(4, 0.0), schedule.ReadyWorker(4, 5.0)]
    assert schedule.best_schedule(40, 2.0, workers) == (13.0, [24, 16])
    assert schedule.best_schedule(4, 2.0, workers) == (2.0, [4, 0])
    assert schedule.best_schedule(0, 2.0, []) == (0.0, [])


@settings(deadline=None, max_examples=60)
@given(
    jobs=st.integers(1, 6),
    workers=st.lists(st.tuples(st.integers(1, 2), st.integers(0, 5)), min_size=1, max_size=3),
)
def test_no_other_schedule_ends_sooner(schedule, jobs, workers):
    told = [schedule.ReadyWorker(slots, float(ready)) for slots, ready in workers]
    last, counts = schedule.best_schedule(jobs, 2.0, told)
    assert sum(counts) == jobs

    def end(shares):
        # The jobs of a worker take turns in its slots.
        return max(
            ready + 2.0 * -(-share // slots)
            for share, (slots, ready) in zip(shares, workers, strict=True)
            if share
        )

    shares = itertools.product(range(jobs + 1), repeat=len(workers))
    assert last == min(end(each) for each in shares if sum(each) == jobs)
    assert end(counts) == last


@pytest.mark.parametrize("case", [(1, 1.0, []), (1, 0.0, None)])
def test_what_cannot_end_is_refused(schedule, case):
    jobs, seconds, workers = case
    with pytest.raises(ValueError, match="need slots"):
        schedule.best_schedule(jobs, seconds, [schedule.ReadyWorker(1, 0.0)] if workers is None else workers)
