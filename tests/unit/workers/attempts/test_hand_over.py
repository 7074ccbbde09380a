"""What a draining worker hands over, through outages, and what it gives up in the end."""

import threading

import pytest
import redis

from support.drawn_jobs import drawn_job
from support.waiting import PATIENCE_SECONDS, eventually
from tether.jobs import Piece
from tether.processes.stopping import StopDeadline
from tether_workers.attempts.attempt import AttemptEnding
from tether_workers.attempts.hand_over import HandOver


@pytest.fixture
def draw(port, attempts):
    def draw(number):
        drawn = port.hold(drawn_job(number))
        attempts.began(drawn)
        return attempts.find(drawn.fence.draw_id)

    return draw


def states(port):
    return [stream.state for stream in port.streams.values()]


def test_what_nobody_has_begun_is_handed_over_at_once(port, attempts, draw):
    unbegun, running = draw(1), draw(2)
    assert running.begin()
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS)
    hand_over.start()
    eventually(lambda: attempts.all() == (running,), PATIENCE_SECONDS, "the other one is handed over")
    assert states(port) == ["placed", "running"]
    assert not unbegun.begin()
    attempts.forget(running.drawn.fence.draw_id)
    hand_over.join()


def test_an_outage_is_waited_out_and_all_are_handed_over(port, attempts, draw):
    for number in range(3):
        draw(number)
    port.is_away.set()
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS)
    hand_over.start()
    for _ in range(2):
        assert port.tried.acquire(timeout=PATIENCE_SECONDS)
    assert len(attempts.all()) == 3
    port.is_away.clear()
    hand_over.join()
    assert states(port) == ["placed"] * 3
    assert attempts.all() == ()


def test_what_is_left_unbegun_later_is_handed_over_too(port, attempts, draw):
    running = draw(1)
    assert running.begin()
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS)
    hand_over.start()
    draw(2)
    eventually(lambda: attempts.all() == (running,), PATIENCE_SECONDS, "the late one is handed over")
    attempts.forget(running.drawn.fence.draw_id)
    hand_over.join()


def test_a_job_that_is_refused_does_not_hold_up_the_others(port, attempts, draw, monkeypatch):
    draw(1)
    draw(2)
    release = port.release

    def refuse(growth):
        if growth.job_id == "job-1":
            raise redis.ResponseError("wrong type")
        return release(growth)

    monkeypatch.setattr(port, "release", refuse)
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS)
    hand_over.start()
    hand_over.join()
    assert states(port) == ["running", "placed"]


def test_what_is_void_is_forgotten(port, attempts, draw):
    draw(1)
    port.epoch = 2
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS)
    hand_over.start()
    hand_over.join()
    assert attempts.all() == ()


def test_what_an_engine_does_not_end_is_handed_over_without_it_and_its_slot_writes_nothing_more(
    port, attempts, draw
):
    running = draw(1)
    assert running.begin()
    running.push([Piece(7, "seven")])
    hand_over = HandOver(port, attempts, drain_time=0.01, hand_over_time=PATIENCE_SECONDS)
    hand_over.start()
    hand_over.join(PATIENCE_SECONDS)
    assert (states(port), attempts.all()) == (["placed"], ())
    assert port.streams["job-1"].texts() == ["seven"]
    running.push([Piece(8, "eight")])
    assert (running.take(), running.close()) == (None, False)


def test_of_an_engine_that_hangs_behind_its_last_tokens_these_are_not_handed_over(port, attempts, draw):
    running = draw(1)
    assert running.begin()
    running.push([Piece(7, "seven")])
    running.push([Piece(8, "cut")], is_last=True)
    hand_over = HandOver(port, attempts, drain_time=0.01, hand_over_time=PATIENCE_SECONDS)
    hand_over.start()
    hand_over.join(PATIENCE_SECONDS)
    assert states(port) == ["placed"]
    assert port.streams["job-1"].texts() == ["seven"]


def test_what_was_taken_from_a_slot_is_handed_over_though_the_slot_ends_during_an_outage(
    port, attempts, draw
):
    running = draw(1)
    assert running.begin()
    port.is_away.set()
    hand_over = HandOver(port, attempts, drain_time=0.01, hand_over_time=PATIENCE_SECONDS)
    hand_over.start()
    eventually(lambda: running.ending is AttemptEnding.DROP, PATIENCE_SECONDS, "it is taken")
    attempts.forget(running.drawn.fence.draw_id)
    port.is_away.clear()
    hand_over.join(PATIENCE_SECONDS)
    assert states(port) == ["placed"]


