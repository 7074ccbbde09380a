"""A damaged row of quotas, usage or policies costs itself: other tenants' jobs, reports and sweeps go on."""

import pytest
from sqlalchemy import text

from support.databases import (
    NOW,
    POOL,
    SETTLE,
    fresh_sqlite,
    make_tenants,
    new_job,
    outcome,
    settle_each,
    write,
)
from tether.spending import DAY_MS, Amount, SpendingQuotas, windows_at
from tether.store import Store
from tether.store.admissions import admit
from tether.store.amounts import MAX_AMOUNT
from tether.store.holds import depths, sweep_holds
from tether.store.policies import policy_revisions, set_policy
from tether.store.settlements import Settlement
from tether.store.spending import spending_in
from tether.store.spending_sweeps import prune_spending, sweep_spending
from tether.store.usage import prune_usage, usage_of

NO_UTF_8 = "CAST(x'ff80' AS TEXT)"
QUOTAS = SpendingQuotas(requests_per_day=100, tokens_per_month=10**15)
TODAY = NOW // DAY_MS
LATER = NOW + 80 * DAY_MS
HOLD_OF_0 = "WHERE job_id = 'job-000000'"


def job(number, tenant):
    return new_job(number, tenant_id=tenant, quotas=QUOTAS)


def fill(store):
    """Two jobs of each of two tenants; the second of each has ended."""
    make_tenants(store, "t", "other")
    write(store, admit, job(0, "t"), job(1, "t"), job(2, "other"), job(3, "other"))
    settle_each(store, outcome(1), outcome(3))
    store.write_alone(set_policy, "other", "{}", "key_1", NOW).result()


def execute(store, *statements):
    for sql in map(text, statements):
        store.write_alone(lambda connection, sql=sql: connection.execute(sql) and None).result()


def goes_on(store):
    """All that is done for tenant `other`, each beside the same for `t`. Return what `t` got."""
    admitted = store.write_each(admit, [job(8, "t"), job(9, "other")])
    assert admitted[1].kind == "accepted"
    settled = store.write_each(SETTLE, [Settlement(outcome(number), NOW) for number in (0, 2)])
    assert settled[1].kind == "settled"
    assert store.read(usage_of, TODAY, TODAY, ("other",))[0].jobs == 2
    assert sum(row.jobs for row in store.read(usage_of, TODAY, TODAY) if row.tenant_id == "other") == 2
    assert ("other", 1, 1) in store.read(policy_revisions, 0, 10)
    execute(store, "UPDATE spending SET held_tokens = 7 WHERE tenant_id = 'other'")
    assert store.write_alone(sweep_spending).result() >= 2
    found = store.read(spending_in, windows_at("other", NOW))
    assert [tuple(state) for state in found.values()] == [(Amount(1, 23), Amount(2, 14))] * 2
    settle_each(store, outcome(9))
    assert store.write_alone(prune_spending, LATER, 100).result() >= 2
    assert not any(state.spent.requests for state in store.read(spending_in, list(found)).values())
    assert store.write_alone(prune_usage, LATER, 100).result() >= 2
    return settled[0]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE spending SET held_tokens = 'x', spent_tokens = x'ff' WHERE tenant_id = 't'",
        "UPDATE spending SET held_tokens = 9e999, spent_tokens = 9223372036854775807 WHERE tenant_id = 't'",
        f"INSERT INTO spending VALUES ({NO_UTF_8}, 'day', 5, 1, 1, 0, 0)",
        f"INSERT INTO spending VALUES ({NO_UTF_8}, 'day', 6, 0, 0, 0, 0)",
        "INSERT INTO spending VALUES ('t', 'day', 'first', 1, 1, 0, 0)",
        f"UPDATE spending_holds SET tokens = 'x' {HOLD_OF_0}",
        f"UPDATE spending_holds SET tokens = 9223372036854775807 {HOLD_OF_0}",
        f"UPDATE spending_holds SET tokens = -9223372036854775807 {HOLD_OF_0}",
        f"UPDATE spending_holds SET day = 'x' {HOLD_OF_0}",
        f"UPDATE spending_holds SET month = x'00' {HOLD_OF_0}",
        f"UPDATE spending_holds SET tenant_id = {NO_UTF_8} {HOLD_OF_0}",
        f"INSERT INTO spending_holds VALUES ({NO_UTF_8}, 't', 1, 1, 9223372036854775807, 1)",
        f"INSERT INTO spending_holds VALUES ('a', {NO_UTF_8}, 1, 1, 1, 1)",
        f"INSERT INTO usage VALUES ({NO_UTF_8}, {TODAY}, 'm', 1, 1, 1, 1)",
        f"INSERT INTO usage VALUES (x'ff', {TODAY}, 'm', 1, 1, 1, 1)",
        f"UPDATE usage SET model = {NO_UTF_8} WHERE tenant_id = 't'",
        "UPDATE usage SET jobs = 'x', input_tokens = 9e999, output_tokens = x'00' WHERE tenant_id = 't'",
        "INSERT INTO usage VALUES ('t', 'today', 'm', 1, 1, 1, 1)",
    ],
)
def test_a_damaged_row_keeps_nothing_from_others_and_no_job_from_ending(tmp_path, statement):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as store:
        fill(store)
        execute(store, statement)
        assert goes_on(store).kind == "settled"


