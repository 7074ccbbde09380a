"""The bound of a pool: how many jobs it takes, and how many of one tenant. Pure.

What a pool takes is bound to it; the rest waits in the database, and goes where there is room first. Only the
transaction that claims knows what is held, so it decides.
"""

from __future__ import annotations

from typing import NamedTuple

from tether.ids import PoolName, TenantId

NO_BOUND = 2**31 - 1
"""More jobs than any pool has."""

TENANT_FACTOR = 4
"""A tenant may hold so many times what is left free: alone four fifths of a pool, two of them four ninths
each. So there is always room for one that has nothing there, whatever the others' jobs wait for. These are
dynamic thresholds (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches",
IEEE/ACM Transactions on Networking 6(2), 1998), with a factor of 4."""


class Claim(NamedTuple):
    """A pool that a job is to go to, if that has fewer than ``bound`` jobs."""

    pool: PoolName
    bound: int = NO_BOUND


def has_room(bound: int, held: int, of_tenant: int) -> bool:
    """Whether a pool takes one more job.

    Args:
      held: Jobs that it has.
      of_tenant: Those among them of the tenant whose job it is.
    """
    return of_tenant < TENANT_FACTOR * (bound - held)


def room_of_tenant(bound: int, held: int, of_tenant: int) -> int:
    """How many more jobs of a tenant a pool takes, if nobody else comes."""
    left = TENANT_FACTOR * (bound - held) - of_tenant
    # Each one leaves a place less for all, and is one more of the tenant's.
    return max(0, -(-left // (TENANT_FACTOR + 1)))


def share_name(pool: PoolName, tenant: TenantId) -> str:
    """What a tenant's share of a pool is called among the counters. No pool's name has a space."""
    return f"{pool} {tenant}"
