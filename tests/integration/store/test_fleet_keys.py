"""The keys of workers in both databases: enrolled, revoked, and what changes with them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from support.databases import NOW
from support.presences import KEY, OTHER_KEY, public
from tether.discovery.announcements.presence import worker_id
from tether.discovery.trust.trusted_keys import TrustSnapshot
from tether.store import Store
from tether.store.fleet_keys import (
    FleetKey,
    StoreEnrolment,
    all_fleet_keys,
    current_trust,
    enrol,
    enrol_new,
    revoke,
    trust_version,
)
from tether.store.migrations import downgrade, upgrade
from tether.store.schema import core, fleet_keys

ONE, TWO = public(KEY), public(OTHER_KEY)


def do(store, function, *arguments, **options):
    return store.write_alone(function, *arguments, **options).result()


def test_an_enrolled_key_is_kept_as_it_was_given_and_a_second_time_changes_nothing(store):
    kept = FleetKey(ONE, worker_id(ONE), "big box, ä", NOW)
    assert do(store, enrol, ONE, "big box, ä", NOW) == kept
    version = store.read(trust_version)
    for name in ("big box, ä", None):
        assert do(store, enrol, ONE, name, NOW + 5) == kept
    assert (store.read(all_fleet_keys), store.read(trust_version)) == ([kept], version)
    assert store.read(current_trust) == TrustSnapshot({ONE: "big box, ä"}, frozenset(), version)


def test_a_name_is_changed_where_one_is_given(store):
    do(store, enrol, ONE, "old", NOW)
    version = store.read(trust_version)
    assert do(store, enrol, ONE, "new", NOW + 5).name == "new"
    assert store.read(trust_version) > version


def test_a_revoked_key_stays_revoked_until_that_is_lifted(store):
    do(store, enrol, ONE, "one", NOW)
    revoked = do(store, revoke, ONE, NOW + 1)
    assert revoked == FleetKey(ONE, worker_id(ONE), "one", NOW, NOW + 1)
    version = store.read(trust_version)
    assert do(store, revoke, ONE, NOW + 2) == revoked
    assert do(store, enrol, ONE, "other", NOW + 3) == revoked
    assert do(store, enrol_new, {ONE: "other"}, NOW + 3) == 0
    assert store.read(current_trust) == TrustSnapshot({}, frozenset({worker_id(ONE)}), version)
    assert do(store, enrol, ONE, None, NOW + 4, lifts_revocation=True).revoked_at is None
    assert store.read(current_trust).enrolled == {ONE: "one"}
    assert store.read(trust_version) > version


def test_a_key_that_nobody_enrolled_can_be_revoked(store):
    assert do(store, revoke, ONE, NOW) == FleetKey(ONE, worker_id(ONE), "", NOW, NOW)
    assert store.read(current_trust).revoked == {worker_id(ONE)}


def test_only_keys_that_nobody_has_said_anything_of_are_new(store):
    do(store, enrol, ONE, "mine", NOW)
    assert do(store, enrol_new, {ONE: "worker-1", TWO: "worker-2"}, NOW) == 1
    assert store.read(current_trust).enrolled == {ONE: "mine", TWO: "worker-2"}
    version = store.read(trust_version)
    assert do(store, enrol_new, {ONE: "worker-1", TWO: "worker-2"}, NOW + 9) == 0
    assert store.read(trust_version) == version


def test_a_look_answers_the_same_object_until_something_changes_and_nothing_while_the_database_is_away(
    database_url,
):
    with Store(database_url) as store:
        enrolment = StoreEnrolment(store)
        do(store, enrol, ONE, "", NOW)
        seen = enrolment.look()
        assert seen.enrolled.keys() == {ONE}
        assert enrolment.look() is seen
        do(store, revoke, ONE, NOW)
        assert enrolment.look().revoked == {worker_id(ONE)}
    assert enrolment.look() is None


def test_databases_of_the_second_version_get_the_keys_and_lose_them_on_the_way_down(database_url):
    with Store(database_url) as store:
        do(store, enrol, ONE, "", NOW)
    downgrade(database_url, "0002")
    upgrade(database_url)
    with Store(database_url) as store:
        assert store.read(all_fleet_keys) == []


ACTIONS = st.tuples(
    st.sampled_from(("enrol", "lift", "add", "revoke")),
    st.sampled_from((ONE, TWO)),
    st.sampled_from(("", "a", "b")),
)


@pytest.mark.parametrize("steps_back", [0, 1_000])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(actions=st.lists(ACTIONS, max_size=12))
def test_the_version_changes_exactly_when_the_keys_do(store, actions, steps_back):
    """However clocks differ: the version grows also where the time given goes back."""

    def clear(connection):
        connection.execute(delete(fleet_keys))
        connection.execute(delete(core))

    do(store, clear)
    known, before = {}, store.read(current_trust)
    for number, (action, key, name) in enumerate(actions):
        now = NOW - number * steps_back
        if action in ("enrol", "lift"):
            do(store, enrol, key, name, now, lifts_revocation=action == "lift")
            if action == "lift" or known.get(key, ("", True))[1]:
                known[key] = (name, True)
        elif action == "add":
            do(store, enrol_new, {key: name}, now)
            known.setdefault(key, (name, True))
        else:
            do(store, revoke, key, now)
            known[key] = (known.get(key, ("", True))[0], False)
        after = store.read(current_trust)
        assert after.enrolled == {key: name for key, (name, counts) in known.items() if counts}
        assert after.revoked == {worker_id(key) for key, (_, counts) in known.items() if not counts}
        is_same = (after.enrolled, after.revoked) == (before.enrolled, before.revoked)
        assert (after.version == before.version) if is_same else (after.version > before.version)
        before = after
