"""Which hand-overs are placed next."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tether.broker.pools.room import FEW_JOBS, LANE_JOB_BYTES, bytes_in_redis
from tether.broker.pools.waiting_lanes import LaneLoad
from tether.orchestrator.outbox_order import LaneHead, OwedChoice, choose_owed
from tether.store.outbox import OwedDispatch

LANE_BYTES = 100 * LANE_JOB_BYTES


def lane(name, sizes, waiting=0, body_bytes=0):
    owed = [OwedDispatch(f"{name}-{number}", 1, number, size) for number, size in enumerate(sizes)]
    return LaneHead(name, LaneLoad(waiting, body_bytes), owed)


def choose(*lanes, room=math.inf, room_for_few=math.inf, limit=100):
    choice = choose_owed(lanes, room=room, room_for_few=room_for_few, limit=limit, lane_bytes=LANE_BYTES)
    return [item.job_id for item in choice.owed], choice


def test_lanes_take_turns():
    ids, choice = choose(lane("a", [0, 0, 0]), lane("b", [0]), lane("c", [0, 0]))
    assert ids == ["a-0", "b-0", "c-0", "a-1", "c-1", "a-2"]
    assert choice.last_lane == "a"


def test_a_lane_that_is_full_gets_nothing_and_the_others_do():
    full = lane("a", [0], waiting=4, body_bytes=LANE_BYTES)
    assert choose(full, lane("b", [0], waiting=99), lane("c", [0], waiting=100))[0] == ["b-0"]


def test_a_lane_takes_what_it_has_bytes_for_and_a_few_whatever_their_size():
    ids, _ = choose(lane("a", [30_000] * 9))
    assert len(ids) == FEW_JOBS
    ids, _ = choose(lane("a", [9_000] * 20))
    assert len(ids) == 11, "the last one crosses the bound"


def test_a_large_job_is_placed_beside_small_ones_that_wait():
    ids, _ = choose(lane("a", [1_900_000, 0], waiting=50))
    assert ids == ["a-0"]


def test_without_room_only_lanes_of_which_few_wait_get_something_as_far_as_there_is_a_reserve():
    lanes = [lane("a", [0] * 9), lane("b", [0] * 9, waiting=3), lane("c", [0] * 9, waiting=FEW_JOBS)]
    assert choose(*lanes, room=0)[0] == ["a-0", "b-0", "a-1", "a-2", "a-3"]
    assert choose(*lanes, room=-5, room_for_few=0) == ([], OwedChoice((), None))
    assert choose(*lanes, room=0, room_for_few=bytes_in_redis(0) + 1)[0] == ["a-0", "b-0"]


def test_the_last_may_be_larger_than_the_room():
    ids, choice = choose(
        lane("a", [0, 0]), lane("b", [50_000, 0]), room=bytes_in_redis(0) + 1, room_for_few=0
    )
    assert ids == ["a-0", "b-0"]
    assert choice.last_lane == "b"


SIZES = st.lists(st.integers(-1_024, 3_000_000), max_size=9)


@given(
    st.lists(st.tuples(SIZES, st.integers(0, 120), st.integers(0, 200_000)), max_size=6),
    st.integers(-1, 5_000_000),
    st.integers(-1, 5_000_000),
    st.integers(0, 20),
)
def test_a_choice_is_in_order_within_its_bounds_and_fair(lanes, room, room_for_few, limit):
    heads = [lane(f"lane{number}", *each) for number, each in enumerate(lanes)]
    choice = choose_owed(heads, room=room, room_for_few=room_for_few, limit=limit, lane_bytes=LANE_BYTES)
    assert len(choice.owed) <= limit
    but_the_last = sum(bytes_in_redis(item.body_bytes) for item in choice.owed[:-1])
    assert not choice.owed or but_the_last < max(room, room_for_few)
    counts = Counter(item.job_id.rpartition("-")[0] for item in choice.owed)
    for head in heads:
        mine = [item for item in choice.owed if item.job_id.startswith(head.name + "-")]
        assert mine == list(head.owed[: len(mine)])
        used = head.load.body_bytes + head.load.jobs * LANE_JOB_BYTES
        for place, item in enumerate(mine):
            assert head.load.jobs + place < FEW_JOBS or used < LANE_BYTES
            used += max(item.body_bytes, 0) + LANE_JOB_BYTES
        has_bytes = head.load.jobs + len(mine) < FEW_JOBS or used < LANE_BYTES
        if room > 5e7 and has_bytes and len(mine) < len(head.owed):
            assert max(counts.values(), default=0) <= counts[head.name] + 1
