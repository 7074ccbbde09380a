"""Turns at one SQLite file: whoever has just had one comes after who waits."""

import contextlib
import threading

from support.waiting import join
from tether.store.turns import (
    LONGER_PATIENCE_SECONDS,
    PATIENCE_SECONDS,
    SHORT_PATIENCE_SECONDS,
    TRY_AGAIN_SECONDS,
    WriteTurns,
)


def test_who_has_written_and_wants_to_again_comes_after_who_waits(tmp_path):
    order, has_begun, waits = [], threading.Event(), threading.Event()

    def look(seconds):
        waits.set()
        threading.Event().wait(seconds)

    first, second = WriteTurns(tmp_path / "t.db"), WriteTurns(tmp_path / "t.db", sleep=look)

    def take_once():
        assert has_begun.wait(60)
        with second.take():
            order.append("second")

    thread = threading.Thread(target=take_once)
    thread.start()
    with first.take():
        has_begun.set()
        assert waits.wait(60)
        order.append("first")
    with first.take():
        order.append("first")
    join(thread)
    assert order == ["first", "second", "first"]
    first.close()
    second.close()


def test_after_a_while_it_is_written_without_a_turn(tmp_path):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    holder = WriteTurns(tmp_path / "t.db")
    other = WriteTurns(tmp_path / "t.db", clock=lambda: now[0], sleep=sleep)
    with holder.take(), other.take():
        assert now[0] >= PATIENCE_SECONDS
    with other.take():
        pass
    holder.close()
    other.close()


def test_who_is_stopped_with_a_turn_lets_others_wait_long_only_once(tmp_path):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    def waited_for_a_turn():
        begun_at = now[0]
        with other.take():
            return now[0] - begun_at

    stopped = WriteTurns(tmp_path / "t.db")
    other = WriteTurns(tmp_path / "t.db", clock=lambda: now[0], sleep=sleep)
    with stopped.take():
        assert waited_for_a_turn() >= PATIENCE_SECONDS
        assert SHORT_PATIENCE_SECONDS <= waited_for_a_turn() < PATIENCE_SECONDS / 2
    assert waited_for_a_turn() == 0
    with stopped.take():
        assert waited_for_a_turn() >= PATIENCE_SECONDS, "it can be had again"
    stopped.close()
    other.close()


def test_who_missed_a_turn_gets_one_again_beside_others_that_write_all_the_time(tmp_path):
    now, under_way = [0.0], contextlib.ExitStack()
    turn_ends_at = float("inf")

    def sleep(seconds):
        now[0] += seconds
        if now[0] >= turn_ends_at:
            under_way.close()

    busy = WriteTurns(tmp_path / "t.db")
    other = WriteTurns(tmp_path / "t.db", clock=lambda: now[0], sleep=sleep)
    with busy.take(), other.take():
        missed_at = now[0]
    waits = []
    while now[0] < missed_at + TRY_AGAIN_SECONDS + 1:
        under_way.enter_context(busy.take())
        begun_at, turn_ends_at = now[0], now[0] + 2 * SHORT_PATIENCE_SECONDS
        with other.take():
            waits.append(now[0] - begun_at)
        under_way.close()
        now[0] += 0.5
    assert max(waits[:5]) < 2 * SHORT_PATIENCE_SECONDS
    assert 2 * SHORT_PATIENCE_SECONDS <= waits[-1] < LONGER_PATIENCE_SECONDS, "it had its turn"
    busy.close()
    other.close()


def test_a_lock_s_file_that_is_removed_is_made_anew_for_all(tmp_path):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    first = WriteTurns(tmp_path / "t.db")
    with first.take():
        pass
    for name in ("next", "turn"):
        (tmp_path / f"t.db-{name}").unlink()
        later = WriteTurns(tmp_path / "t.db", clock=lambda: now[0], sleep=sleep)
        now[0] = 0.0
        with first.take(), later.take():
            assert now[0] >= PATIENCE_SECONDS, "both lock the same file"
        later.close()
    first.close()


def test_a_turn_ends_with_an_error_in_it(tmp_path):
    first, second = WriteTurns(tmp_path / "t.db"), WriteTurns(tmp_path / "t.db", sleep=None)
    for _ in range(2):
        try:
            with first.take():
                raise ValueError("in the transaction")
        except ValueError:
            pass
    with second.take():
        pass
    first.close()
    second.close()


def test_where_no_lock_can_be_had_it_is_written_all_the_same(tmp_path):
    turns = WriteTurns(tmp_path / "missing" / "t.db")
    with turns.take():
        pass
    turns.close()


def test_a_file_that_could_not_be_opened_once_stops_no_later_turn(tmp_path):
    (tmp_path / "t.db-turn").mkdir()
    turns, other = WriteTurns(tmp_path / "t.db"), WriteTurns(tmp_path / "t.db", sleep=None)
    for _ in range(2):
        with turns.take():
            pass
    (tmp_path / "t.db-turn").rmdir()
    with turns.take():
        pass
    with other.take():
        pass
    turns.close()
    other.close()
