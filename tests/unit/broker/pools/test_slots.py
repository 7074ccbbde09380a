"""Slots: what is drawn never exceeds them."""

import threading

import pytest

from support.drawn_jobs import drawn_job
from support.waiting import join
from tether.broker.pools.slots import Slots


def test_filled_slots_are_not_free_and_cleared_ones_are():
    slots = Slots(2)
    assert slots.free == 2
    assert slots.fill([drawn_job(1), drawn_job(2)])
    assert (slots.free, slots.outstanding) == (0, 2)
    slots.clear("boot:1")
    slots.clear("boot:1")
    assert (slots.free, slots.outstanding) == (1, 1)


def test_beside_a_job_that_runs_alone_no_slot_is_free():
    slots = Slots(4)
    slots.fill([drawn_job(1, alone=True)])
    assert slots.free == 0
    slots.clear("boot:1")
    assert slots.free == 4


def test_jobs_are_handed_out_once_and_in_order():
    slots = Slots(4)
    slots.fill([drawn_job(1), drawn_job(2)])
    assert [slots.hand_out().job_id, slots.hand_out().job_id] == ["job-1", "job-2"]
    assert slots.hand_out() is None


def test_once_stopped_nothing_is_free_filled_or_handed_out():
    slots = Slots(4)
    slots.fill([drawn_job(1)])
    slots.stop_drawing()
    assert slots.free == 0
    assert not slots.fill([drawn_job(2)])
    assert slots.hand_out() is None
    assert [drawn.job_id for drawn in slots.take_back()] == ["job-1"]
    assert slots.outstanding == 0


@pytest.mark.parametrize("what", ["clear", "stop"])
def test_who_waits_for_a_free_slot_is_told_of_one_and_of_the_end(what):
    slots = Slots(1)
    slots.fill([drawn_job(1)])
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(slots.wait_for_free(30)))
    waiting.start()
    if what == "clear":
        slots.clear("boot:1")
    else:
        slots.stop_drawing()
    join(waiting)
    assert answers == [what == "clear"]


def test_nobody_waits_longer_than_asked():
    slots = Slots(1)
    slots.fill([drawn_job(1)])
    assert not slots.wait_for_free(0.001)
    assert not slots.wait_for_rest(0.001)


def test_while_paused_nothing_is_free_filled_or_handed_out_and_then_all_is_again():
    slots = Slots(4)
    slots.fill([drawn_job(1)])
    slots.pause()
    assert slots.is_at_rest
    assert not slots.is_stopped
    assert slots.free == 0
    assert not slots.fill([drawn_job(2)])
    assert slots.hand_out() is None
    slots.resume()
    assert not slots.is_at_rest
    assert slots.free == 3
    assert slots.hand_out().job_id == "job-1"
    assert slots.fill([drawn_job(2)])


def test_once_stopped_nothing_resumes():
    slots = Slots(1)
    slots.pause()
    slots.stop_drawing()
    slots.resume()
    assert slots.is_at_rest
    assert slots.free == 0


def test_who_waits_for_a_free_slot_is_told_of_a_pause():
    slots = Slots(1)
    slots.fill([drawn_job(1)])
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(slots.wait_for_free(30)))
    waiting.start()
    slots.pause()
    join(waiting)
    assert answers == [False]
    assert slots.wait_for_rest(0)


@pytest.mark.parametrize("what", ["resume", "stop"])
def test_who_waits_while_paused_is_told_of_the_end_of_it(what):
    slots = Slots(1)
    slots.pause()
    assert not slots.wait_while_paused(0.001)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(slots.wait_while_paused(30)))
    waiting.start()
    if what == "resume":
        slots.resume()
    else:
        slots.stop_drawing()
    join(waiting)
    assert answers == [what == "resume"]


def test_what_was_handed_out_before_a_pause_keeps_its_slot():
    slots = Slots(2)
    slots.fill([drawn_job(1), drawn_job(2)])
    begun = slots.hand_out()
    slots.pause()
    assert [drawn.job_id for drawn in slots.take_back()] == ["job-2"]
    assert slots.outstanding == 1
    assert slots.find(begun.fence.draw_id) is begun


def test_after_a_stop_nothing_is_drawn_again():
    slots = Slots(1)
    slots.pause()
    slots.stop_drawing()
    slots.resume()
    assert slots.is_at_rest
    assert slots.is_stopped
    assert slots.free == 0
    assert not slots.fill([drawn_job(1)])


@pytest.mark.parametrize("what", ["resume", "stop_drawing"])
def test_who_waits_while_paused_is_told_of_what_ends_it(what):
    slots = Slots(1)
    slots.pause()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(slots.wait_while_paused(30)))
    waiting.start()
    getattr(slots, what)()
    join(waiting)
    assert answers == [what == "resume"]


@pytest.mark.parametrize("wait", ["wait_for_free", "wait_for_rest"])
def test_a_pause_wakes_who_waits(wait):
    slots = Slots(1)
    slots.fill([drawn_job(1)])
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(getattr(slots, wait)(30)))
    waiting.start()
    slots.pause()
    join(waiting)
    assert answers == [wait == "wait_for_rest"]


def test_nobody_waits_longer_than_asked_while_paused():
    slots = Slots(1)
    slots.pause()
    assert not slots.wait_while_paused(0.001)


def test_beside_a_job_that_has_shown_that_it_does_no_harm_slots_are_free_again():
    now = [0.0]
    slots = Slots(4, clock=lambda: now[0])
    slots.fill([drawn_job(1, alone=True, proof=2_000), drawn_job(2, alone=True, proof=5_000)])
    now[0] = 4.9
    assert slots.free == 0
    now[0] = 5.0
    assert slots.free == 2
