"""Charges of threads that ask at the same time."""

import threading

import pytest

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.broker.rate_buckets import BucketChange, ChargedGroup, ChargeGroup
from tether.rate_limits import RateLimits, TakenUnits
from tether.scheduling.shared_charges import SharedCharges


class Interrupted(BaseException):
    """What ends a thread from outside."""


class Buckets:
    """Answers once it is let; keeps what it was asked together."""

    def __init__(self):
        self.calls = []
        self.may_answer = threading.Semaphore(0)
        self.results = []

    def __call__(self, groups):
        self.calls.append([group.tenant for group in groups])
        assert self.may_answer.acquire(timeout=PATIENCE_SECONDS)
        result = self.results.pop(0) if self.results else "charged"
        if isinstance(result, BaseException):
            raise result
        return result and [ChargedGroup(TakenUnits(int(group.tenant)), ()) for group in groups]


@pytest.fixture
def buckets():
    return Buckets()


@pytest.fixture
def shared(buckets):
    return SharedCharges(buckets)


def group(tenant):
    return ChargeGroup(BucketChange.TAKE, str(tenant), RateLimits(1), (1,))


class Asking:
    """Threads that ask, one after the other, and what they got."""

    def __init__(self, shared):
        self.shared = shared
        self.got = {}
        self.threads = []

    def ask(self, *tenants, name="another"):
        def run():
            try:
                answer = self.shared.charge([group(tenant) for tenant in tenants])
                self.got[tenants] = answer and [one.taken.requests for one in answer]
            except Interrupted:
                self.got[tenants] = Interrupted

        thread = threading.Thread(target=run, name=name)
        self.threads.append(thread)
        thread.start()

    def wait(self):
        for thread in self.threads:
            join(thread)
        return self.got


@pytest.fixture
def asking(shared):
    return Asking(shared)


def one_asks_and_others_wait(asking, buckets, *others):
    asking.ask(1)
    eventually(lambda: buckets.calls, PATIENCE_SECONDS, "the first call")
    for number, tenants in enumerate(others, 1):
        asking.ask(*tenants)
        eventually(
            lambda number=number: len(asking.shared._waiting) == number,
            PATIENCE_SECONDS,
            "one more that waits",
        )


def test_who_came_while_another_asked_is_asked_for_with_all_of_these(asking, buckets):
    one_asks_and_others_wait(asking, buckets, (2, 3), (4,))
    buckets.may_answer.release(9)
    assert asking.wait() == {(1,): [1], (2, 3): [2, 3], (4,): [4]}
    assert buckets.calls == [["1"], ["2", "3", "4"]]


def test_all_that_were_asked_for_together_learn_that_nobody_answered(asking, buckets):
    one_asks_and_others_wait(asking, buckets, (2,), (3,))
    buckets.results = ["charged", None]
    buckets.may_answer.release(9)
    assert asking.wait() == {(1,): [1], (2,): None, (3,): None}


def test_a_thread_that_is_interrupted_while_it_asks_holds_up_nobody(asking, buckets, shared):
    one_asks_and_others_wait(asking, buckets, (2,), (3,))
    buckets.results = [Interrupted(), Interrupted(), "charged"]
    buckets.may_answer.release(9)
    got = asking.wait()
    # Of the two that were asked for together, the other one was not charged for sure.
    assert got[(1,)] is Interrupted
    assert sorted((got[(2,)] is None, got[(3,)] is None)) == [False, True]
    assert [one.taken.requests for one in shared.charge([group(4)])] == [4]


def test_a_thread_that_is_interrupted_while_it_is_next_lets_another_one_ask(asking, buckets, monkeypatch):
    one_asks_and_others_wait(asking, buckets)
    waiting = threading.Event.wait

    def interrupted(event, timeout=None):
        if threading.current_thread().name == "interrupted":
            # Its turn has come, and it does not get to take it.
            assert waiting(event, PATIENCE_SECONDS)
            raise Interrupted
        return waiting(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted)
    asking.ask(2, name="interrupted")
    eventually(lambda: len(asking.shared._waiting) == 1, PATIENCE_SECONDS, "one that waits")
    asking.ask(3)
    eventually(lambda: len(asking.shared._waiting) == 2, PATIENCE_SECONDS, "two that wait")
    buckets.may_answer.release(9)
    assert asking.wait() == {(1,): [1], (2,): Interrupted, (3,): [3]}
