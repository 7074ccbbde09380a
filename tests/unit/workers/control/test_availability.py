"""Whether a worker takes jobs: from each state to each other."""

import itertools
import threading

import pytest

from support.drawn_jobs import drawn_job
from support.fake_port import FakePort
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools.slots import Slots
from tether_workers.attempts.attempt import AttemptEnding
from tether_workers.attempts.hand_over import HandOver
from tether_workers.attempts.running import Attempts
from tether_workers.control.availability import Availability, AvailabilityState

VERBS = {
    "cordon": AvailabilityState.CORDONED,
    "drain": AvailabilityState.DRAINING,
    "uncordon": AvailabilityState.SERVING,
    "stop": AvailabilityState.STOPPING,
}


class Worker:
    """The parts of a worker that its availability has to do with."""

    def __init__(self, drain_time=PATIENCE_SECONDS):
        self.port = FakePort()
        self.attempts = Attempts(clock=lambda: 0.0, on_unwritten=lambda attempt: None)
        self.slots = Slots(4)
        self.now = 0.0
        self.hand_over = HandOver(self.port, self.attempts, drain_time=drain_time, clock=lambda: self.now)
        self.told = []
        self.availability = Availability(
            self.slots, self.hand_over, lambda: self.told.append(self.availability.state)
        )

    def draw(self, number):
        drawn = self.port.hold(drawn_job(number))
        self.attempts.began(drawn)
        return self.attempts.find(drawn.fence.draw_id)

    def run(self, number):
        attempt = self.draw(number)
        assert attempt.begin()
        return attempt

    def end(self, attempt):
        self.attempts.forget(attempt.drawn.fence.draw_id)


def is_handing_over():
    return any(thread.name == "tether-drain" for thread in threading.enumerate())


@pytest.fixture
def make():
    made = []

    def make(**options):
        made.append(Worker(**options))
        return made[-1]

    yield make
    for worker in made:
        for attempt in worker.attempts.all():
            worker.end(attempt)
        worker.hand_over.join()


@pytest.mark.parametrize(("first", "second"), list(itertools.product(VERBS, repeat=2)))
def test_each_state_leads_to_each_other_but_from_a_stop(make, first, second):
    worker = make()
    getattr(worker.availability, first)()
    getattr(worker.availability, second)()
    expected = VERBS["stop" if first == "stop" else second]
    assert worker.availability.state is expected
    assert worker.slots.is_at_rest == (expected is not AvailabilityState.SERVING)
    assert worker.slots.is_stopped == (expected is AvailabilityState.STOPPING)
    # Whoever asked for what is already so learns of it too.
    assert worker.told == [VERBS[first], expected]


def test_a_cordoned_worker_goes_on_with_what_runs_and_gives_the_rest_back(make):
    worker = make(drain_time=0.0)
    running, unbegun = worker.run(1), worker.draw(2)
    worker.availability.cordon()
    eventually(lambda: worker.attempts.all() == (running,), PATIENCE_SECONDS, "the rest is given back")
    assert not unbegun.begin()
    assert worker.port.streams["job-2"].state == "placed"
    assert running.ending is None


def test_a_draining_worker_hands_over_what_does_not_end_in_time(make):
    worker = make(drain_time=0.0)
    running = worker.run(1)
    worker.availability.drain()
    eventually(lambda: running.ending is AttemptEnding.RELEASE, PATIENCE_SECONDS, "it is told to release")


def test_a_cordoned_worker_can_be_drained(make):
    worker = make(drain_time=0.0)
    running = worker.run(1)
    worker.availability.cordon()
    worker.availability.drain()
    eventually(lambda: running.ending is AttemptEnding.RELEASE, PATIENCE_SECONDS, "it is told to release")


def test_what_was_to_be_handed_over_goes_on_where_the_drain_becomes_a_cordon(make):
    worker = make()
    running = worker.run(1)
    worker.availability.drain()
    worker.availability.cordon()
    worker.now = PATIENCE_SECONDS * 2
    # Two, one after the other: the second is handed over in a round that saw the later time.
    for number in (2, 3):
        worker.draw(number)
        eventually(lambda: worker.attempts.all() == (running,), PATIENCE_SECONDS, "it is handed over")
    assert running.ending is None
    assert worker.slots.is_at_rest


def test_what_was_to_be_handed_over_goes_on_where_the_worker_serves_again(make):
    worker = make()
    running = worker.run(1)
    worker.availability.drain()
    worker.availability.uncordon()
    eventually(lambda: not is_handing_over(), PATIENCE_SECONDS, "nothing is handed over any more")
    assert worker.attempts.all() == (running,)
    assert running.ending is None
    assert not worker.slots.is_at_rest


def test_a_worker_that_serves_again_is_drained_again(make):
    worker = make(drain_time=0.0)
    worker.availability.drain()
    worker.availability.uncordon()
    worker.hand_over.join()
    running = worker.run(1)
    assert running.ending is None
    worker.availability.drain()
    eventually(lambda: running.ending is AttemptEnding.RELEASE, PATIENCE_SECONDS, "it is told to release")


@pytest.mark.parametrize("verb", ["cordon", "drain", "uncordon"])
def test_a_stop_hands_over_from_each_state(make, verb):
    worker = make(drain_time=0.0)
    running = worker.run(1)
    getattr(worker.availability, verb)()
    worker.availability.stop()
    eventually(lambda: running.ending is AttemptEnding.RELEASE, PATIENCE_SECONDS, "it is told to release")