def test_a_policy_whose_tenant_is_no_text_is_of_nobody(tmp_path):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as store:
        fill(store)
        execute(
            store,
            f"INSERT INTO tenants SELECT {NO_UTF_8}, name, weight, quota, 1 FROM tenants WHERE name = 't'",
            f"INSERT INTO policies VALUES ({NO_UTF_8}, 1, 7, '{{}}', 1, 'key_1')",
        )
        assert store.read(policy_revisions, 1, 10) == [(None, 1, 7)]
        goes_on(store)


@pytest.mark.parametrize("extreme", [2**63 - 1, -(2**63)])
def test_what_is_counted_stays_within_its_column_and_all_jobs_end(database_url, extreme):
    with Store(database_url) as store:
        fill(store)
        execute(
            store,
            f"UPDATE spending SET held_tokens = {extreme}, spent_tokens = {extreme} WHERE tenant_id = 't'",
            f"UPDATE usage SET jobs = {extreme}, input_tokens = {extreme} WHERE tenant_id = 't'",
            f"UPDATE spending_holds SET tokens = {extreme} {HOLD_OF_0}",
        )
        assert goes_on(store).kind == "settled"


def test_sums_end_at_a_number_that_all_can_read(store):
    fill(store)
    execute(store, f"UPDATE usage SET jobs = {MAX_AMOUNT} WHERE tenant_id = 't'")
    settle_each(store, outcome(0))
    assert store.read(usage_of, TODAY, TODAY, ("t",))[0].jobs == MAX_AMOUNT


@pytest.mark.parametrize(
    "statement",
    [
        *[
            f"INSERT INTO counters VALUES ('{kind}', {NO_UTF_8}, 3)"
            for kind in ("capacity", "quota", "share")
        ],
        f"INSERT INTO counters VALUES ({NO_UTF_8}, 'x', 3)",
        "UPDATE counters SET held = 'x'",
        f"UPDATE holds SET name = {NO_UTF_8} {HOLD_OF_0}",
        f"UPDATE holds SET tenant_id = {NO_UTF_8} {HOLD_OF_0}",
        f"UPDATE holds SET amount = 'x' {HOLD_OF_0}",
        f"UPDATE holds SET amount = x'ff' {HOLD_OF_0}",
        f"UPDATE holds SET amount = 9223372036854775807 {HOLD_OF_0}",
        f"UPDATE holds SET job_id = {NO_UTF_8} {HOLD_OF_0}",
        f"INSERT INTO holds VALUES ('a', 'capacity', {NO_UTF_8}, 1, 1, 1, 't')",
    ],
)
def test_a_damaged_hold_or_counter_keeps_no_job_from_ending_and_is_swept_past(tmp_path, statement):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as store:
        fill(store)
        execute(store, statement)
        holds_go_on(store)


@pytest.mark.parametrize("extreme", [2**31 - 1, -(2**31)])
def test_a_counter_or_hold_at_the_end_of_its_column_is_put_right(database_url, extreme):
    with Store(database_url) as store:
        fill(store)
        execute(
            store,
            f"UPDATE counters SET held = {extreme}",
            f"UPDATE holds SET amount = {extreme} {HOLD_OF_0}",
        )
        holds_go_on(store)


def holds_go_on(store):
    """All is admitted and ends; a sweep puts right the counters of the pool."""
    assert [answer.kind for answer in store.write_each(admit, [job(8, "t"), job(9, "other")])] == [
        "accepted"
    ] * 2
    settled = store.write_each(SETTLE, [Settlement(outcome(number), NOW) for number in (0, 2)])
    assert [answer.kind for answer in settled] == ["settled"] * 2
    execute(store, f"UPDATE counters SET held = 70 WHERE kind = 'capacity' AND name = '{POOL}'")
    assert store.write_alone(sweep_holds).result() >= 1
    open_jobs = store.read(lambda connection: connection.execute(text(OPEN_IN_POOL)).scalar_one())
    assert store.read(depths)[POOL] == open_jobs


OPEN_IN_POOL = "SELECT count(*) FROM holds WHERE kind = 'capacity' AND amount = 1"
