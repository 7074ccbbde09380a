"""Batches of changes over HTTP: what means everything says so, as at the command line."""

import pytest

from tether.errors import InvalidRequest
from tether.gateway.dead_letters.queries import read_letter_batch
from tether.gateway.job_changes.queries import read_change, read_reprioritisation

DOORS = {
    "cancel": lambda where: read_change({"where": where}).job_filter,
    "reprioritise": lambda where: read_reprioritisation({"where": where, "priority": "batch"}),
    "retry letters": lambda where: read_letter_batch({"where": where}, may_force=True),
    "purge letters": lambda where: read_letter_batch({"where": where}, may_force=False),
}


@pytest.fixture(params=DOORS)
def door(request):
    return DOORS[request.param]


@pytest.mark.parametrize("where", [{}, {"model": None}, {"all": False}, {"all": None, "pool": None}])
def test_a_batch_without_a_filter_is_refused_and_told_how_to_mean_everything(door, where):
    with pytest.raises(InvalidRequest, match=r'say \{"where": \{"all": true\}\}'):
        door(where)


def test_everything_is_meant_by_all(door):
    assert door({"all": True}) != door({"model": "x"}) == door({"model": "x", "all": False})


@pytest.mark.parametrize("where", [{"all": True, "model": "x"}, {"all": 1}, {"all": "true"}])
def test_all_is_true_and_stands_alone(door, where):
    with pytest.raises(InvalidRequest, match="all"):
        door(where)


def test_lists_without_a_state_or_label_choose_nothing():
    for where in ({"state": []}, {"labels": {}}):
        with pytest.raises(InvalidRequest, match='"where" has no filter'):
            DOORS["cancel"](where)
