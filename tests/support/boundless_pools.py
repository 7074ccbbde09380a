"""Schedulers of tests whose pools take any number of jobs."""

from tether.scheduling.kept_decisions import ChosenPools
from tether.store.capacity import Claim

PLENTY = 10_000


class BoundlessPools:
    """What the loop of waiting jobs asks of a scheduler about room."""

    def read_depths(self):
        pass

    def room_for(self, kept):
        return PLENTY

    def rooms_of_tenants(self, kept, tenants, priority):
        return dict.fromkeys(tenants, PLENTY)


def choice_of(pool):
    """A choice as the scheduler makes it, of one pool or none."""
    return ChosenPools(() if pool is None else (Claim(pool),))
