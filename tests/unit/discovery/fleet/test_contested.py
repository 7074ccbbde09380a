"""Two processes with one key: it is seen, and said."""

from hypothesis import given, settings
from hypothesis import strategies as st

from support.presences import apply, envelope, presence
from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.fleet.fleet import Fleet, is_contested, only
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.port import Heard

WORKER = presence().worker_id


def member(**changes):
    return apply(Fleet(), presence(**changes), 0).members[WORKER]


def test_the_same_number_twice_with_other_contents_shows_two_processes():
    known = member(sequence=5)
    assert not is_contested(known, presence(sequence=5))
    assert is_contested(known, presence(sequence=5, nonce="1" * 32))


def test_a_smaller_number_that_was_given_later_shows_two_processes():
    known = member(sequence=50, issued_at=1_000)
    assert is_contested(known, presence(sequence=3, issued_at=1_001))
    assert not is_contested(known, presence(sequence=3, issued_at=999))


def test_an_earlier_life_of_a_process_shows_nothing():
    known = member(boot=2, sequence=1, issued_at=1_000)
    assert not is_contested(known, presence(boot=1, sequence=9, issued_at=2_000))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=20), st.randoms())
def test_what_one_process_announces_in_whatever_order_and_however_often_shows_nothing(steps, random):
    boot, sequence, now, announced = 1, 0, 0, []
    for restarts, pause in steps:
        boot, sequence = (boot + 1, 1) if restarts else (boot, sequence + 1)
        now += pause
        announced.append(
            presence(boot=boot, sequence=sequence, issued_at=now, nonce=f"{len(announced):032x}")
        )
    heard = random.choices(announced, k=40)
    fleet = Fleet()
    for one in heard:
        known = fleet.members.get(WORKER)
        assert known is None or one.order > known.presence.order or not is_contested(known, one)
        fleet = apply(fleet, one, 0)


def test_members_that_shall_not_be_kept_are_gone_at_once_and_older_word_does_not_bring_them_back():
    fleet = only(apply(Fleet(), presence(sequence=5), 0), lambda one: False)
    assert not fleet.members
    assert not fleet.served
    assert not apply(fleet, presence(sequence=5), 0).members
    assert only(fleet, lambda one: False) is fleet


class Source:
    def __init__(self):
        self.news = []

    def read_all(self):
        return []

    def subscribe(self):
        return self

    def next(self, timeout):
        news, self.news = self.news, []
        return news

    def close(self):
        pass


def test_a_view_says_once_that_two_processes_have_one_key_and_goes_by_their_order(caplog):
    source = Source()
    view = FleetView(source, lambda key: True, wall_clock=lambda: 5_000)
    view.start()
    try:
        for sequence, issued_at in ((9, 1_000), (2, 4_000), (10, 4_001), (3, 4_002)):
            source.news = [Heard(envelope(sequence=sequence, issued_at=issued_at), None)]
            eventually(lambda: not source.news, PATIENCE_SECONDS, "it is read")
        assert view.wait_for(lambda fleet: fleet.newest[WORKER] == (1, 10), PATIENCE_SECONDS)
        eventually(lambda: "with one key" in caplog.text, PATIENCE_SECONDS, "it is said")
        assert view.pools()
    finally:
        view.stop()
    assert caplog.text.count("Two processes announce themselves with one key") == 1


def test_a_view_drops_a_worker_whose_key_is_trusted_no_more():
    source, keys = Source(), [frozenset({presence().pub_key})]
    view = FleetView(source, lambda key: key in keys[0], wall_clock=lambda: 1_000, keys=lambda: keys[0])
    view.start()
    try:
        source.news = [Heard(envelope(), None)]
        assert view.wait_for(lambda fleet: WORKER in fleet.members, PATIENCE_SECONDS)
        keys[0] = frozenset()
        assert view.wait_for(lambda fleet: not fleet.members, PATIENCE_SECONDS)
    finally:
        view.stop()
