"""What tenants have used, by day and model."""

from support.databases import NOW, accept, make_tenants, new_job, outcome, settle_each, write
from tether.outcomes import OutcomeKind
from tether.spending import DAY_MS
from tether.store.end_requests import Conclusion, Request, conclude, request
from tether.store.usage import prune_usage, usage_of

TODAY = NOW // DAY_MS


def rows(store, *tenants, first=TODAY, last=TODAY + 9):
    return [
        (
            row.tenant_id,
            row.day - TODAY,
            row.model,
            row.jobs,
            row.succeeded,
            row.input_tokens,
            row.output_tokens,
        )
        for row in store.read(usage_of, first, last, tenants)
    ]


def test_every_ended_job_counts_once_on_the_day_on_which_it_ended(store):
    make_tenants(store, "t")
    accept(store, *(new_job(number) for number in range(4)), new_job(5, tenant_id="t", model="other"))
    settle_each(store, outcome(0), outcome(1), outcome(5))
    settle_each(store, outcome(2, OutcomeKind.POISONED), now_ms=NOW + DAY_MS)
    write(store, request, Request(None, "job-000003", "cancelled", NOW))
    end = Conclusion("job-000003", 1, "cancelled", NOW + DAY_MS)
    assert write(store, conclude, end, end) == [True, False]
    assert rows(store) == [
        ("default", 0, "demo", 2, 2, 10, 4),
        ("default", 1, "demo", 2, 0, 0, 0),
        ("t", 0, "other", 1, 1, 5, 2),
    ]
    assert rows(store, "t") == [("t", 0, "other", 1, 1, 5, 2)]
    assert rows(store, first=TODAY + 1) == [("default", 1, "demo", 2, 0, 0, 0)]


def test_old_days_are_pruned_the_oldest_first(store):
    make_tenants(store, "t")
    accept(store, new_job(1), new_job(2, tenant_id="t"), new_job(3))
    settle_each(store, outcome(1), outcome(2))
    settle_each(store, outcome(3), now_ms=NOW + DAY_MS)
    assert store.write_alone(prune_usage, NOW, 10).result() == 0
    assert store.write_alone(prune_usage, NOW + DAY_MS, 1).result() == 1
    assert store.write_alone(prune_usage, NOW + DAY_MS, 10).result() == 1
    assert rows(store) == [("default", 1, "demo", 1, 1, 5, 2)]
