import threading

from support.waiting import eventually
from tether.errors import StoreUnavailable
from tether.orchestrator.loop import Loop, until


class Counting:
    """A step that tells when it runs, and answers what it is told to."""

    name = "counting"

    def __init__(self, rest=60.0, error=None):
        self.ran = threading.Semaphore(0)
        self.rest, self.error = rest, error

    def __call__(self):
        self.ran.release()
        if self.error is not None:
            raise self.error
        return self.rest


def names():
    return [thread.name for thread in threading.enumerate()]


def test_a_loop_runs_its_step_until_it_is_stopped():
    step = Counting(rest=0)
    loop = Loop(step)
    loop.start()
    for _ in range(3):
        assert step.ran.acquire(timeout=5)
    loop.stop()
    assert "tether-counting" not in names()


def test_a_resting_loop_looks_when_it_is_woken():
    step = Counting(rest=60.0)
    loop = Loop(step)
    loop.start()
    assert step.ran.acquire(timeout=5)
    loop.wake()
    assert step.ran.acquire(timeout=5)
    loop.stop()


def test_a_loop_that_never_started_can_be_stopped():
    Loop(Counting()).stop()


def test_a_loop_survives_its_errors():
    for error in (StoreUnavailable("away"), RuntimeError("a bug")):
        step = Counting(error=error)
        loop = Loop(step)
        loop.start()
        for _ in range(2):
            assert step.ran.acquire(timeout=5)
        loop.stop()


def test_a_loop_without_its_lease_does_nothing_until_it_has_it():
    step = Counting()
    holds = threading.Event()
    asked = threading.Semaphore(0)

    def may_run():
        asked.release()
        return holds.is_set()

    loop = Loop(step, may_run=may_run, rest=0.01)
    loop.start()
    for _ in range(3):
        assert asked.acquire(timeout=5)
    assert not step.ran.acquire(blocking=False)
    holds.set()
    assert step.ran.acquire(timeout=5)
    loop.stop()


def test_loops_start_and_stop_at_any_time():
    for _ in range(50):
        loop = Loop(Counting(rest=0))
        loop.start()
        loop.stop()
    eventually(lambda: "tether-counting" not in names(), 5, "all loops have ended")


def test_a_loop_rests_until_the_next_is_due_and_never_longer_than_it_may():
    assert until(None, 1_000, 5.0) == 5.0
    assert until(1_250, 1_000, 5.0) == 0.25
    assert until(900, 1_000, 5.0) == 0.0
    assert until(60_000, 1_000, 5.0) == 5.0
