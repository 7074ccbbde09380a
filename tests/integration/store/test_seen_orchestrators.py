"""Whether an orchestrator runs, by the leases of its loops."""

from support.databases import NOW
from tether.store.loop_leases import MAX_AHEAD_MS, give_up_lease, is_any_held, take_lease


def test_one_runs_while_any_lease_is_held_and_that_of_a_wrong_clock_says_nothing(store):
    def take(name, life_ms):
        assert store.write_alone(take_lease, name, "one", NOW, life_ms).result()

    assert not store.read(is_any_held, NOW)
    take("of a wrong clock", MAX_AHEAD_MS + 1)
    assert not store.read(is_any_held, NOW)
    take("relay", 3_000)
    assert store.read(is_any_held, NOW + 2_999)
    assert store.write_alone(give_up_lease, "relay", "one").result()
    assert not store.read(is_any_held, NOW)
    take("relay", 3_000)
    take("of a wrong clock", 3_000)
    assert not store.read(is_any_held, NOW + 3_000)
