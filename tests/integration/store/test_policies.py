"""Policies are kept with all their versions, with both databases."""

import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from support.databases import NOW, make_tenants
from support.waiting import join
from tether.errors import PolicyConflict, StoreError, TenantNotFound
from tether.store import Store
from tether.store.policies import PolicyRow, policy_of, policy_revisions, set_policy


@pytest.fixture(autouse=True)
def acme(store):
    make_tenants(store, "acme", "other")


def put(store, document="{}", tenant="acme", if_version=None, now_ms=NOW):
    return store.write_alone(set_policy, tenant, document, "key_1", now_ms, if_version).result(60)


def test_each_version_is_kept_and_the_newest_counts(store):
    assert store.read(policy_of, "acme") is None
    first = put(store, '{"models":["é"]}')
    assert first == PolicyRow("acme", 1, '{"models":["é"]}', NOW, "key_1")
    second = put(store, now_ms=NOW + 1)
    put(store, '{"regions":["eu"]}', "other")
    assert store.read(policy_of, "acme") == second
    assert store.read(policy_of, "acme", 1) == first
    assert store.read(policy_of, "acme", 3) is None
    assert store.read(policy_of, "other").version == 1


def test_what_was_set_since_is_read_in_order_and_in_parts(store):
    for tenant in ("acme", "other", "acme"):
        put(store, tenant=tenant)
    assert store.read(policy_revisions, 0, 10) == [("acme", 1, 1), ("other", 1, 2), ("acme", 2, 3)]
    assert store.read(policy_revisions, 1, 1) == [("other", 1, 2)]
    assert store.read(policy_revisions, 3, 10) == []


def test_a_policy_is_replaced_only_where_it_is_what_was_expected(store):
    assert isinstance(put(store, if_version=1), PolicyConflict)
    assert put(store, if_version=0).version == 1
    assert isinstance(put(store, if_version=0), PolicyConflict)
    assert put(store, if_version=1).version == 2
    assert len(store.read(policy_revisions, 0, 10)) == 2


def test_who_is_no_tenant_has_no_policy(store):
    assert isinstance(put(store, tenant="nobody"), TenantNotFound)
    assert store.read(policy_revisions, 0, 10) == []


def test_two_that_set_at_once_both_have_a_version_and_a_revision_of_their_own(database_url, store):
    with Store(database_url) as another:
        barrier, found = threading.Barrier(2), []

        def put_some(where, tenant):
            barrier.wait(60)
            found.extend(put(where, tenant=tenant).version for _ in range(10))

        threads = [
            threading.Thread(target=put_some, args=args) for args in ((store, "acme"), (another, "acme"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            join(thread)
    assert sorted(found) == list(range(1, 21))
    assert [row.revision for row in store.read(policy_revisions, 0, 100)] == list(range(1, 21))


def test_a_document_that_is_no_text_is_told_as_such(store):
    put(store)
    if "sqlite" not in store.place:
        pytest.skip("Postgres keeps texts only")
    change = text("UPDATE policies SET document = CAST(x'ff' AS TEXT)")
    store.write_alone(lambda connection: connection.execute(change) and None).result(60)
    assert store.read(policy_of, "acme").document is None


@pytest.mark.parametrize("column", ["version", "revision"])
def test_versions_are_numbers_in_every_database(store, column):
    put(store)
    change = text(f"UPDATE policies SET {column} = 'x'")
    with pytest.raises((StoreError, SQLAlchemyError)):
        store.write_alone(lambda connection: connection.execute(change) and None).result(60)
