"""The network between two hosts is cut: each side goes on by itself, and both find together again."""

import pytest

from support.network_namespaces import Wire
from support.swarm import BootstrapNode, Network
from support.waiting import PATIENCE_SECONDS, eventually


@pytest.fixture
def wire():
    with Wire() as wire:
        yield wire


def members_on(network, host, *names):
    return [network.member(name, prefix=host.prefix, host=host.address) for name in names]


def see_each_other(*members):
    for member in members:
        member.sees(*(other for other in members if other is not member))


def wait_until_connections_are_given_up(*members):
    for member in members:
        eventually(
            lambda member=member: len(member.status()["peers"]) == 1,
            PATIENCE_SECONDS,
            "only one is connected to it",
        )


def test_two_hosts_lose_each_other_and_find_together_again_without_restarts(wire, tmp_path):
    left, right = wire.host(), wire.host()
    with (
        BootstrapNode(wire.middle.address, wire.middle.prefix) as bootstrap,
        Network(tmp_path, bootstrap.address) as network,
    ):
        here = members_on(network, left, "here-1", "here-2")
        there = members_on(network, right, "there-1", "there-2")
        see_each_other(*here, *there)
        lives = {worker: told[0] for worker, told in here[0].fleet.items()}
        for until_given_up in (False, True):
            wire.cut(right)
            see_each_other(*here)
            see_each_other(*there)
            if until_given_up:
                wait_until_connections_are_given_up(*here, *there)
            wire.mend(right)
            see_each_other(*here, *there)
        assert {worker: told[0] for worker, told in here[0].fleet.items()} == lives
        assert all(member.process.poll() is None for member in (*here, *there))


def test_a_host_that_is_cut_off_from_the_start_is_found_when_it_can_be_reached(wire, tmp_path):
    left, right = wire.host(), wire.host()
    wire.cut(right)
    with (
        BootstrapNode(wire.middle.address, wire.middle.prefix) as bootstrap,
        Network(tmp_path, bootstrap.address) as network,
    ):
        here = members_on(network, left, "here-1", "here-2")
        there = members_on(network, right, "there")
        see_each_other(*here)
        there[0].sidecar()
        assert not there[0].fleet
        wire.mend(right)
        see_each_other(*here, *there)
