"""A worker is lost in mid-stream: another goes on, and the reader sees every token once."""

import contextlib
import json
import signal

import psutil
import pytest

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.stream_reader import StreamReader
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import children_but_fork_server

PROMPT = "one two three"
RATE, TOKENS = 10, 100
CONFIG = """
[jobs]
lease = 1000
[worker]
drain_timeout = 200
"""
PRESENCE = "interval = 500\nexpiry = 2000\n"


class Show:
    """A job that runs on one of two workers, and a reader that has seen its first tokens."""

    def __init__(self, stack):
        self.cluster = stack.enter_context(
            Cluster(models={"counter": (RATE, TOKENS)}, config=CONFIG, presence=PRESENCE)
        )
        self.accounts = stack.enter_context(Accounts(self.cluster))
        self.cluster.start_orchestrator()
        # Both are ready before the job starts: it is to run still when its worker is lost.
        workers = [self.cluster.start_worker(), self.cluster.start_worker()]
        handle = self.cluster.client().submit("counter", PROMPT)
        self.job_id = handle.job_id
        self.reader = StreamReader(handle)
        self.reader.wait_for_tokens(5)
        self.worker = self.in_redis("worker")
        [self.its_worker] = [one for one in workers if any(self.worker in line for line in one.lines)]

    def in_redis(self, field):
        return self.accounts.one_in_redis(self.job_id, field)

    def deaths(self):
        return int(self.in_redis("deaths"))

    def evidence(self):
        return json.loads(self.in_redis("evidence"))

    def wait_for_another_worker(self):
        eventually(
            lambda: self.in_redis("state") == "running" and self.in_redis("worker") != self.worker,
            PATIENCE_SECONDS,
            "another worker goes on",
        )

    def assert_whole(self):
        """The reader got what an undisturbed worker would have made, and the job ran to its end once."""
        self.reader.join()
        assert self.reader.texts == expected_texts(PROMPT, TOKENS)
        assert self.reader.kinds == ["started", "rerouted", "started", "finished"]
        self.accounts.wait_until_all_ended(1)
        self.accounts.assert_succeeded_once({self.job_id: expected_texts(PROMPT, TOKENS)})
        # The other worker went on in the middle: it made nothing again.
        first, second = (event.offset for event in self.reader.events if event.kind == "started")
        assert first == 0
        assert 5 <= second < TOKENS
        assert self.in_redis("attempt") == "2"


@pytest.fixture
def show():
    with contextlib.ExitStack() as stack:
        yield Show(stack)


def test_a_job_goes_on_where_it_stands_when_its_process_is_killed_and_its_supervisor_says_so(show):
    for process in children_but_fork_server(show.its_worker.pid):
        process.kill()
    show.reader.wait_for_event("rerouted")
    show.wait_for_another_worker()
    (death,) = show.evidence()
    assert (death["boot"], death["how"], death["beside"]) == (show.worker, "signal 9", 0)
    assert show.deaths() == 1
    show.assert_whole()


def vanish(worker):
    """A supervisor and its processes end at once, so that nobody is left to say so."""
    supervisor = psutil.Process(worker.pid)
    supervisor.suspend()
    for process in (*supervisor.children(), supervisor):
        process.kill()


def test_a_machine_that_vanishes_with_all_on_it_is_nobody_s_fault(show):
    vanish(show.its_worker)
    show.reader.wait_for_event("rerouted")
    show.wait_for_another_worker()
    show.assert_whole()
    assert (show.deaths(), show.in_redis("evidence")) == (0, None)


def test_who_is_started_again_on_the_same_machine_tells_the_end_of_its_former_process(show):
    vanish(show.its_worker)
    show.cluster.start_worker()
    show.reader.wait_for_event("rerouted")
    eventually(lambda: show.deaths() == 1, PATIENCE_SECONDS, "the next process has said what it knows")
    assert [(death["boot"], death["how"]) for death in show.evidence()] == [(show.worker, "unknown")]
    show.assert_whole()


def test_a_job_is_handed_over_when_its_worker_is_stopped_in_order(show):
    assert show.its_worker.stop() == 0
    show.wait_for_another_worker()
    assert show.deaths() == 0
    show.assert_whole()


def test_a_worker_that_was_stopped_for_longer_than_its_lease_is_fenced_and_its_loss_is_no_death(show):
    for process in psutil.Process(show.its_worker.pid).children(recursive=True):
        process.send_signal(signal.SIGSTOP)
    show.reader.wait_for_event("rerouted")
    show.wait_for_another_worker()
    for process in psutil.Process(show.its_worker.pid).children(recursive=True):
        process.send_signal(signal.SIGCONT)
    assert show.deaths() == 0
    assert show.in_redis("state") == "running", "the other worker was to be running still"
    show.assert_whole()