def test_hurried_it_hands_over_what_runs_at_once(port, attempts, draw):
    running = draw(1)
    assert running.begin()
    deadline = StopDeadline()
    hand_over = HandOver(port, attempts, drain_time=10 * PATIENCE_SECONDS, deadline=deadline)
    deadline.begin(10 * PATIENCE_SECONDS)
    hand_over.start()
    deadline.hurry(PATIENCE_SECONDS)
    eventually(lambda: running.ending is not None, PATIENCE_SECONDS, "it is told to release")
    hand_over.join(PATIENCE_SECONDS)
    assert states(port) == ["placed"]


def test_when_time_is_up_what_runs_is_told_to_release_and_then_dropped(port, attempts, draw):
    unbegun, running = draw(1), draw(2)
    assert running.begin()
    port.is_away.set()
    hand_over = HandOver(port, attempts, drain_time=0.05, hand_over_time=0.3)
    hand_over.start()
    eventually(lambda: running.ending is AttemptEnding.RELEASE, PATIENCE_SECONDS, "it is told to release")
    hand_over.join()
    assert running.ending is unbegun.ending is AttemptEnding.DROP
    assert attempts.all() == (running,)


def test_it_can_be_called_off_and_used_again(port, attempts, draw):
    running = draw(1)
    assert running.begin()
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS)
    hand_over.start()
    hand_over.call_off()
    hand_over.join()
    late = draw(2)
    assert late.begin()
    assert running.ending is late.ending is None
    assert set(attempts.all()) == {running, late}
    unbegun = draw(3)
    hand_over.start()
    eventually(lambda: unbegun not in attempts.all(), PATIENCE_SECONDS, "what nobody began is handed over")
    for attempt in (running, late):
        attempts.forget(attempt.drawn.fence.draw_id)
    hand_over.join()
    assert port.streams["job-3"].state == "placed"


def test_a_second_start_changes_nothing_while_it_is_under_way(port, attempts, draw):
    running = draw(1)
    assert running.begin()
    hand_over = HandOver(port, attempts, drain_time=0.2, hand_over_time=PATIENCE_SECONDS)
    for _ in range(3):
        hand_over.start()
        assert sum(thread.name == "tether-drain" for thread in threading.enumerate()) == 1
    eventually(lambda: running.ending is AttemptEnding.RELEASE, PATIENCE_SECONDS, "it is told to release")
    attempts.forget(running.drawn.fence.draw_id)
    hand_over.join()


def test_what_it_began_is_handed_over_though_it_is_called_off(port, attempts, draw):
    unbegun, running = draw(1), draw(2)
    assert running.begin()
    port.is_away.set()
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS)
    hand_over.start()
    assert port.tried.acquire(timeout=PATIENCE_SECONDS)
    assert not unbegun.begin()
    hand_over.call_off()
    port.is_away.clear()
    hand_over.join()
    assert states(port) == ["placed", "running"]
    assert attempts.all() == (running,)
    assert running.ending is None


def test_what_cannot_be_handed_over_after_it_was_called_off_is_dropped(port, attempts, draw):
    unbegun = draw(1)
    port.is_away.set()
    hand_over = HandOver(port, attempts, drain_time=PATIENCE_SECONDS, hand_over_time=0.2)
    hand_over.start()
    assert port.tried.acquire(timeout=PATIENCE_SECONDS)
    hand_over.call_off()
    hand_over.join()
    assert unbegun.ending is AttemptEnding.DROP
    assert attempts.all() == ()


def test_what_runs_may_go_on_until_a_start_that_ends_it(port, attempts, draw):
    unbegun, running = draw(1), draw(2)
    assert running.begin()
    hand_over = HandOver(port, attempts, drain_time=0.0, hand_over_time=PATIENCE_SECONDS)
    hand_over.start(ends_running=False)
    eventually(lambda: attempts.all() == (running,), PATIENCE_SECONDS, "the other one is handed over")
    assert not unbegun.begin()
    assert running.ending is None
    hand_over.start()
    eventually(lambda: running.ending is AttemptEnding.RELEASE, PATIENCE_SECONDS, "it is told to release")
    attempts.forget(running.drawn.fence.draw_id)
    hand_over.join()
