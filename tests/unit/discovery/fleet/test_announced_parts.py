"""A worker that is heard of on its models' topics: what each says adds up."""

import itertools

import pytest

from support.presences import OTHER_KEY, apply, presence
from tether.discovery.announcements.presence import ModelState, Supported, WorkerState
from tether.discovery.fleet.fleet import Fleet, apply_all
from tether.discovery.fleet.pool_views import pools
from tether.models.registry import pool_name
from tether_workers.presence.health import parts_by_model

MODELS = tuple(Supported(name, "1", f"{number:064x}", ModelState.COLD) for number, name in enumerate("abc"))
POOLS = tuple(pool_name("cpu", "local", model) for model in MODELS)


def whole(**changes):
    return presence(**{"supported": MODELS, "pools": POOLS, **changes})


def names(fleet):
    return sorted(model.name for member in fleet.members.values() for model in member.presence.supported)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_parts_of_one_round_add_up_in_any_order_and_count_once(order):
    parts = parts_by_model(whole())
    heard = [(parts[place], None) for place in order]
    fleet, counted = apply_all(Fleet(), [*heard, *heard], 0)
    assert counted == (0, 1, 2)
    assert names(fleet) == ["a", "b", "c"]
    assert sorted(view.name for view in pools(fleet, 1)) == sorted(POOLS)
    assert fleet.served == dict.fromkeys(POOLS, 1)
    one_by_one = Fleet()
    for part, _ in heard:
        one_by_one = apply(one_by_one, part, 0)
    assert one_by_one.members == fleet.members
    assert apply_all(fleet, heard, 1) == (fleet, ())


def test_a_newer_part_renews_the_life_and_keeps_what_the_others_said():
    fleet = apply_all(Fleet(), [(part, None) for part in parts_by_model(whole())], 0)[0]
    warm = tuple(Supported(one.name, "1", one.digest, ModelState.WARM) for one in MODELS)
    first, second, _ = parts_by_model(whole(sequence=2, supported=warm))
    fleet = apply(fleet, first, 5_000)
    (member,) = fleet.members.values()
    assert member.expires_at == 20_000
    assert [view.warm for view in pools(fleet, 5_001)] == [True, False, False]
    fleet = apply(fleet, second, 9_000)
    (member,) = fleet.members.values()
    assert member.expires_at == 20_000, "a life is that of the round, and not of its last part"
    assert [view.warm for view in pools(fleet, 9_001)] == [True, True, False]


def test_the_next_run_of_a_process_may_serve_other_models():
    fleet = apply_all(Fleet(), [(part, None) for part in parts_by_model(whole())], 0)[0]
    (part,) = parts_by_model(whole(boot=2, supported=MODELS[1:2], pools=POOLS[1:2]))
    assert names(apply(fleet, part, 1)) == ["b"]


def test_a_pool_that_it_draws_from_no_longer_is_taken_out():
    fleet = apply_all(Fleet(), [(part, None) for part in parts_by_model(whole())], 0)[0]
    first, *_ = parts_by_model(whole(sequence=2, pools=POOLS[1:]))
    assert sorted(view.name for view in pools(apply(fleet, first, 1), 2)) == sorted(POOLS[1:])


def test_a_goodbye_on_one_topic_is_one_for_all():
    fleet = apply_all(Fleet(), [(part, None) for part in parts_by_model(whole())], 0)[0]
    goodbye, later, _ = parts_by_model(whole(sequence=2, state=WorkerState.STOPPED))
    fleet = apply(apply(fleet, goodbye, 1), later, 1)
    assert not fleet.members
    assert not fleet.served


def test_a_whole_announcement_of_the_same_round_tells_what_is_missing_and_a_part_adds_nothing_to_it():
    part, *_ = parts_by_model(whole())
    fleet = apply(apply(Fleet(), part, 0), whole(), 1)
    assert names(fleet) == ["a", "b", "c"]
    assert apply(fleet, part, 2) is fleet
    assert apply(apply(Fleet(), whole(), 0), part, 1) == apply(Fleet(), whole(), 0)


def test_parts_of_different_workers_do_not_mix():
    mine, *_ = parts_by_model(whole())
    _, other, _ = parts_by_model(presence(OTHER_KEY, supported=MODELS, pools=POOLS))
    fleet = apply_all(Fleet(), [(mine, None), (other, None)], 0)[0]
    told = {worker: member.presence.supported for worker, member in fleet.members.items()}
    assert told == {mine.worker_id: MODELS[:1], other.worker_id: MODELS[1:2]}
