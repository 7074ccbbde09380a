"""Whose a key is, by its name: of every name that keys.py makes."""

import pytest

from tether.broker.keys import Keys
from tether.broker.pools.key_owners import KeyKind, OwnedKey, owned_key

POOL = "gpu.cpu.local.model-12345678"


@pytest.mark.parametrize("keys", [Keys("tether"), Keys("tether", hash_tag=False)], ids=["tag", "no_tag"])
def test_names_of_keys_are_read_as_they_are_made(keys):
    made = {
        keys.job("a"): (KeyKind.JOB, b"a"),
        keys.stream("a"): (KeyKind.STREAM, b"a"),
        keys.pool_tenants(POOL, "batch"): (KeyKind.TENANTS, POOL.encode(), b"batch"),
        keys.pool_jobs(POOL, "batch", "a:b"): (KeyKind.LIST, POOL.encode(), b"batch", b"a:b"),
        keys.pool_jobs(POOL, "alone.batch", "a b"): (KeyKind.LIST, POOL.encode(), b"alone.batch", b"a b"),
        keys.pool_tenants(POOL, "alone.standard"): (KeyKind.TENANTS, POOL.encode(), b"alone.standard"),
        f"{keys.prefix}:pool:{POOL}:idle": (KeyKind.IDLE, POOL.encode()),
        f"{keys.prefix}:served:{POOL}:standard": (KeyKind.SERVED, POOL.encode(), b"standard"),
        f"{keys.prefix}:drawn:w.1": (KeyKind.DRAWN, b"w.1"),
    }
    for name, (kind, *owner) in made.items():
        assert owned_key(keys.prefix, name.encode()) == OwnedKey(kind, name.encode(), tuple(owner))


def test_other_keys_have_none_of_these_owners():
    keys = Keys("tether")
    others = [keys.leases, keys.outcomes, keys.wake("w.1"), keys.hub("x"), keys.inbox("w"), keys.heartbeats]
    others += [keys.job(""), f"{keys.prefix}:pool:x", f"{keys.prefix}:pool:x:odd:t", f"{keys.prefix}:queue"]
    others += [f"{keys.prefix}:served:x", f"{keys.prefix}:served:x:odd", Keys("other").job("a"), "tether"]
    others += [f"{keys.prefix}:served:x:batch:t"]
    for name in others:
        assert owned_key(keys.prefix, name.encode()) is None, name
