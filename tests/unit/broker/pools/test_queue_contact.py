"""Whether a worker reaches its queue, by its calls."""

import pytest
import redis

from tether.broker.pools.queue_contact import LOST_AFTER_SECONDS, QueueContact
from tether.broker.redis.connections import RefusedForNow


class Contact(QueueContact):
    """With time by hand, and a note of each change that it told."""

    def __init__(self):
        self.now = 0.0
        self.told = []
        super().__init__(lambda: self.now)
        self.on_change(lambda: self.told.append(self.is_lost()))

    def fail(self, error=redis.ConnectionError):
        with pytest.raises(error), self.call():
            raise error


def test_contact_is_lost_when_calls_have_failed_for_a_while_and_an_answer_brings_it_back():
    contact = Contact()
    contact.fail()
    assert not contact.is_lost()
    contact.now = LOST_AFTER_SECONDS
    assert contact.is_lost()
    contact.fail(redis.TimeoutError)
    contact.fail()
    assert contact.told == [True]
    with contact.call():
        pass
    assert not contact.is_lost()
    assert contact.told == [True, False]
    contact.now += LOST_AFTER_SECONDS
    contact.fail()
    assert not contact.is_lost()


def test_a_refusal_and_an_error_of_a_script_are_answers():
    contact = Contact()
    contact.fail()
    contact.now = LOST_AFTER_SECONDS
    for error in (RefusedForNow, redis.ResponseError):
        contact.fail(error)
        assert not contact.is_lost()


def test_a_call_that_hangs_shows_when_it_is_asked():
    contact = Contact()
    with contact.call(wait_seconds=5.0):
        contact.now = 4.9 + LOST_AFTER_SECONDS
        assert not contact.is_lost()
        with contact.call():
            pass
        contact.now = 5.0 + LOST_AFTER_SECONDS
        assert contact.is_lost()
    assert not contact.is_lost()
    assert contact.told == []


def test_a_worker_that_calls_nothing_has_lost_nothing():
    contact = Contact()
    with contact.call():
        pass
    contact.now = 1_000.0
    assert not contact.is_lost()
