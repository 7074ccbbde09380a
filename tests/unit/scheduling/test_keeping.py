"""For how long a worker keeps itself free while others wait."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.scheduling.keeping import (
    FIRST_PATIENCE_MS,
    MAX_PATIENCE_MS,
    OTHERS_SHARE,
    PATIENCE_MEMORY_MS,
    Keeping,
)

NOW = 1_000_000


def test_it_keeps_itself_free_while_others_have_patience():
    keeping, kept = Keeping().after_draw(1_000, NOW)
    assert (keeping, kept) == (Keeping(lost_ms=1_000), True)


def test_it_gives_up_then_and_others_come_first_for_several_times_as_long():
    keeping, kept = Keeping(lost_ms=FIRST_PATIENCE_MS - 1).after_draw(1, NOW)
    assert not kept
    assert keeping == Keeping(0, 2 * FIRST_PATIENCE_MS, NOW + OTHERS_SHARE * FIRST_PATIENCE_MS)
    assert keeping.after_draw(0, keeping.open_until_ms - 1) == (keeping, False)
    assert keeping.after_draw(0, keeping.open_until_ms)[1]


@pytest.mark.parametrize("lost_ms", [0, FIRST_PATIENCE_MS, 80_000, 2 * MAX_PATIENCE_MS])
def test_where_a_turn_begins_the_next_may_take_as_long(lost_ms):
    keeping = Keeping(lost_ms=lost_ms).after_beginning(NOW)
    assert keeping.patience_ms == min(MAX_PATIENCE_MS, max(FIRST_PATIENCE_MS, lost_ms))
    assert keeping.open_until_ms == NOW + OTHERS_SHARE * lost_ms


def test_how_long_others_waited_is_forgotten():
    keeping = Keeping(FIRST_PATIENCE_MS, MAX_PATIENCE_MS, NOW)
    assert keeping.after_draw(0, NOW + PATIENCE_MEMORY_MS - 1)[1]
    assert not keeping.after_draw(0, NOW + PATIENCE_MEMORY_MS)[1]


def test_who_waits_for_a_long_stream_has_its_turn_in_the_end():
    keeping, now, lost = Keeping(), NOW, 0
    while keeping.patience_ms < 200_000:
        now = max(now, keeping.open_until_ms)
        while (drawn := keeping.after_draw(1_000, now))[1]:
            keeping, now, lost = drawn[0], now + 1_000, lost + 1_000
        keeping, lost = drawn[0], lost + 1_000
    assert lost == FIRST_PATIENCE_MS * (2**6 - 1)


@given(st.lists(st.tuples(st.integers(0, 2_000), st.booleans()), max_size=400))
def test_others_lose_a_quarter_of_the_time_at_most_and_one_wait(draws):
    keeping, kept, now, lost = Keeping(), False, NOW, 0
    for waited, begins in draws:
        now += waited
        if begins and kept:
            lost += waited
            keeping, kept = replace(keeping, lost_ms=keeping.lost_ms + waited).after_beginning(now), False
            continue
        was_open = keeping.open_until_ms > now
        keeping, kept = keeping.after_draw(waited, now)
        lost += 0 if was_open else waited
        assert lost <= (now - NOW) / (1 + OTHERS_SHARE) + keeping.patience_ms + 2_000
