import threading

import pytest

from support.drawn_jobs import body_of, drawn_job
from tether_workers.attempts.attempt import Attempt
from tether_workers.engine import Delta
from tether_workers.job import read_drawn_job
from tether_workers.presence.prefill import MIN_PROMPT_TOKENS, WINDOW_SECONDS, PrefillThroughput
from tether_workers.stages.generate import GenerateTokens
from tether_workers.stages.work import InferenceWork

NO_BOUND = 1e9


class TimedEngine:
    """Reads a thousand tokens a second and decodes ten."""

    repeatable = True

    def __init__(self):
        self.now = 0.0

    def start(self, prompt_ids, accepted_ids, sampling, cancelled):
        self.now += (len(prompt_ids) + len(accepted_ids)) / 1_000
        for offset in range(len(accepted_ids), sampling.max_tokens):
            self.now += 0.1
            is_last = offset == sampling.max_tokens - 1
            yield Delta(offset, (offset,), ("x",), "length" if is_last else None)


def run(prompt_tokens, max_tokens, prefill):
    engine = TimedEngine()
    drawn = drawn_job(body=body_of(max_tokens=max_tokens))
    attempt = Attempt(drawn, clock=lambda: engine.now, on_unwritten=lambda one: None)
    work = InferenceWork(
        attempt=attempt, job=read_drawn_job(drawn, {}), loaded=engine, prompt_ids=(1,) * prompt_tokens
    )
    GenerateTokens(prefill, lambda: engine.now).run(work)
    assert attempt.generated_tokens == max_tokens


def test_what_the_first_tokens_take_longer_than_the_next_is_the_reading_of_the_prompt():
    prefill = PrefillThroughput()
    run(500, 3, prefill)
    assert prefill.tokens_per_second(NO_BOUND) == pytest.approx(1_000)


@pytest.mark.parametrize(("prompt_tokens", "max_tokens"), [(MIN_PROMPT_TOKENS - 1, 3), (500, 1)])
def test_a_short_prompt_or_a_single_token_says_nothing(prompt_tokens, max_tokens):
    prefill = PrefillThroughput()
    for _ in range(20):
        run(prompt_tokens, max_tokens, prefill)
    assert prefill.tokens_per_second(NO_BOUND) == 0.0


def test_one_job_with_few_tokens_says_nothing_and_several_do():
    prefill = PrefillThroughput()
    run(100, 3, prefill)
    assert prefill.tokens_per_second(NO_BOUND) == 0.0
    run(100, 3, prefill)
    run(100, 3, prefill)
    assert prefill.tokens_per_second(NO_BOUND) == pytest.approx(1_000)


def test_steps_that_differ_make_up_for_each_other():
    prefill = PrefillThroughput()
    for step in (0.2, 0.05, 0.05):
        prefill.add(100, first_seconds=0.2, step_seconds=step)
    assert prefill.tokens_per_second(NO_BOUND) == pytest.approx(1_000)


def test_what_takes_no_time_is_as_fast_as_is_told_at_most():
    prefill = PrefillThroughput()
    prefill.add(1_000, first_seconds=0.1, step_seconds=0.2)
    assert prefill.tokens_per_second(5_000.0) == 5_000.0


def test_what_was_long_ago_counts_less_and_less():
    prefill = PrefillThroughput()
    prefill.add(100_000, first_seconds=WINDOW_SECONDS, step_seconds=0.0)
    for _ in range(20):
        prefill.add(200_000, first_seconds=WINDOW_SECONDS / 2, step_seconds=0.0)
    assert prefill.tokens_per_second(NO_BOUND) == pytest.approx(400_000 / WINDOW_SECONDS, rel=0.01)


def test_many_slots_may_tell_at_once():
    prefill = PrefillThroughput()
    slots = [
        threading.Thread(
            target=lambda: [prefill.add(100, first_seconds=0.1, step_seconds=0.0) for _ in range(100)]
        )
        for _ in range(4)
    ]
    for slot in slots:
        slot.start()
    for slot in slots:
        slot.join()
    assert prefill.tokens_per_second(NO_BOUND) == pytest.approx(1_000)
