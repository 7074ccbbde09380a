"""Why jobs were placed where they were: kept with the hand-over, and no longer than the job."""

from sqlalchemy import text

from support.databases import (
    NOW,
    OTHER_POOL,
    POOL,
    accept,
    give_quota,
    new_job,
    outcome,
    settle_each,
    state_of,
    write,
)
from tether.outcomes import OutcomeKind
from tether.store import Store
from tether.store.admissions import AdmissionKind, admit
from tether.store.decisions import MAX_DECISIONS_KEPT, REPEATED, Decision, decisions_of
from tether.store.migrations import downgrade, upgrade
from tether.store.placements import NotPlaced, Placement, raise_dispatches, replace
from tether.store.pruning import prune
from tether.store.waiting_jobs import Postponement, postpone

JOB = "job-000001"


def decision(words="a", **expected):
    pools = {POOL: (100, 900), OTHER_POOL: (200, 800), **expected}
    return Decision(NOW + 1, words, pools)


def kept(store, job_id=JOB):
    """Number, pool, expected wait and whole time, and the choice of each hand-over of a job."""
    rows = store.read(decisions_of, job_id)
    return [
        tuple(row[name] for name in ("dispatch", "pool", "wait_ms", "total_ms", "choice")) for row in rows
    ]


def test_an_accepted_job_keeps_its_choice_with_what_was_expected_of_its_pool(store):
    accept(store, new_job(1, decision=decision()), new_job(2, pool=OTHER_POOL, decision=decision()))
    assert kept(store) == [(1, POOL, 100, 900, "a")]
    assert kept(store, "job-000002") == [(1, OTHER_POOL, 200, 800, "a")]
    [row] = store.read(decisions_of, JOB)
    assert row["decided_at"] == NOW + 1


def test_a_parked_job_keeps_why_no_pool_could_serve_it_until_one_can(store):
    accept(store, new_job(1, pool=None, decision=Decision(NOW, "none")))
    assert kept(store) == [(1, None, None, None, "none")]
    postponement = Postponement(JOB, 0, NOW + 5, NOW, Decision(NOW + 5, "still none"))
    assert write(store, postpone, postponement) == [True]
    assert kept(store) == [(1, None, None, None, "still none")]
    assert write(store, replace, Placement(JOB, 0, POOL, NOW + 9, decision("found"))) == [1]
    assert kept(store) == [(1, POOL, 100, 900, "found")]


def test_each_hand_over_has_a_choice_of_its_own(store):
    accept(store, new_job(1, decision=decision()))
    settle_each(store, outcome(1, OutcomeKind.FAILED))
    assert write(store, replace, Placement(JOB, 1, OTHER_POOL, NOW, decision("b"))) == [2]
    assert kept(store) == [(1, POOL, 100, 900, "a"), (2, OTHER_POOL, 200, 800, "b")]


def test_what_is_not_placed_keeps_no_choice(store):
    give_quota(store, 1)
    first, second = (new_job(number, tenant_id="small", decision=decision()) for number in (1, 2))
    kinds = [answer.kind for answer in write(store, admit, first, second)]
    assert kinds == [AdmissionKind.ACCEPTED, AdmissionKind.OVER_QUOTA]
    assert kept(store, "job-000002") == []
    assert write(store, replace, Placement(JOB, 1, OTHER_POOL, NOW, decision("late"))) == [NotPlaced.MOVED_ON]
    assert write(store, postpone, Postponement(JOB, 1, NOW, NOW, decision("late"))) == [False]
    again = new_job(
        3, tenant_id="small", correlation_id="correlation-1", digest="digest-1", decision=decision("again")
    )
    assert write(store, admit, again)[0].kind is AdmissionKind.KNOWN
    assert kept(store) == [(1, POOL, 100, 900, "a")]
    assert kept(store, "job-000003") == []


def test_a_rebuild_says_that_it_repeats_the_pool(store):
    accept(store, new_job(1, decision=decision()))
    assert store.write_alone(raise_dispatches, [JOB, "nobody"], NOW + 7).result() == [2, None]
    assert kept(store) == [(1, POOL, 100, 900, "a"), (2, POOL, None, None, REPEATED)]


def test_a_job_without_a_choice_is_placed_all_the_same(store):
    accept(store, new_job(1), new_job(2, pool=None))
    assert write(store, postpone, Postponement("job-000002", 0, NOW, NOW)) == [True]
    assert write(store, replace, Placement("job-000002", 0, POOL, NOW)) == [1]
    assert kept(store) == kept(store, "job-000002") == []


def test_a_wait_beyond_all_numbers_costs_no_job(store):
    accept(store, new_job(1, decision=decision(**{POOL: (10**30, 10**40)})))
    [(_, _, wait_ms, total_ms, _)] = kept(store)
    assert wait_ms == total_ms == 2**53


def test_choices_go_with_their_job(store):
    accept(store, new_job(1, decision=decision()), new_job(2, decision=decision()))
    settle_each(store, outcome(1))
    assert write(store, prune, JOB) == [True]
    assert kept(store) == []
    assert kept(store, "job-000002") == [(1, POOL, 100, 900, "a")]


def test_of_a_job_that_is_handed_over_again_and_again_the_newest_choices_are_kept(store):
    accept(store, new_job(1, decision=decision()))
    count = MAX_DECISIONS_KEPT + 5
    for dispatch in range(1, count):
        settle_each(store, outcome(1, OutcomeKind.WITHDRAWN, dispatch=dispatch))
        assert write(store, replace, Placement(JOB, dispatch, POOL, NOW, decision())) == [dispatch + 1]
    assert [row[0] for row in kept(store)] == list(range(count - MAX_DECISIONS_KEPT + 1, count + 1))


def test_the_migration_goes_up_and_down_with_jobs_in_the_table(database_url):
    with Store(database_url) as store:
        accept(store, new_job(1, decision=decision()))
    downgrade(database_url, "0017")
    upgrade(database_url)
    with Store(database_url) as store:
        assert kept(store) == []
        assert state_of(store, 1) == ("accepted", 1)
        assert store.read(lambda c: c.execute(text("SELECT count(*) FROM decisions")).scalar_one()) == 0
        accept(store, new_job(2, decision=decision()))
        assert kept(store, "job-000002") == [(1, POOL, 100, 900, "a")]
