"""Who asks: what the key ring remembers, for how long, and what it says to those whom it turns away."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.waiting import join
from tether.errors import Forbidden, StoreUnavailable, TetherError, Unauthenticated
from tether.gateway.keys.api_keys import TENANT_SCOPES, Scope, make_key
from tether.gateway.keys.key_ring import FRESH_SECONDS, STALE_SECONDS, Caller, KeyRing
from tether.store.api_keys import key_by_digest, revoked_among


class FewKeys:
    """A store that has a few keys, and can be away."""

    def __init__(self):
        self.keys, self.reads, self.is_away = {}, 0, False
        self.before_answer = lambda: None

    def read(self, function, argument):
        self.reads += 1
        if self.is_away:
            raise StoreUnavailable("the database is away")
        if function is key_by_digest:
            found = self.keys.get(argument)
            self.before_answer()
            return found
        assert function is revoked_among
        good = {kept.key_id for kept in self.keys.values() if kept.revoked_at is None}
        return set(argument) - good

    def add(self, number=1, scopes=(Scope.SUBMIT,)):
        key, kept = make_key(
            "default", scopes, now_ms=1, randomness=lambda count: number.to_bytes(4, "big") * (count // 4)
        )
        self.keys[kept.digest] = kept
        return key, kept

    def revoke(self, kept):
        self.keys[kept.digest] = type(kept)(**{**vars(kept), "revoked_at": 9})


class Rig:
    def __init__(self, **options):
        self.now = 100.0
        self.store = FewKeys()
        self.ring = KeyRing(self.store, clock=lambda: self.now, **options)


@pytest.fixture
def rig():
    return Rig()


def bearer(key):
    return f"Bearer {key}"


def test_a_key_is_looked_up_once_while_it_is_fresh(rig):
    key, kept = rig.store.add()
    assert rig.ring.cached(bearer(key)) is None
    caller = rig.ring.caller(bearer(key))
    assert caller == Caller("default", kept.key_id, frozenset({Scope.SUBMIT}))
    rig.now += FRESH_SECONDS - 0.01
    assert rig.ring.cached(f"bearer  {key} ") == caller
    assert rig.store.reads == 1
    rig.now += 0.01
    assert rig.ring.cached(bearer(key)) is None


def test_a_revoked_key_is_turned_away_once_it_is_fresh_no_longer(rig):
    key, kept = rig.store.add()
    rig.ring.caller(bearer(key))
    rig.store.revoke(kept)
    assert rig.ring.cached(bearer(key)) is not None
    rig.now += FRESH_SECONDS
    assert rig.ring.cached(bearer(key)) is None
    with pytest.raises(Unauthenticated, match=f"{kept.key_id} was revoked"):
        rig.ring.caller(bearer(key))
    # Not even an outage makes it good again.
    rig.store.is_away = True
    with pytest.raises(StoreUnavailable):
        rig.ring.caller(bearer(key))


def test_an_answer_is_as_old_as_its_question(rig):
    key, _ = rig.store.add()

    def take_long():
        rig.now += FRESH_SECONDS

    rig.store.before_answer = take_long
    assert rig.ring.caller(bearer(key)).tenant_id == "default"
    assert rig.ring.cached(bearer(key)) is None


def test_a_key_that_was_found_lately_counts_while_the_database_is_away(rig):
    key, _ = rig.store.add(1)
    stranger, _ = rig.store.add(2)
    caller = rig.ring.caller(bearer(key))
    rig.store.is_away = True
    rig.now += STALE_SECONDS - 0.01
    assert rig.ring.cached(bearer(key)) is None
    assert rig.ring.caller(bearer(key)) == caller
    with pytest.raises(StoreUnavailable):
        rig.ring.caller(bearer(stranger))
    rig.now += 0.01
    with pytest.raises(StoreUnavailable):
        rig.ring.caller(bearer(key))


def test_a_key_that_is_not_known_is_not_remembered(rig):
    key, kept = rig.store.add()
    del rig.store.keys[kept.digest]
    with pytest.raises(Unauthenticated, match="known"):
        rig.ring.caller(bearer(key))
    rig.store.keys[kept.digest] = kept
    assert rig.ring.caller(bearer(key)).key_id == kept.key_id


def test_the_key_that_was_not_used_for_the_longest_time_is_forgotten_first():
    rig = Rig(max_keys=2)
    first, second, third = (bearer(rig.store.add(number)[0]) for number in (1, 2, 3))
    rig.ring.caller(first)
    rig.ring.caller(second)
    assert rig.ring.cached(first)
    rig.ring.caller(third)
    assert [rig.ring.cached(header) is not None for header in (first, second, third)] == [True, False, True]


def test_open_streams_ask_afresh_whose_keys_are_good_no_longer(rig):
    key, kept = rig.store.add(1)
    _, other = rig.store.add(2)
    rig.ring.caller(bearer(key))
    rig.store.revoke(kept)
    assert rig.ring.revoked({kept.key_id, other.key_id, "key_gone"}) == {kept.key_id, "key_gone"}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (None, "missing API key"),
        ("", "missing API key"),
        ("Basic dXNlcjpodW50ZXIy", "does not use the scheme Bearer"),
        ("Bearer", "does not use the scheme Bearer"),
        ("Bearer sk-proj-hunter2hunter2", "malformed API key"),
        ("Bearer tk_hunter2", "malformed API key"),
    ],
)
def test_what_is_no_key_is_turned_away_without_asking_the_database(rig, header, says):
    for ask in (rig.ring.caller, rig.ring.cached):
        with pytest.raises(Unauthenticated, match=says) as caught:
            ask(header)
        assert "tether keys create" in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "dXNlcjp" not in str(caught.value)
    assert rig.store.reads == 0


def test_a_scope_that_is_missing_is_named_and_admin_has_all_of_a_tenant(rig):
    key, kept = rig.store.add(scopes=(Scope.READ,))
    caller = rig.ring.caller(bearer(key))
    caller.require(Scope.READ)
    with pytest.raises(Forbidden, match=f"{kept.key_id} lacks the scope 'submit'"):
        caller.require(Scope.SUBMIT)
    with pytest.raises(Forbidden):
        caller.require(Scope.ADMIN)
    admin = Caller("default", "key_1", frozenset({Scope.ADMIN}))
    for scope in TENANT_SCOPES:
        admin.require(scope)
    with pytest.raises(Forbidden, match="lacks the scope 'operator'"):
        admin.require(Scope.OPERATOR)
    operator = Caller("default", "key_1", frozenset({Scope.OPERATOR}))
    operator.require(Scope.OPERATOR)
    for scope in TENANT_SCOPES:
        with pytest.raises(Forbidden):
            operator.require(scope)


def test_a_scope_of_a_newer_version_is_good_for_nothing(rig):
    key, kept = rig.store.add()
    rig.store.keys[kept.digest] = type(kept)(**{**vars(kept), "scopes": ("novel", "read")})
    assert rig.ring.caller(bearer(key)).scopes == {Scope.READ}


def test_many_threads_may_ask_at_once():
    rig = Rig(max_keys=5)
    headers = [bearer(rig.store.add(number)[0]) for number in range(20)]
    wrong, barrier = [], threading.Barrier(4)

    def ask():
        barrier.wait(60)
        try:
            for header in headers * 50:
                rig.now += 0.001
                if (rig.ring.cached(header) or rig.ring.caller(header)).tenant_id != "default":
                    wrong.append(header)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, name=f"test-ask-{number}") for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert wrong == []


@given(
    seed=st.binary(min_size=32, max_size=32),
    scheme=st.sampled_from(["Bearer ", "bearer ", "Basic ", "", "Bearer x", "Bearer  "]),
    end=st.sampled_from(["", " ", "x", "\n"]),
    state=st.sampled_from(["known", "unknown", "revoked", "away"]),
)
def test_no_message_and_no_repr_has_the_key(seed, scheme, end, state):
    rig = Rig()
    key, kept = make_key("default", (Scope.READ,), now_ms=1, randomness=lambda count: seed[:count])
    if state != "unknown":
        rig.store.keys[kept.digest] = kept
    if state == "revoked":
        rig.store.revoke(kept)
    rig.store.is_away = state == "away"
    shown = [repr(kept)]
    for ask in (rig.ring.cached, rig.ring.caller):
        try:
            caller = ask(f"{scheme}{key}{end}")
            shown.append(repr(caller))
            if caller:
                shown.append(str(caller.revoked_error()))
                caller.require(Scope.ADMIN)
        except TetherError as error:
            shown += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    shown += [repr(rig.ring), repr(vars(rig.ring))]
    assert all(key not in text and key[3:] not in text for text in shown)
