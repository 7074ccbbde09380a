"""Where a tenant's policy lets its jobs run; and what a process knows of policies."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.waiting import join
from tether.discovery.fleet.pool_views import PoolView
from tether.errors import StoreUnavailable
from tether.models.registry import ModelVersion
from tether.policies.document import NO_POLICY, Policy
from tether.policies.kept import UnreadablePolicy
from tether.scheduling import known_policies
from tether.scheduling.affinity import choose
from tether.scheduling.filters import PlacementRequest, Unfit
from tether.scheduling.known_policies import KnownPolicies
from tether.scheduling.placement_requests import why_unplaced
from tether.store.policies import PolicyRevision, PolicyRow, policy_of, policy_revisions

DIGEST = "d" * 64
MODEL = ModelVersion(name="demo", version="1", digest=DIGEST, context=64)


def pool(region="eu", gpu_class="h100", version="1", **changes):
    return PoolView(
        **{
            "name": f"gpu.{gpu_class}.{region}.demo-{version}",
            "model": "demo",
            "version": version,
            "digest": DIGEST if version == "1" else "e" * 64,
            "gpu_class": gpu_class,
            "region": region,
            "workers": 1,
            "slots": 1,
            **changes,
        }
    )


POOLS = [pool(*place) for place in (("eu",), ("us",), ("us", "cpu"), ("eu", "cpu"), ("eu", "h100", "2"))]


def decided(policy, pools=POOLS, **changes):
    return choose(PlacementRequest(model=MODEL, policy=policy, **changes), pools, {})


@given(
    st.builds(
        Policy,
        models=st.none() | st.lists(st.sampled_from(["demo@1", "demo@2", "other"])).map(tuple),
        regions=st.none() | st.lists(st.sampled_from(["eu", "us", "asia"]), min_size=1).map(tuple),
        gpu_classes=st.none() | st.lists(st.sampled_from(["h100", "cpu"]), min_size=1).map(tuple),
    ),
    st.sampled_from([None, *(each.name for each in POOLS)]),
    st.sampled_from([None, *(each.name for each in POOLS)]),
    st.booleans(),
)
def test_no_pool_is_able_that_the_policy_forbids(policy, avoid, moved_to, any_version):
    decision = decided(policy, avoid=avoid, moved_to=moved_to, any_version=any_version)
    views = {each.name: each for each in POOLS}
    for row in decision.table:
        if row.exclusion is None:
            view = views[row.pool]
            assert policy.regions is None or view.region in policy.regions
            assert policy.gpu_classes is None or view.gpu_class in policy.gpu_classes
            assert policy.models is None or f"demo@{view.version}" in policy.models


def test_a_pool_that_is_not_allowed_says_so_wherever_the_choice_is_told():
    decision = decided(Policy(regions=("eu",)), [pool("us")])
    (row,) = decision.table
    assert row.exclusion.unfit is Unfit.POLICY
    words = "is not allowed by the policy of the tenant: region us is not among those that it allows (eu)"
    assert row.exclusion.words == words
    assert why_unplaced(decision) == (
        f"no pool meets what the job asks for and its tenant may use: pool gpu.h100.us.demo-1 {words}"
    )


def test_nothing_is_placed_where_the_policy_cannot_be_read():
    decision = decided(UnreadablePolicy(2, "it is no text"))
    assert decision.pool is None
    assert "version 2 cannot be read: it is no text" in why_unplaced(decision)


class PolicyStore:
    """A store with policies, which counts what is read."""

    def __init__(self):
        self.rows = []
        self.looks = 0
        self.documents = 0
        self.is_away = False

    def set(self, tenant, document="{}"):
        version = 1 + sum(row.tenant_id == tenant for row in self.rows)
        self.rows.append(PolicyRow(tenant, version, document, 0, "key_1"))

    def read(self, query, *args):
        if self.is_away:
            raise StoreUnavailable("away")
        if query is policy_revisions:
            self.looks += 1
            after, limit = args
            found = [PolicyRevision(row[0], row[1], place) for place, row in enumerate(self.rows, 1)]
            return found[after : after + limit]
        assert query is policy_of
        self.documents += 1
        return next(row for row in self.rows if (row.tenant_id, row.version) == args)


@pytest.fixture
def kept():
    return PolicyStore()


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def known(kept, now):
    return KnownPolicies(kept, lambda: now[0])


def test_a_policy_of_no_tenant_that_can_be_read_keeps_no_other_from_being_known(known, kept):
    kept.set(None)
    kept.set("acme", '{"regions":["eu"]}')
    kept.set(None)
    assert known.of_tenant("acme").regions == ("eu",)
    assert known.of_tenant("other") is NO_POLICY


def test_a_change_counts_a_second_later_and_only_that_is_read(known, kept, now):
    kept.set("acme", '{"regions":["eu"]}')
    for _ in range(5):
        assert known.of_tenant("acme").regions == ("eu",)
        assert known.of_tenant("other") is NO_POLICY
    assert (kept.looks, kept.documents) == (1, 1)
    kept.set("acme", '{"regions":["us"]}')
    now[0] += 0.9
    assert known.of_tenant("acme").regions == ("eu",)
    now[0] += 0.2
    assert known.of_tenant("acme").regions == ("us",)
    now[0] += 1.1
    assert known.of_tenant("acme").regions == ("us",)
    assert (kept.looks, kept.documents) == (3, 2)


def test_many_tenants_are_known_by_number_and_few_documents_are_remembered(known, kept, monkeypatch):
    monkeypatch.setattr(known_policies, "MAX_KNOWN_POLICIES", 2)
    monkeypatch.setattr(known_policies, "REVISIONS_PER_READ", 3)
    for number in range(7):
        kept.set(f"t{number}", f'{{"regions":["r{number}"]}}')
    for number in (0, 1, 2, 2, 0):
        assert known.of_tenant(f"t{number}").regions == (f"r{number}",)
    assert kept.looks == 3
    assert kept.documents == 4


def test_what_is_at_hand_needs_no_database(known, kept, now):
    kept.set("acme")
    assert known.at_hand("acme") is None
    known.of_tenant("other")
    assert known.at_hand("acme") is None
    assert known.at_hand("other") is NO_POLICY
    policy = known.of_tenant("acme")
    kept.is_away = True
    assert known.at_hand("acme") is policy
    now[0] += 2
    assert known.at_hand("acme") is None


def test_nobody_is_let_in_while_policies_are_not_known(known, kept, now):
    kept.is_away = True
    with pytest.raises(StoreUnavailable):
        known.of_tenant("acme")
    kept.is_away = False
    kept.set("acme", "damaged")
    assert isinstance(known.of_tenant("acme"), UnreadablePolicy)
    assert known.of_tenant("other") is NO_POLICY


def test_one_looks_while_the_others_go_by_what_is_known(known, kept, now):
    kept.set("acme", '{"regions":["eu"]}')
    known.of_tenant("acme")
    now[0] += 1
    begun, may_end = threading.Event(), threading.Event()
    read = kept.read

    def slow(query, *args):
        if query is policy_revisions:
            begun.set()
            assert may_end.wait(60)
        return read(query, *args)

    kept.read = slow
    thread = threading.Thread(target=known.of_tenant, args=("acme",))
    thread.start()
    assert begun.wait(60)
    assert known.of_tenant("acme").regions == ("eu",)
    kept.set("acme", '{"regions":["us"]}')
    now[0] += 1
    found = []
    late = threading.Thread(target=lambda: found.append(known.of_tenant("acme")))
    late.start()
    assert not found, "what is known is too old by now: it waits"
    may_end.set()
    join(thread)
    join(late)
    assert found[0].regions == ("us",)
    assert known.at_hand("acme") is not None
