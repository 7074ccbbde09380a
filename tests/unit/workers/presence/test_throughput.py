import threading

import pytest

from support.drawn_jobs import drawn_job
from tether.jobs import Piece
from tether_workers.attempts.attempt import MAX_UNWRITTEN_TOKENS, AttemptEnding
from tether_workers.attempts.running import Attempts
from tether_workers.presence.throughput import MIN_SECONDS, WINDOW_SECONDS, DecodeThroughput

SLOTS = 4


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throughput(clock):
    return DecodeThroughput(clock)


def decode(throughput, clock, seconds, rates):
    """Decode jobs together, each at its rate."""
    for _ in rates:
        throughput.begin()
    clock.now += seconds
    for rate in rates:
        throughput.add(int(rate * seconds))
    for _ in rates:
        throughput.end()


def test_it_is_what_all_slots_can_do_and_not_what_was_asked_of_them(throughput, clock):
    assert throughput.tokens_per_second(SLOTS) == 0.0
    decode(throughput, clock, 2, [20])
    clock.now += 1_000
    assert throughput.tokens_per_second(SLOTS) == 20 * SLOTS


def test_what_most_busy_slots_did_counts_as_a_batch_slows_each_of_its_jobs(throughput, clock):
    decode(throughput, clock, 10, [80])
    decode(throughput, clock, 10, [25, 25, 25, 25])
    decode(throughput, clock, 10, [80])
    assert throughput.tokens_per_second(SLOTS) == pytest.approx(100)


def test_a_moment_says_nothing(throughput, clock):
    decode(throughput, clock, MIN_SECONDS / 2, [1_000])
    assert throughput.tokens_per_second(SLOTS) == 0.0
    decode(throughput, clock, 10, [20, 20])
    decode(throughput, clock, MIN_SECONDS / 2, [0, 0, 0, 0])
    assert throughput.tokens_per_second(SLOTS) == 20 * SLOTS


def test_an_engine_that_became_slower_is_believed_soon(throughput, clock):
    for rate, seconds in ((100, 100 * WINDOW_SECONDS), (10, 6 * WINDOW_SECONDS)):
        for _ in range(int(seconds)):
            decode(throughput, clock, 1, [rate])
    assert throughput.tokens_per_second(1) == pytest.approx(10, rel=0.2)


def test_what_was_measured_with_more_slots_busy_is_forgotten_in_time(throughput, clock):
    for rates, seconds in (([100] * 4, WINDOW_SECONDS), ([10], 10 * WINDOW_SECONDS)):
        for _ in range(int(seconds)):
            decode(throughput, clock, 1, rates)
    assert throughput.tokens_per_second(1) == pytest.approx(10)


@pytest.fixture
def attempts(clock):
    return Attempts(clock=clock, on_unwritten=lambda attempt: None)


def push(attempt, count):
    attempt.push([Piece(1, "a")] * count)


def test_attempts_count_from_their_first_token_to_their_end(attempts, clock):
    for number in (1, 2):
        attempts.began(drawn_job(number))
    first, second = attempts.all()
    clock.now += 100
    push(first, 1_000)
    push(second, 1_000)
    clock.now += 10
    push(first, 50)
    push(second, 50)
    for attempt in (first, second):
        attempts.forget(attempt.drawn.fence.draw_id)
    clock.now += 100
    assert attempts.throughput.tokens_per_second(SLOTS) == pytest.approx(5 * SLOTS)


def test_what_is_pushed_after_its_end_makes_no_slot_busy(attempts, clock):
    attempts.began(drawn_job(1))
    (attempt,) = attempts.all()
    push(attempt, 1)
    clock.now += 1
    push(attempt, 10)
    attempts.forget(attempt.drawn.fence.draw_id)
    push(attempt, 1)
    clock.now += 100
    assert attempts.throughput.tokens_per_second(1) == pytest.approx(10)


def test_an_engine_that_waits_for_redis_is_no_slower(attempts, clock):
    attempts.began(drawn_job(1))
    (attempt,) = attempts.all()
    push(attempt, 1)
    clock.now += 1
    push(attempt, MAX_UNWRITTEN_TOKENS)
    waiting = threading.Thread(target=push, args=(attempt, 1))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    clock.now += 1_000
    attempt.end(AttemptEnding.CANCELLED)
    waiting.join()
    assert attempts.throughput.tokens_per_second(1) == pytest.approx(MAX_UNWRITTEN_TOKENS, rel=0.01)
