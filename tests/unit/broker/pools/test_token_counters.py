"""The model of the Virtual Token Counter keeps the bound that its paper proves (Theorem 4.4)."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.token_counters import INPUT_PRICE, OUTPUT_PRICE, TokenCounters, WaitingJob

TENANTS = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 1.0}
MAX_INPUT, MAX_OUTPUT = 50, 80


class Station:
    """A pool with so many slots, whose running jobs make a token each in every step."""

    def __init__(self, counters, slots):
        self.counters, self.slots, self.running = counters, slots, []

    def step(self, source):
        while len(self.running) < self.slots and (job := self.counters.draw()) is not None:
            self.running.append([job, source.randint(1, MAX_OUTPUT)])
        for each in self.running:
            self.counters.make(each[0], 1)
            each[1] -= 1
        self.running = [each for each in self.running if each[1] > 0]


def widest_gap(counters, source, steps, slots):
    """The greatest difference of what two tenants got while both had work all the time."""
    station, numbers = Station(counters, slots), itertools.count()
    ranges, widest = {}, 0.0
    rates = {tenant: source.choice((0.001, 0.01, 0.05)) for tenant in TENANTS}
    for _ in range(steps):
        for tenant, weight in TENANTS.items():
            for _ in range(source.randint(1, 30) if source.random() < rates[tenant] else 0):
                cost = source.randint(1, MAX_INPUT)
                counters.place(WaitingJob(f"job-{next(numbers)}", tenant, cost, weight))
        for pair in itertools.combinations(sorted(TENANTS), 2):
            if not counters.waiting.keys() >= set(pair):
                ranges.pop(pair, None)
                continue
            gap = counters.served[pair[0]] - counters.served[pair[1]]
            least, most = ranges.get(pair, (gap, gap))
            least, most = ranges[pair] = (min(least, gap), max(most, gap))
            widest = max(widest, most - least)
        station.step(source)
    return widest


def bound(slots):
    """Twice what one tenant can have in all slots: of weight 1, since that is the least."""
    return 2 * slots * (INPUT_PRICE * MAX_INPUT + OUTPUT_PRICE * MAX_OUTPUT)


@given(st.integers(0, 2**32), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_no_two_tenants_with_work_drift_apart(seed, slots):
    assert widest_gap(TokenCounters(), random.Random(seed), 3_000, slots) <= bound(slots)


class NoLift(TokenCounters):
    def _lift(self, tenant):
        self.counters.setdefault(tenant, 0.0)


class NoWeights(TokenCounters):
    def _charge(self, job, tokens):
        self.counters[job.tenant] += tokens
        self.served[job.tenant] += tokens / job.weight


class InOrder(TokenCounters):
    def _charge(self, job, tokens):
        self.served[job.tenant] += tokens / job.weight


@pytest.mark.mutants
@pytest.mark.parametrize("kind", [NoLift, NoWeights, InOrder])
def test_without_a_part_of_it_they_do(kind):
    gaps = [widest_gap(kind(), random.Random(seed), 20_000, 1) for seed in range(5)]
    assert max(gaps) > bound(1)
