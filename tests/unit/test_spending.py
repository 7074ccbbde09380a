"""What a tenant may spend in a day and a month."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.admission.spending_refusals import spending_refusal
from tether.errors import InvalidRequest
from tether.spending import (
    NOTHING,
    UNLIMITED,
    Amount,
    Overspent,
    Span,
    SpendingQuotas,
    Window,
    overspent,
    truly_spent,
    window_begins,
    window_ends_ms,
    windows_at,
)

AT = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
NOW = int(AT.timestamp()) * 1000
DAY, MONTH = windows_at("t", NOW)
limits = st.none() | st.integers(0, 20)
quotas = st.builds(
    SpendingQuotas,
    requests_per_day=limits,
    tokens_per_day=limits,
    requests_per_month=limits,
    tokens_per_month=limits,
)
amounts = st.builds(Amount, st.integers(0, 3), st.integers(0, 9))


def test_windows_begin_at_midnight_of_utc_and_the_first_of_the_month():
    assert window_begins(DAY.span, DAY.number) == date(2026, 12, 31)
    assert window_begins(MONTH.span, MONTH.number) == date(2026, 12, 1)
    assert window_ends_ms(DAY) == window_ends_ms(MONTH) == NOW + 1000
    assert windows_at("t", NOW + 1000) == (
        Window("t", Span.DAY, DAY.number + 1),
        Window("t", Span.MONTH, MONTH.number + 1),
    )


@given(st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31)))
def test_every_moment_is_in_its_windows(at):
    now = int(at.replace(tzinfo=UTC).timestamp() * 1000)
    for window in windows_at("t", now):
        begins = window_begins(window.span, window.number)
        assert begins <= at.date()
        assert now < window_ends_ms(window)
        before = window_begins(window.span, window.number + 1) - timedelta(days=1)
        assert at.date() <= before


@given(quotas, st.lists(amounts, max_size=12))
def test_what_is_let_in_never_exceeds_any_limit_and_what_is_refused_would(quotas, wanted):
    spent = {DAY: NOTHING, MONTH: NOTHING}
    for amount in wanted:
        refusal = overspent(quotas, amount, spent, (DAY, MONTH))
        after = {window: so_far.plus(amount) for window, so_far in spent.items()}
        exceeded = {
            (unit, window)
            for window in after
            for unit, limit, value in zip(
                Amount._fields, quotas.limits(window.span), after[window], strict=True
            )
            if limit is not None and value > limit
        }
        if refusal is None:
            assert not exceeded
            spent = after
        else:
            assert (refusal.unit, refusal.window) in exceeded
            assert refusal.left <= refusal.limit
    assert overspent(UNLIMITED, Amount(10**9, 10**12), spent, (DAY, MONTH)) is None


@pytest.mark.parametrize(
    ("is_success", "is_stopped", "tokens", "spent"),
    [
        (True, False, (5, 2), Amount(1, 7)),
        (True, False, (5, 0), Amount(1, 5)),
        (False, True, (5, 2), Amount(1, 7)),
        (False, True, (0, 0), NOTHING),
        (False, False, (5, 2), NOTHING),
    ],
)
def test_failures_and_what_never_began_cost_nothing(is_success, is_stopped, tokens, spent):
    truth = truly_spent(
        is_success=is_success, is_stopped=is_stopped, input_tokens=tokens[0], output_tokens=tokens[1]
    )
    assert truth == spent


def test_a_refusal_says_of_what_and_until_when():
    error = spending_refusal(Overspent("tokens", 1_000, 12, DAY, 13), NOW)
    assert error.retry_after == 1.0
    for part in ("'t'", "1000 tokens", "the day 2026-12-31", "12 of them are left", "counts as 13 tokens"):
        assert part in str(error)
    assert "the month 2026-12 " in str(spending_refusal(Overspent("requests", 3, 0, MONTH, 1), NOW))


def test_what_no_window_could_ever_take_is_refused_for_good_even_where_another_is_used_up():
    quotas = SpendingQuotas(requests_per_day=1, tokens_per_month=100)
    spent = {DAY: Amount(1, 0), MONTH: Amount(1, 40)}
    passing = overspent(quotas, Amount(1, 100), spent, (DAY, MONTH))
    assert passing == Overspent("requests", 1, 0, DAY, 1)
    assert not passing.is_for_good
    lasting = overspent(quotas, Amount(1, 101), spent, (DAY, MONTH))
    assert lasting == Overspent("tokens", 100, 60, MONTH, 101)
    error = spending_refusal(lasting, NOW)
    assert isinstance(error, InvalidRequest)
    assert not error.retryable
    assert error.param == "max_tokens"
    for part in ("'t'", "counts as 101 tokens", "100 in a whole month", "tokens_per_month"):
        assert part in str(error)


@pytest.mark.parametrize("unit", ["requests", "tokens"])
def test_a_quota_of_nothing_is_said_to_be_one(unit):
    error = spending_refusal(Overspent(unit, 0, 0, DAY, 1), NOW)
    assert isinstance(error, InvalidRequest)
    assert f"may spend no {unit} in any day: its policy sets {unit}_per_day to 0" in str(error)
