"""What is kept in Redis of what workers were seen to do, as it is read."""

from hypothesis import given
from hypothesis import strategies as st

from tether.discovery.fleet.liveness import Appearance, Draws, Evidence
from tether.discovery.over_redis.queue_evidence import Noted, read_evidence

WORDS = st.text("dmrc 0123456789x\n\t").map(str.encode)


def test_notes_are_read():
    noted = Noted(
        now=9,
        seen=[(b"m w1 pool.b", 6.0), (b"r w2", 7.0), (b"c w3", 8.0)],
        asked={b"w1": b"5 pool.a pool.b\t3 pool.c", b"w2": b"4 pool.a"},
        since={b"w1": b"1 2 3", b"w2": b"4 4 4"},
        tick=(b"9", b"7", b"8"),
    )
    assert read_evidence(noted) == Evidence(
        now=9,
        asked={
            Draws("w1", "pool.a"): 5,
            Draws("w1", "pool.b"): 5,
            Draws("w1", "pool.c"): 3,
            Draws("w2", "pool.a"): 4,
        },
        missed={Draws("w1", "pool.b"): 6},
        renewed={"w2": 7},
        copied={"w3": 8},
        known={"w1": Appearance(1, 2, 3), "w2": Appearance(4, 4, 4)},
        paused=7,
        resumed=8,
    )


def test_a_redis_in_which_nothing_was_seen_yet_has_only_just_come():
    assert read_evidence(Noted(now=9_000)) == Evidence(now=9_000, resumed=9_000)


def test_a_note_of_another_make_hides_no_others():
    noted = Noted(
        now=9,
        seen=[(b"z w1", 1.0), (b"d w1", 1.0), (b"", 1.0), (b"r w1", 7.0)],
        asked={b"w0": b"", b"w1": b"x pool.a", b"w2": b"5 pool.a"},
        since={b"w1": b"1 2", b"w2": b"1 2 3"},
    )
    seen = read_evidence(noted)
    assert seen.renewed == {"w1": 7}
    assert seen.asked == {Draws("w1", "pool.a"): 0, Draws("w2", "pool.a"): 5}
    assert seen.known == {"w2": Appearance(1, 2, 3)}


def test_a_pause_that_the_lease_loop_has_not_noted_yet_counts():
    assert read_evidence(Noted(now=90_000, tick=(b"60000", b"7", b"8"))) == Evidence(
        now=90_000, paused=60_000, resumed=90_000
    )
    seen = read_evidence(Noted(now=90_000, tick=(b"89500", b"7", b"8")))
    assert (seen.paused, seen.resumed) == (7, 8)


@given(
    st.lists(st.tuples(WORDS, st.floats())),
    st.dictionaries(WORDS, WORDS),
    st.dictionaries(WORDS, st.binary()),
)
def test_what_cannot_be_read_is_left_out(seen, asked, since):
    read_evidence(Noted(now=9, seen=seen, asked=asked, since=since, tick=(b"x", b"", b"9" * 5000)))
