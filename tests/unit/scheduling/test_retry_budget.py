"""The budget of retries: accounts by arithmetic, and the gate that keeps one for each pool."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.outcomes import Fence
from tether.scheduling.retry_budget import BudgetAccount, BudgetGate, BudgetRules
from tether.scheduling.retry_policy import PlannedRetry, RetryPolicy

NOW = 1_800_000_000_000
RULES = BudgetRules(share=0.5, per_second=2, burst=10, window_ms=60_000, max_delay_ms=300_000)


def retry(job, pool="p", now_ms=NOW):
    return PlannedRetry(
        job_id=job,
        fence=Fence(1, 1, "w:1"),
        pool=pool,
        policy=RetryPolicy(),
        failed=1,
        error=None,
        chance=0.0,
        now_ms=now_ms,
    )


def note_firsts(gate, count, pool="p", now_ms=NOW):
    for number in range(count):
        gate.note_first(f"first-{number}", Fence(1, 1, "w:1"), pool, now_ms)


def test_as_many_as_were_saved_up_pass_at_once_and_the_next_wait_for_their_turn():
    gate = BudgetGate(RULES)
    opens = [gate.opens_at(retry(number)) - NOW for number in range(14)]
    assert opens == [0] * 10 + [500, 1000, 1500, 2000]


def test_first_attempts_that_end_pay_for_their_share():
    gate = BudgetGate(RULES)
    assert [gate.opens_at(retry(number)) for number in range(10)] == [NOW] * 10
    note_firsts(gate, 8)
    opens = [gate.opens_at(retry(f"more-{number}")) - NOW for number in range(5)]
    assert opens[:4] == [0] * 4
    assert 0 < opens[4] <= 500


def test_one_pool_s_budget_says_nothing_of_another_s():
    gate = BudgetGate(RULES)
    for number in range(1_000):
        gate.opens_at(retry(number))
    assert gate.opens_at(retry("other", pool="q")) == NOW


def test_the_same_attempt_asks_once_and_pays_once():
    gate = BudgetGate(RULES)
    assert {gate.opens_at(retry("same")) for _ in range(100)} == {NOW}
    assert [gate.opens_at(retry(number)) for number in range(9)] == [NOW] * 9
    for _ in range(100):
        gate.note_first("first", Fence(1, 1, "w:1"), "p", NOW)
    assert gate.opens_at(retry("one too many")) > NOW


def test_no_retry_waits_longer_than_the_greatest_delay_and_the_account_recovers():
    gate = BudgetGate(RULES)
    opens = [gate.opens_at(retry(number)) - NOW for number in range(3_000)]
    assert max(opens) == RULES.max_delay_ms
    assert gate.opens_at(retry("later", now_ms=NOW + 400_000)) == NOW + 400_000


RULES_OF_ANY_KIND = st.builds(
    BudgetRules,
    share=st.floats(0, 1),
    per_second=st.floats(0.1, 1_000),
    burst=st.integers(1, 1_000),
    window_ms=st.integers(1_000, 600_000),
    max_delay_ms=st.integers(1, 3_600_000),
)


@given(RULES_OF_ANY_KIND, st.lists(st.tuples(st.integers(-1_000, 100_000), st.booleans()), max_size=100))
def test_a_delay_is_bounded_whatever_the_clock_does(rules, events):
    account, now = BudgetAccount.opened(rules, NOW), NOW
    for passed, is_first in events:
        now += passed
        account = account.at(now, rules)
        if is_first:
            account = account.after_first(rules)
        else:
            account, delay = account.after_retry(rules)
            assert 0 <= delay <= rules.max_delay_ms
        assert account.balance <= rules.burst


@given(
    per_second=st.floats(0.5, 50),
    burst=st.integers(1, 20),
    arrivals=st.lists(st.integers(0, 2_000), min_size=1, max_size=60),
    width=st.integers(1, 30_000),
)
def test_in_no_window_do_more_retries_come_due_than_the_budget_has(per_second, burst, arrivals, width):
    rules = BudgetRules(share=0.0, per_second=per_second, burst=burst, max_delay_ms=86_400_000)
    gate, now, due = BudgetGate(rules), NOW, []
    for number, passed in enumerate(arrivals):
        now += passed
        due.append(gate.opens_at(retry(number, now_ms=now)))
    due.sort()
    for begin in due:
        within = sum(begin <= at < begin + width for at in due)
        assert within <= burst + per_second * width / 1000 + 1 + 1e-6


@pytest.mark.parametrize("count", [10, 200])
def test_where_most_attempts_succeed_no_retry_waits(count):
    gate = BudgetGate(BudgetRules())
    for number in range(count):
        gate.note_first(number, Fence(1, 1, "w:1"), "p", NOW)
        if number % 5 == 0:
            assert gate.opens_at(retry(f"retry-{number}")) == NOW
