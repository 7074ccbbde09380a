"""What a worker's stop leaves to the hand-over of its jobs."""

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from support.drawn_jobs import drawn_job
from support.fake_port import FakePort
from support.waiting import PATIENCE_SECONDS
from tether.processes.stopping import HAND_OVER_SECONDS, WIND_UP_SECONDS, StopDeadline
from tether_workers.attempts.hand_over import HandOver
from tether_workers.attempts.running import Attempts
from tether_workers.stopping import StoppableWorker


class Draining(dramatiq.Middleware):
    """Hands over as a pool worker does, beside a port that is away until the threads have ended."""

    def __init__(self, deadline, jobs):
        self.deadline, self.port = deadline, FakePort()
        self.attempts = Attempts(clock=lambda: 0.0, on_unwritten=lambda _: None)
        self.hand_over = HandOver(
            self.port, self.attempts, drain_time=PATIENCE_SECONDS, deadline=deadline, clock=lambda: 0.0
        )
        self.left = None
        for number in range(jobs):
            self.attempts.began(self.port.hold(drawn_job(number)))
        self.port.is_away.set()

    def before_worker_shutdown(self, broker, worker):
        worker.has_jobs = lambda: bool(self.attempts.all())
        self.hand_over.start()

    def after_worker_shutdown(self, broker, worker):
        self.left = self.deadline.remaining(but=WIND_UP_SECONDS)
        self.port.is_away.clear()
        self.hand_over.join()


@pytest.mark.parametrize(("jobs", "left"), [(2, HAND_OVER_SECONDS), (0, 0.0)])
def test_jobs_that_no_thread_began_have_their_time_after_the_threads(jobs, left):
    broker = StubBroker()
    deadline = StopDeadline(lambda: 0.0)
    draining = Draining(deadline, jobs)
    broker.add_middleware(draining)
    worker = StoppableWorker(broker, queues=None, worker_threads=1, deadline=deadline)
    worker.start()
    worker.stop()
    assert draining.left == left
    assert [stream.state for stream in draining.port.streams.values()] == ["placed"] * jobs
