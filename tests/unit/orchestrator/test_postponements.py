"""When jobs that no pool can serve are looked at again: few of a tenant soon, many at a steady rate."""

import itertools

from tether.orchestrator import postponements
from tether.orchestrator.postponements import (
    AT_ONCE,
    GAP_MS,
    MAX_POSTPONED_MS,
    POSTPONED_MS,
    RECALL_MS,
    Postponements,
)
from tether.store.waiting_jobs import KeptModel

NOW = 1_800_000_000_000
DEMO = KeptModel("demo", "1")


def due(postponed, count, tenant="t", now=NOW):
    return [postponed.due_at(DEMO, tenant, now) - now for _ in range(count)]


def test_few_jobs_are_due_together_and_more_follow_one_by_one():
    postponed = Postponements()
    found = due(postponed, AT_ONCE + 3)
    assert found == [POSTPONED_MS] * (AT_ONCE + 1) + [POSTPONED_MS + GAP_MS, POSTPONED_MS + 2 * GAP_MS]
    assert due(postponed, 2, "other") == [POSTPONED_MS] * 2


def test_none_is_due_later_than_a_bound_whatever_the_clock_did():
    postponed = Postponements()
    assert max(due(postponed, 40_000)) == MAX_POSTPONED_MS
    day_ms = 86_400_000
    assert max(due(postponed, 10, now=NOW - day_ms)) <= MAX_POSTPONED_MS
    assert due(postponed, 1, now=NOW + day_ms) == [POSTPONED_MS]


def test_the_rate_is_that_of_all_tenants_together():
    postponed = Postponements()
    for tenant in ("one", "two", "three"):
        due(postponed, 1, tenant)
    found = due(postponed, AT_ONCE + 3, "one")
    assert found[:AT_ONCE] == [POSTPONED_MS] * AT_ONCE
    assert [later - sooner for sooner, later in itertools.pairwise(found[-3:])] == [3 * GAP_MS] * 2


def test_others_of_a_tenant_are_recalled_until_all_are_due_and_not_again_at_once():
    postponed = Postponements()
    assert not list(postponed.recalls(DEMO, ["t"], NOW))
    due(postponed, 5)
    assert list(postponed.recalls(DEMO, ["t", "other"], NOW + 1)) == [("t", NOW + 1)]
    assert list(postponed.recalls(DEMO, ["t"], NOW + 2)) == [("t", NOW + 1)]
    postponed.has_recalled(DEMO, "t", NOW + 3)
    due(postponed, 5, now=NOW + 4)
    assert not list(postponed.recalls(DEMO, ["t"], NOW + 5))
    assert list(postponed.recalls(DEMO, ["t"], NOW + 3 + POSTPONED_MS)) == [("t", NOW + 3 + POSTPONED_MS)]


def test_a_recall_that_never_ends_is_given_up():
    postponed = Postponements()
    due(postponed, 5)
    assert list(postponed.recalls(DEMO, ["t"], NOW))
    assert list(postponed.recalls(DEMO, ["t"], NOW + RECALL_MS))
    assert not list(postponed.recalls(DEMO, ["t"], NOW + RECALL_MS + 1))


def test_tenants_whose_jobs_are_due_are_forgotten(monkeypatch):
    monkeypatch.setattr(postponements, "MAX_POSTPONED_TENANTS", 50)
    postponed = Postponements()
    for number in range(200):
        due(postponed, 1, str(number))
    assert len(postponed._spreads) == 50
    due(postponed, 1, "last", NOW + MAX_POSTPONED_MS)
    assert len(postponed._spreads) == 1
