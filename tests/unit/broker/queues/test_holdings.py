import copy
import pickle

import pytest
from dramatiq import Message
from dramatiq.broker import MessageProxy

from tether.broker.queues.holdings import HeldMessage, Holding, HoldingPhase, Holdings, Successor, holding_of

FOLLOWER = Successor("jobs", "2", b"{}")


def test_what_follows_a_message_is_left_to_its_answer():
    holding = Holding("1", "jobs")
    assert holding.follow(FOLLOWER)
    assert holding.answer() == (FOLLOWER,)


def test_the_answer_has_the_same_followers_each_time_it_is_given():
    holding = Holding("1", "jobs")
    holding.follow(FOLLOWER)
    assert holding.answer() == holding.answer() == (FOLLOWER,)


def test_nothing_follows_a_message_that_was_answered_for():
    holding = Holding("1", "jobs")
    holding.answer()
    assert not holding.follow(FOLLOWER)
    assert holding.answer() == ()


def test_what_an_actor_sends_while_it_runs_does_not_wait_for_its_message():
    holding = Holding("1", "jobs")
    assert holding.begin()
    assert not holding.follow(FOLLOWER)
    holding.end()
    assert holding.follow(FOLLOWER)


def test_a_lost_message_cannot_begin_and_stays_lost():
    holding = Holding("1", "jobs")
    holding.lose()
    assert not holding.begin()
    holding.end()
    assert holding.phase is HoldingPhase.LOST


def test_a_message_its_copies_and_its_proxy_stand_for_one_delivery():
    holding = Holding("1", "jobs")
    message = HeldMessage("jobs", "work", (), {}, {}).bind(holding)
    copy = message.copy(queue_name="jobs.DQ", options={"eta": 1})
    assert holding_of(message) is holding_of(copy) is holding_of(MessageProxy(copy)) is holding
    assert set(copy.asdict()) == set(Message("jobs", "work", (), {}, {}).asdict())


@pytest.mark.parametrize("other", [None, "text", Message("jobs", "work", (), {}, {})])
def test_what_is_no_held_message_stands_for_none(other):
    assert holding_of(other) is None


def test_dropping_a_delivery_leaves_a_later_one_of_the_same_message():
    holdings = Holdings("broker")
    first, second = Holding("1", "jobs"), Holding("1", "jobs")
    holdings.add([first])
    holdings.add([second])
    holdings.drop([first])
    assert holdings.ids("jobs") == ["1"]
    holdings.drop([second])
    assert holdings.ids("jobs") == []


def test_what_is_added_to_lost_holdings_is_lost():
    holdings = Holdings("broker")
    before, after = Holding("1", "jobs"), Holding("2", "jobs")
    holdings.add([before])
    assert holdings.lose_all() == 1
    holdings.add([after])
    assert before.phase is after.phase is HoldingPhase.LOST
    assert holdings.ids("jobs") == []


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda message: pickle.loads(pickle.dumps(message))])
def test_a_held_message_that_is_cloned_is_the_message_and_stands_for_no_delivery(clone):
    message = HeldMessage("jobs", "work", (1,), {"a": 2}, {"b": 3}).bind(Holding("1", "jobs"))
    cloned = clone(message)
    assert type(cloned) is Message
    assert cloned.asdict() == message.asdict()
    assert holding_of(cloned) is None


def test_only_what_waits_to_come_due_is_forgotten_with_its_queue():
    holdings = Holdings("broker")
    due, delayed, elsewhere = Holding("1", "jobs"), Holding("2", "jobs"), Holding("3", "other")
    delayed.is_delayed = elsewhere.is_delayed = True
    holdings.add([due, delayed, elsewhere])
    holdings.drop_delayed("jobs")
    assert (holdings.ids("jobs"), holdings.ids("other")) == (["1"], ["3"])
