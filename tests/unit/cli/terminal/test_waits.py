"""What is told of a response that is slow to come."""

import threading

from support.waiting import PATIENCE_SECONDS
from tether.client.http.patience import Pace, Patience
from tether.client.http.responses import Failure
from tether.errors import GatewayUnavailable
from tether_cli.terminal.output import Notes
from tether_cli.terminal.waits import NO_ANSWER, telling_of_waits


class Heard(Notes):
    def __init__(self):
        self.texts = []
        self._new = threading.Condition()

    def warning(self, text):
        with self._new:
            self.texts.append(text.removesuffix(": still trying (Ctrl-C stops)"))
            self._new.notify_all()

    def wait_for(self, *texts):
        with self._new:
            assert self._new.wait_for(lambda: self.texts == list(texts), PATIENCE_SECONDS), self.texts


def waiting_threads():
    return [thread for thread in threading.enumerate() if thread.name == "tether-cli-wait"]


def fail(why, status=None):
    """A call of a client fails, and is tried again."""
    assert Patience(Pace(), lambda seconds: None).wait(Failure(GatewayUnavailable(why), True, status))


def test_a_wait_is_told_and_its_thread_ends():
    notes = Heard()
    with telling_of_waits(notes, after=0):
        notes.wait_for(NO_ANSWER)
    assert waiting_threads() == []


def test_an_answer_in_time_is_no_wait():
    notes = Heard()
    with telling_of_waits(notes, after=600):
        assert len(waiting_threads()) == 1
    assert notes.texts == []
    assert waiting_threads() == []


def test_what_a_gateway_answered_is_told_and_each_other_reason_once():
    notes = Heard()
    with telling_of_waits(notes, after=0):
        notes.wait_for(NO_ANSWER)
        for _ in range(3):
            fail("the disk is full", 503)
            fail("refused")
        notes.wait_for(NO_ANSWER, "the disk is full")
        fail("it is shutting down", 503)
        notes.wait_for(NO_ANSWER, "the disk is full", "it is shutting down")


def test_a_gateway_that_has_not_answered_is_asked_why():
    notes = Heard()
    with telling_of_waits(notes, after=0, ask=lambda: "Redis hangs"):
        notes.wait_for("Redis hangs")
