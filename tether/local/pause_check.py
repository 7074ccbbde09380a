"""The check of `tether doctor` of pools that are paused: their jobs wait until somebody resumes them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tether.errors import StoreError
from tether.ids import PoolName
from tether.local.doctor import Check, CheckStatus
from tether.store import Store
from tether.store.addresses import database_url
from tether.store.pool_pauses import PoolPause, pool_pauses

NAME = "paused pools"

MAX_TOLD = 3
"""Pools that are named."""


def check_pauses(pauses: Mapping[PoolName, PoolPause] | None) -> Check:
    """Check that no pool is paused, or tell which are.

    Args:
      pauses: By pool; None where they are not known.
    """
    if pauses is None:
        return Check(NAME, CheckStatus.OK, "not known: the database cannot be asked")
    if not pauses:
        return Check(NAME, CheckStatus.OK, "none")
    told = [f"pool {pool} {pause.in_words}" for pool, pause in sorted(pauses.items())]
    if len(told) > MAX_TOLD:
        told[MAX_TOLD:] = [f"and {len(told) - MAX_TOLD} more"]
    return Check(
        NAME,
        CheckStatus.WARN,
        f"{'; '.join(told)}: jobs that wait there are not begun",
        "tether pools resume POOL",
    )


def pauses_at(url: str) -> Mapping[PoolName, PoolPause] | None:
    """The pauses in this database; None where it cannot be asked."""
    file = database_url(url).database
    if url.startswith("sqlite") and not (file and os.path.exists(file)):
        return {}
    try:
        with Store(url).open(migrate=False) as store:
            return store.read(pool_pauses)
    except StoreError:
        return None
