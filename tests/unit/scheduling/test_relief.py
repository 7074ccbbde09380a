"""Which jobs are placed again, since another pool would do them much sooner."""

from hypothesis import given
from hypothesis import strategies as st

from support.presences import DIGEST, MODEL
from tether.discovery.fleet.pool_views import PoolView
from tether.scheduling.affinity import expected_times
from tether.scheduling.filters import PlacementRequest
from tether.scheduling.relief import MAX_GAP_MS, PATIENCE_MS, REST_MS, CrowdWatch, MoveRule, crowded

RULE = MoveRule(factor=3.0, gain_seconds=10.0, moves=2)
REQUEST = PlacementRequest(model=MODEL, output_tokens=200)


def view(name, **about):
    about = {"workers": 1, "slots": 1, "warm": True, "slot_tokens_per_second": 20.0} | about
    where = {"gpu_class": "cpu", "region": "local"}
    return PoolView(name=name, model="tiny", version="1", digest=DIGEST, **where, **about)


def found(pools, depths, rule=RULE, bounds=None):
    return crowded(REQUEST, pools, depths, {}, bounds or dict.fromkeys("abc", 1_000), rule)


def test_the_last_jobs_of_a_long_queue_go_where_nothing_waits_and_no_more_of_them_than_that_helps():
    # Ten seconds a job: 21 jobs in a; the tenth that goes to b waits as long as three of those that stay.
    moved = found([view("a"), view("b")], {"a": 21})
    assert moved == {"a": 5}
    assert found([view("a"), view("b")], {"a": 16, "b": 5}) == {}


def test_a_short_queue_stays_where_it_is():
    assert found([view("a"), view("b")], {"a": 3}) == {}


def test_what_takes_long_to_load_is_no_relief():
    cold = view("b", warm=False, load_seconds=300.0)
    assert found([view("a"), cold], {"a": 21}) == {}
    assert found([view("a"), cold], {"a": 200}) != {}


def test_nothing_goes_to_suspects_to_those_that_are_held_back_or_to_a_full_pool():
    for other in (view("b", suspects=1), view("b", held=1)):
        assert found([view("a"), other], {"a": 50}) == {}
    assert found([view("a"), view("b")], {"a": 50, "b": 2}, bounds={"a": 99, "b": 2}) == {}
    assert found([view("a"), view("b")], {"a": 50, "b": 2}, bounds={"a": 99, "b": 3}) == {"a": 1}


def test_0_moves_move_nothing():
    assert found([view("a"), view("b")], {"a": 500}, MoveRule(1.0, 0.0, 0)) == {}


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 8), st.integers(1, 8), st.floats(0.5, 500))
def test_nothing_that_was_moved_would_be_moved_back(one, two, slots, others, rate):
    pools = [view("a", slots=slots), view("b", slots=others, slot_tokens_per_second=rate)]
    depths = {"a": one, "b": two}
    for pool, count in found(pools, depths).items():
        other = "b" if pool == "a" else "a"
        assert count <= depths[pool] - pools["ab".index(pool)].slots
        after = {pool: depths[pool] - count, other: depths[other] + count}
        assert other not in found(pools, after)
        here, there = (expected_times(REQUEST, each, after[each.name] - 1).seconds for each in pools)
        here, there = (here, there) if pool == "a" else (there, here)
        assert there < here


def test_only_what_stays_crowded_is_relieved_and_then_left_alone_for_a_while():
    watch, due = CrowdWatch().look({"a": 5}, 1_000)
    assert due == {}
    watch, due = watch.look({"a": 7, "b": 1}, 1_000 + PATIENCE_MS)
    assert due == {"a": 7}
    watch, due = watch.look({"a": 7, "b": 1}, 1_000 + PATIENCE_MS + REST_MS - 1)
    assert due == {}
    watch, due = watch.look({"a": 7}, 1_000 + PATIENCE_MS + REST_MS)
    assert due == {"a": 7}
    watch, due = watch.look({}, 2_000 + PATIENCE_MS + REST_MS)
    watch, due = watch.look({"a": 7}, 3_000 + PATIENCE_MS + REST_MS)
    assert due == {}, "it was not crowded in between"


def test_a_gap_between_two_looks_begins_the_watch_anew():
    watch, _ = CrowdWatch().look({"a": 5}, 0)
    watch, due = watch.look({"a": 5}, MAX_GAP_MS + 1)
    assert due == {}
