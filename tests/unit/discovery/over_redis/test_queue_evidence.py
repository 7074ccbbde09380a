"""The reply of the script that tells what workers were seen to do."""

from hypothesis import given
from hypothesis import strategies as st

from tether.discovery.fleet.liveness import Appearance, Draws, Evidence
from tether.discovery.over_redis.queue_evidence import read_evidence


def test_a_reply_is_read():
    seen = b"d w1 pool.a 5 m w1 pool.b 6 r w2 7 c w3 8"
    assert read_evidence([b"9", seen, b"w1 1 2 3 w2 4 4 4", b"8", b"9"]) == Evidence(
        now=9,
        asked={Draws("w1", "pool.a"): 5},
        missed={Draws("w1", "pool.b"): 6},
        renewed={"w2": 7},
        copied={"w3": 8},
        known={"w1": Appearance(1, 2, 3), "w2": Appearance(4, 4, 4)},
        paused=8,
        resumed=9,
    )


def test_a_redis_in_which_nothing_was_seen_yet_tells_of_nothing():
    assert read_evidence([b"9", b"", b"", None, None]) == Evidence(now=9)


@given(st.text("dmrc 0123456789x\n").map(str.encode), st.binary())
def test_what_cannot_be_read_is_left_out(seen, since):
    read_evidence([b"9", seen, since, b"x", b""])
