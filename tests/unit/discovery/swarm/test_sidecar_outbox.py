"""The outbox holds of each subject only the newest, and only for as long as it is of use."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tether.discovery.swarm.frames import SwarmMessage
from tether.discovery.swarm.sidecar_outbox import Outbox

LIFE = 15_000


class FakeClock:
    def __init__(self):
        self.now = 1_000

    def __call__(self):
        return self.now


def make():
    clock = FakeClock()
    return Outbox(LIFE, clock), clock


def test_only_the_newest_of_each_subject_and_topic_is_taken():
    outbox, _ = make()
    for topic, subject, envelope in ((1, "a", b"1"), (1, "a", b"2"), (1, "b", b"3"), (2, "a", b"4")):
        outbox.put(topic, subject, envelope)
    assert outbox.take() == [SwarmMessage(1, 0, b"2"), SwarmMessage(1, 0, b"3"), SwarmMessage(2, 0, b"4")]


def test_what_was_taken_is_not_taken_again():
    outbox, _ = make()
    outbox.put(1, "a", b"1")
    assert outbox
    assert outbox.take()
    assert not outbox
    assert not outbox.take()


def test_the_time_that_it_waited_is_told_and_after_its_life_it_is_not_taken():
    outbox, clock = make()
    outbox.put(1, "a", b"1")
    clock.now += LIFE - 1
    outbox.put(1, "b", b"2")
    assert outbox.take() == [SwarmMessage(1, LIFE - 1, b"1"), SwarmMessage(1, 0, b"2")]
    outbox.begin_anew()
    clock.now += 1
    assert outbox.take() == [SwarmMessage(1, 1, b"2")]


def test_a_new_sidecar_is_told_all_that_is_still_of_use():
    outbox, clock = make()
    outbox.put(1, "a", b"1")
    outbox.put(1, "b", b"2")
    outbox.take()
    outbox.put(1, "b", b"3")
    clock.now += 5
    outbox.begin_anew()
    assert sorted(outbox.take()) == [SwarmMessage(1, 5, b"1"), SwarmMessage(1, 5, b"3")]


def test_however_many_commands_there_are_those_that_are_over_are_forgotten():
    outbox, clock = make()
    for number in range(1_000):
        outbox.put(1, f"{number}", b"")
        outbox.take()
        clock.now += LIFE // 100
        assert len(outbox._kept) <= 202


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 2), st.sampled_from("ab")),
        st.tuples(st.just("take")),
        st.tuples(st.just("begin_anew")),
        st.tuples(st.just("pass"), st.integers(1, LIFE)),
    )
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_it_hands_out_the_newest_of_everything_that_was_not_told_to_this_sidecar(steps):
    outbox, clock = make()
    newest, unsent = {}, set()
    for number, (step, *values) in enumerate(steps):
        if step == "put":
            key = tuple(values)
            newest[key] = (f"{number}".encode(), clock.now)
            unsent.add(key)
            outbox.put(*key, newest[key][0])
        elif step == "pass":
            clock.now += values[0]
        elif step == "begin_anew":
            unsent = set(newest)
            outbox.begin_anew()
        else:
            expected = {
                SwarmMessage(key[0], clock.now - newest[key][1], newest[key][0])
                for key in unsent
                if clock.now - newest[key][1] < LIFE
            }
            taken = outbox.take()
            assert set(taken) == expected
            assert len(taken) == len(expected)
            unsent = set()
