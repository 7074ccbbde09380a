"""Pauses of pools are kept, with both databases; and where an operator moves jobs."""

import pytest
from sqlalchemy import text

from support.databases import (
    NOW,
    OTHER_POOL,
    POOL,
    accept,
    fresh_sqlite,
    new_job,
    outcome,
    settle_each,
    write,
)
from tether.errors import InvalidRequest
from tether.outcomes import OutcomeKind
from tether.store import Store
from tether.store import pool_pauses as pauses
from tether.store.moved_jobs import JobMove, note_moves
from tether.store.pool_pauses import PoolPause, check_reason, pause_pool, pool_pauses, resume_pool
from tether.store.waiting_jobs import waiting


def pause(store, pool=POOL, reason="", now_ms=NOW):
    return store.write_alone(pause_pool, pool, reason, now_ms).result()


def test_a_pool_is_paused_once_with_the_last_reason_until_it_is_resumed(store):
    assert pause(store, reason="new driver") == (PoolPause("new driver", NOW), False)
    assert pause(store, reason="old driver", now_ms=NOW + 9) == (PoolPause("old driver", NOW), True)
    pause(store, OTHER_POOL, now_ms=NOW + 1)
    assert store.read(pool_pauses) == {
        POOL: PoolPause("old driver", NOW),
        OTHER_POOL: PoolPause("", NOW + 1),
    }
    assert [store.write_alone(resume_pool, POOL).result() for _ in range(2)] == [True, False]
    assert store.read(pool_pauses) == {OTHER_POOL: PoolPause("", NOW + 1)}


def test_no_more_pools_are_paused_than_every_process_can_know(store, monkeypatch):
    monkeypatch.setattr(pauses, "MAX_PAUSED_POOLS", 1)
    pause(store)
    assert isinstance(pause(store, OTHER_POOL), InvalidRequest)
    assert pause(store, reason="again")[1] is True
    assert list(store.read(pool_pauses)) == [POOL]


@pytest.mark.parametrize("reason", ["a\nb", "\0", "x" * 201, "\ud800", 7, ["new"]])
def test_a_reason_is_a_line_of_text(reason):
    with pytest.raises(InvalidRequest, match="reason must be printable text of at most 200 characters"):
        check_reason(reason)


@pytest.mark.parametrize(("given", "kept"), [(None, ""), ("", ""), ("  new driver ", "new driver")])
def test_a_reason_may_be_missing(given, kept):
    assert check_reason(given) == kept


def test_only_jobs_that_are_in_the_pool_still_and_have_not_ended_are_noted_as_moved(store):
    accept(store, new_job(1), new_job(2, pool=OTHER_POOL), new_job(3), new_job(4, pool=None))
    settle_each(store, outcome(3))
    moves = [JobMove(f"job-{number:06}", POOL, OTHER_POOL) for number in (4, 3, 2, 1, 9)]
    assert write(store, note_moves, *moves) == [False, False, False, True, False]


def test_who_chooses_the_next_pool_of_a_job_knows_where_it_was_moved(store):
    accept(store, new_job(1), new_job(2))
    write(store, note_moves, JobMove("job-000001", POOL, OTHER_POOL))
    settle_each(store, *(outcome(number, OutcomeKind.WITHDRAWN) for number in (1, 2)))
    moved, other = store.read(waiting, ["job-000001", "job-000002"])
    assert (moved.avoided_pool, moved.moved_to) == (POOL, OTHER_POOL)
    assert (other.avoided_pool, other.moved_to) == (None, None)
    write(store, note_moves, JobMove("job-000001", POOL, None))
    (moved,) = store.read(waiting, ["job-000001"])
    assert (moved.avoided_pool, moved.moved_to) == (POOL, None)


@pytest.mark.parametrize("value", ["CAST(x'736563726574ff' AS TEXT)", "x'ff'"])
@pytest.mark.parametrize("column", ["pool", "reason", "paused_at"])
def test_a_pause_that_is_no_text_costs_no_other(tmp_path, column, value):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as opened:
        pause(opened, reason="new driver")
        pause(opened, OTHER_POOL, reason="old driver")
        change = text(f"UPDATE paused_pools SET {column} = {value} WHERE pool = '{OTHER_POOL}'")
        opened.write_alone(lambda connection: connection.execute(change) and None).result()
        found = opened.read(pool_pauses)
        assert found[POOL] == PoolPause("new driver", NOW)
        assert list(found) == ([POOL] if column == "pool" else [POOL, OTHER_POOL])
        assert pause(opened, reason="again")[1] is True
