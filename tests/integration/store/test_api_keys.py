"""API keys and tenants in both databases."""

import dataclasses
import secrets

import pytest

from support.databases import NOW
from tether.errors import InvalidRequest, StoreError, Unauthenticated
from tether.gateway.keys.api_keys import Scope, digest_of, make_key
from tether.gateway.keys.key_ring import KeyRing
from tether.store import Store
from tether.store.api_keys import add_key, key_by_digest, keys_of, revoke_key, revoked_among
from tether.store.migrations import downgrade, upgrade
from tether.store.tenants import Tenant, change_tenant, check_tenant, create_tenant, tenant


def new_key(tenant_id="default", scopes=(Scope.SUBMIT, Scope.READ), created_at=NOW, **options):
    return make_key(tenant_id, scopes, now_ms=created_at, randomness=secrets.token_bytes, **options)


def add(store, kept):
    store.write_alone(add_key, kept).result()


def revoke(store, key_id, tenant_id=None, now_ms=NOW):
    return store.write_alone(revoke_key, key_id, tenant_id, now_ms).result()


def add_tenant(store, tenant_id):
    assert store.write_alone(create_tenant, Tenant(tenant_id, tenant_id, 1.0, None, NOW)).result()


def test_a_key_is_found_by_its_digest_as_it_was_added(store):
    key, kept = new_key(name="for the nightly run, ä")
    add(store, kept)
    assert store.read(key_by_digest, digest_of(key)) == kept
    assert store.read(key_by_digest, digest_of(key + "x")) is None


def test_keys_are_listed_by_tenant_and_age(store):
    add_tenant(store, "other")
    late, early, others = (
        new_key(created_at=NOW + 5)[1],
        new_key(created_at=NOW)[1],
        new_key("other", created_at=NOW + 1)[1],
    )
    for kept in (late, early, others):
        add(store, kept)
    assert store.read(keys_of, "default") == [early, late]
    assert store.read(keys_of, "other") == [others]
    assert store.read(keys_of, None) == [early, others, late]
    assert store.read(keys_of, "nobody") == []


def test_revoking_a_key_twice_keeps_the_first_time(store):
    kept = new_key()[1]
    add(store, kept)
    revoked = dataclasses.replace(kept, revoked_at=NOW + 7)
    assert revoke(store, kept.key_id, now_ms=NOW + 7) == revoked
    assert revoke(store, kept.key_id, "default", now_ms=NOW + 9) == revoked
    assert store.read(key_by_digest, kept.digest) == revoked


def test_a_key_of_another_tenant_cannot_be_revoked_and_is_as_one_that_is_not_there(store):
    add_tenant(store, "other")
    kept = new_key("other")[1]
    add(store, kept)
    assert revoke(store, kept.key_id, "default") is None
    assert revoke(store, "key_gone") is None
    assert store.read(key_by_digest, kept.digest).revoked_at is None


def test_keys_that_are_good_no_longer_are_told_apart(store):
    good, bad = new_key()[1], new_key()[1]
    add(store, good)
    add(store, bad)
    revoke(store, bad.key_id)
    asked = {good.key_id, bad.key_id, "key_gone"}
    assert store.read(revoked_among, asked) == {bad.key_id, "key_gone"}
    assert store.read(revoked_among, set()) == set()


def test_a_key_needs_a_tenant_and_digests_are_unique_and_the_refusal_does_not_tell_them(store):
    key, kept = new_key()
    add(store, kept)
    for refused in (new_key("nobody")[1], dataclasses.replace(kept, key_id="key_2")):
        with pytest.raises(StoreError) as caught:
            add(store, refused)
        assert refused.digest not in str(caught.value)
        assert key not in str(caught.value)
    assert store.read(keys_of, None) == [kept]


def test_a_key_ring_knows_a_key_of_the_database_until_it_is_revoked(store):
    now = 0.0
    ring = KeyRing(store, clock=lambda: now)
    key, kept = new_key()
    with pytest.raises(Unauthenticated, match="known"):
        ring.caller(f"Bearer {key}")
    add(store, kept)
    caller = ring.caller(f"Bearer {key}")
    assert (caller.tenant_id, caller.scopes) == ("default", {Scope.SUBMIT, Scope.READ})
    revoke(store, kept.key_id)
    assert ring.revoked({kept.key_id}) == {kept.key_id}
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.caller(f"Bearer {key}")


def test_keys_of_the_first_version_have_no_name_and_outlive_going_down_and_up(database_url):
    kept = new_key(name="lost on the way down")[1]
    with Store(database_url) as store:
        add(store, kept)
    downgrade(database_url, "0001")
    upgrade(database_url)
    with Store(database_url) as store:
        assert store.read(keys_of, None) == [dataclasses.replace(kept, name="")]


def test_a_tenant_is_created_once_and_changed_as_far_as_is_said(store):
    made = Tenant("small", "Small", 2.0, 3, NOW)
    assert store.write_alone(create_tenant, made).result()
    assert not store.write_alone(create_tenant, dataclasses.replace(made, name="Again")).result()
    assert store.read(tenant, "small") == made
    for values in ({"weight": 0.5}, {"quota": None}, {"name": "Little", "quota": 0}, {}):
        made = dataclasses.replace(made, **values)
        assert store.write_alone(change_tenant, "small", values).result() == made
    assert store.read(tenant, "small") == made
    assert store.write_alone(change_tenant, "nobody", {"weight": 2.0}).result() is None


@pytest.mark.parametrize("tenant_id", ["", "A", "-a", "_a", "a b", "a" * 65, "a\n", "ä", "a/b"])
def test_an_id_that_no_tenant_may_have_is_refused(tenant_id):
    with pytest.raises(InvalidRequest, match="cannot be a tenant's id"):
        check_tenant(tenant_id, {})


@pytest.mark.parametrize(
    "values",
    [
        {"weight": 0.0},
        {"weight": -1.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"quota": -1},
        {"quota": 2**31},
        {"name": "a\tb"},
    ],
)
def test_values_that_no_tenant_may_have_are_refused(values):
    check_tenant("a-b_1", {"weight": 1_000, "quota": 0, "name": "A b"})
    with pytest.raises(InvalidRequest, match=next(iter(values))):
        check_tenant("a", values)
