"""One bad entry costs itself and nobody else: of Redis's keys, of the database's rows, in every loop."""

import itertools

import pytest
import redis
from sqlalchemy import event, select, text, update

from support.boundless_pools import BoundlessPools, choice_of
from support.core_steps import LIFE_MS, NOW, CoreSteps
from support.databases import DEMO, POOL, outbox, outcome, settle_each, state_of
from support.hand_worker import growth
from support.pool_stage import note_recent_tick
from tether.broker.pools.dispatches import Dispatch, PlaceResult
from tether.broker.scripts import BROKER_SCRIPTS
from tether.core.live_states import LiveStates
from tether.jobs import JobError, JobState, Piece, Priority
from tether.loops import IDLE
from tether.orchestrator import deadlines, lost_entries, outbox_relay, pruning, reconcile, waiting
from tether.orchestrator.lost_entries import LostEntries
from tether.orchestrator.outcomes import MAX_FAILURES
from tether.orchestrator.pruning import SWEEP_MS, Prune
from tether.orchestrator.reconcile import Reconcile
from tether.orchestrator.set_aside import MAX_PAUSE_MS
from tether.orchestrator.waiting import PlaceWaiting
from tether.outcomes import OutcomeKind
from tether.scheduling.retry_policy import RESTORED
from tether.store import queries
from tether.store.audit import OK, Act, add_entry
from tether.store.audit_pages import audit_page
from tether.store.dead_letters import dead_letter
from tether.store.end_requests import Request
from tether.store.job_lists import scan_jobs
from tether.store.schema import attempts, dead_letters, dispatches, jobs
from tether.telemetry import metrics

PLANTED_FAULT = """
if redis.call('TYPE', string.sub(KEYS[1], 1, -13) .. ':job:' .. (ARGV[1] or '')).ok == 'string' then
  return redis.error_reply('WRONGTYPE planted')
end
"""
FAULTY = {"pool/place", "pool/cancel", "pool/withdraw", "pool/seal", "pool/revoke"}


@pytest.fixture
def core(store, shared_redis_server, namespace, monkeypatch):
    # The scripts get along with a text in a hash's place: here they fail, as they may for any reason.
    sound = BROKER_SCRIPTS.source
    monkeypatch.setattr(
        BROKER_SCRIPTS,
        "source",
        lambda name: PLANTED_FAULT + sound(name) if name in FAULTY else sound(name),
    )
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


def idle(step, most=50):
    """Step until there is no more to do. A step that never rests is a fault."""
    for number in range(most):
        if step() > 0:
            return number + 1
    raise AssertionError(f"no rest after {most} steps")


# Outcomes.


def test_outcomes_of_others_are_settled_beside_one_whose_seal_fails(core):
    core.submit(*range(6))
    core.finish(6)
    core.break_job(0)
    before = core.failures("outcomes")
    core.settle()
    assert core.states(*range(6)) == ["succeeded"] * 6
    assert core.pending() == 1
    assert core.failures("outcomes") == before + 1
    sealed = core.redis.ttl(core.keys.job("job-000001"))
    assert sealed > 0
    # Once Redis holds nothing in its way any more, it is sealed too.
    core.redis.delete(core.keys.job("job-000000"))
    core.settle()
    assert core.pending() == 1, "its pause is not over"
    core.later()
    core.settle()
    assert core.pending() == 0
    assert core.redis.hget(core.keys.job("job-000000"), "state") == b"succeeded"


def test_an_outcome_that_never_can_be_settled_keeps_no_other_from_being_trimmed(core):
    core.submit(0, 1)
    core.finish(2)
    core.sql(update(jobs).where(jobs.c.job_id == "job-000000").values(labels="no JSON"))
    tries = 0
    while True:
        core.settle()
        assert core.states(1) == ["succeeded"]
        tries += 1
        if not core.pending():
            break
        core.later(MAX_PAUSE_MS)
    assert tries == MAX_FAILURES
    core.outcomes.trim()
    # What ended stays in Redis, from where reconcile has it handed back when the row can be read again.
    core.sql(update(jobs).where(jobs.c.job_id == "job-000000").values(labels="{}"))
    core.reconcile()
    core.reconcile()
    core.later(MAX_PAUSE_MS)
    core.settle()
    assert core.states(0) == ["succeeded"]
    assert core.store.read(queries.result_pieces, "job-000000").pieces == (Piece(0, "t0 "),)


def test_a_stream_of_another_type_costs_its_own_job_the_tokens(core):
    core.submit(0, 1)
    core.finish(2)
    core.redis.delete(core.keys.stream("job-000000"))
    core.redis.set(core.keys.stream("job-000000"), "x")
    core.settle()
    assert core.states(0, 1) == ["succeeded", "succeeded"]
    assert core.store.read(queries.result_pieces, "job-000001").pieces == (Piece(0, "t0 "),)
    errors = [core.store.read(queries.job, f"job-00000{number}").error for number in (0, 1)]
    assert [error and error.code for error in errors] == ["output_lost", None]


def test_what_follows_lost_tokens_is_not_taken_for_the_beginning(core):
    core.submit(0)
    (job,) = core.draw(1)
    core.worker.append(growth(job, 2))
    stream = core.keys.stream("job-000000")
    core.worker.append(growth(job, 2, offset=2))
    (first, *_) = [entry for entry, fields in core.redis.xrange(stream) if fields[b"e"] == b"delta"]
    core.redis.xdel(stream, first)
    core.worker.finish(growth(job, 1, offset=4))
    core.settle()
    row = core.store.read(queries.job, "job-000000")
    assert (row.state, row.output_tokens, row.error.code) == ("succeeded", 5, "output_lost")
    assert core.store.read(queries.result_pieces, "job-000000").pieces == ()


def test_outcomes_newer_than_a_database_that_was_set_back_are_settled(core):
    core.submit(0, 1)
    core.redis.hset(core.keys.job("job-000000"), "dispatch", 3)
    core.redis.hset(core.keys.job("job-000001"), "dispatch", 3)
    done, failed = core.draw(2)
    core.worker.finish(growth(done, 2))
    core.worker.fail(growth(failed, 1), kind="failed", error=JobError("engine_failed", "x", retryable=True))
    core.settle()
    assert [state_of(core.store, number) for number in (0, 1)] == [("succeeded", 3), ("waiting_retry", 3)]
    assert outbox(core.store) == []


# Ends.


def test_a_cancel_of_several_answers_each(core):
    core.submit(0, 1, 2)
    core.break_job(1)
    requests = [Request(None, f"job-{number:06}", "cancelled", core.now) for number in (0, 1, 2, 3)]
    first, second, third, fourth = core.ending.end(requests)
    assert (first, third, fourth) == (JobState.CANCELLED, JobState.CANCELLED, None)
    assert isinstance(second, redis.ResponseError)
    assert core.states(0, 1, 2) == ["cancelled", "placed", "cancelled"]


def test_deadlines_of_others_are_kept_beside_jobs_that_cannot_end(core, monkeypatch):
    monkeypatch.setattr(deadlines, "BATCH", 2)
    # More than a batch of bad ones come first: of Redis, and rows that the database cannot read.
    core.submit(*range(9), deadline=0)
    for number in range(9):
        core.sql(update(jobs).where(jobs.c.job_id == f"job-{number:06}").values(deadline=NOW - 100 + number))
    for number in range(3):
        core.break_job(number)
    core.sql(update(jobs).where(jobs.c.job_id.in_(["job-000003", "job-000004"])).values(labels="no JSON"))
    for _ in range(12):
        core.deadlines()
        core.later(1_000)
    assert core.states(*range(9)) == ["placed"] * 5 + ["expired"] * 4
    before = core.failures("deadlines")
    for _ in range(30):
        core.deadlines()
    assert core.failures("deadlines") - before <= 5, "what fails waits, and is not tried at every step"
    for number in range(3):
        core.redis.delete(core.keys.job(f"job-{number:06}"))
    core.sql(update(jobs).values(labels="{}"))
    for _ in range(30):
        core.later(MAX_PAUSE_MS)
        core.deadlines()
    assert core.states(*range(9)) == ["expired"] * 9


# The outbox.


def test_dispatches_that_redis_has_closed_hold_up_nobody_and_are_settled(core, monkeypatch):
    monkeypatch.setattr(outbox_relay, "BATCH", 4)
    core.submit(*range(10), places=False)
    for number in range(10):
        core.pools.seal_many([(f"job-{number:06}", JobState.CANCELLED, None)], LIFE_MS)
    core.now += 1
    core.submit(10, 11, places=False, now_ms=NOW + 1)
    core.later()
    assert idle(core.relay) <= 4
    assert core.states(*range(12)) == ["cancelled"] * 10 + ["placed"] * 2
    assert outbox(core.store) == []


def test_a_closed_job_of_which_too_little_is_known_waits_behind_others_and_runs_again(core, monkeypatch):
    monkeypatch.setattr(outbox_relay, "BATCH", 4)
    core.submit(*range(9), places=False)
    for number in range(9):
        # Redis had lost the job, and was told only that it had succeeded: of its tokens nothing is left.
        core.pools.seal_many([(f"job-{number:06}", JobState.SUCCEEDED, None)], LIFE_MS)
    core.submit(10, places=False, now_ms=NOW + 1)
    core.later()
    assert idle(core.relay) <= 4
    assert core.states(*range(9), 10) == ["accepted"] * 9 + ["placed"]
    before = core.failures("outbox")
    for _ in range(30):
        core.relay()
    assert core.failures("outbox") == before, "what is set aside is not read again before its time"
    waits = []
    for _ in range(12):
        core.now = max(due_at for *_, due_at in outbox(core.store))
        idle(core.relay)
        waits.append(min(due_at for *_, due_at in outbox(core.store)) - core.now)
    assert waits == sorted(waits)
    assert waits[-1] == MAX_PAUSE_MS
    core.redis.delete(*(core.keys.job(f"job-{number:06}") for number in range(9)))
    core.later(MAX_PAUSE_MS)
    idle(core.relay)
    assert core.states(*range(9)) == ["placed"] * 9


def test_a_job_that_redis_refuses_or_a_row_that_nobody_can_read_holds_up_nobody(core, monkeypatch):
    monkeypatch.setattr(outbox_relay, "BATCH", 3)
    core.submit(*range(8), places=False)
    for number in range(4):
        core.break_job(number)
    core.sql(update(jobs).where(jobs.c.job_id.in_(["job-000004", "job-000005"])).values(priority="odd"))
    core.submit(8, places=False, now_ms=NOW + 1)
    core.later()
    assert idle(core.relay) <= 4
    assert core.states(*range(9)) == ["accepted"] * 6 + ["placed"] * 3
    for number in range(4):
        core.redis.delete(core.keys.job(f"job-{number:06}"))
    core.sql(update(jobs).values(priority="standard"))
    core.later()
    idle(core.relay)
    assert core.states(*range(9)) == ["placed"] * 9


def set_back(core, *numbers):
    """Let the database be what it was before these jobs had ended, when they were just accepted."""
    ids = [f"job-{number:06}" for number in numbers]

    def write(connection):
        connection.execute(attempts.delete().where(attempts.c.job_id.in_(ids)))
        connection.execute(dead_letters.delete().where(dead_letters.c.job_id.in_(ids)))
        fresh = {
            "state": "accepted",
            "dispatch": 1,
            "requested": None,
            "requested_at": None,
            "finished_at": None,
            "error": None,
            "result": None,
            "input_tokens": 0,
            "output_tokens": 0,
        }
        connection.execute(update(jobs).where(jobs.c.job_id.in_(ids)).values(**fresh))
        for job_id in ids:
            row = {"job_id": job_id, "dispatch": 1, "pool": POOL, "due_at": NOW, "created_at": NOW}
            connection.execute(dispatches.insert().values(row))

    core.store.write_alone(write).result()


@pytest.mark.parametrize("is_placed", [False, True])
def test_what_ended_before_the_database_was_set_back_ends_alike_and_runs_no_second_time(core, is_placed):
    core.submit(0, 1, 2, 3)
    done, dead, running = core.draw(3)
    core.worker.finish(growth(done, 3), input_tokens=7)
    error = JobError("engine_failed", "it broke", retryable=False)
    core.worker.fail(growth(dead, 1), kind="failed", error=error)
    requests = [Request(None, f"job-{number:06}", "cancelled", core.now) for number in (2, 3)]
    core.ending.end(requests)
    core.worker.fail(growth(running, 2), kind="cancelled", error=JobError("cancelled", "as asked for"))
    core.settle()
    expected = ["succeeded", "dead", "cancelled", "cancelled"]
    assert core.states(0, 1, 2, 3) == expected
    result = core.store.read(queries.result_pieces, "job-000000")
    set_back(core, 0, 1, 2, 3)
    if is_placed:
        core.sql(update(jobs).values(state="placed"))
        core.sql(dispatches.delete())
        core.reconcile()
    else:
        core.later()
        idle(core.relay)
    assert core.states(0, 1, 2, 3) == expected
    assert core.store.read(queries.result_pieces, "job-000000") == result
    assert core.store.read(queries.job, "job-000000").input_tokens == 7
    assert core.store.read(queries.job, "job-000001").error == error
    letter = core.store.read(dead_letter, "job-000001")
    assert (letter.reason, letter.retryable) == (RESTORED, True)
    assert len(core.store.read(queries.result_pieces, "job-000002").pieces) == 2
    assert core.draw(4) == ()
    assert outbox(core.store) == []


# Reconcile.


def test_reconcile_puts_back_and_takes_out_beside_what_it_cannot_read(core, monkeypatch):
    monkeypatch.setattr(reconcile, "BATCH", 3)
    core.submit(*range(10))
    core.reconcile()
    core.break_job(0)
    core.redis.hset(core.keys.job("job-000001"), "offset", "nan")
    core.sql(update(jobs).where(jobs.c.job_id == "job-000002").values(priority="odd"))
    core.redis.delete(core.keys.job("job-000003"))
    settle_each(core.store, outcome(9, OutcomeKind.FAILED))
    # A list of another type among those of the pools.
    bad_list = core.keys.pool_jobs(POOL, Priority.BATCH, "bad")
    core.redis.set(bad_list, "x")
    core.redis.zadd(core.keys.pool_tenants(POOL, Priority.BATCH), {"bad": 0, b"\xff": 0})
    before = core.failures("reconcile")
    core.reconcile()
    assert core.failures("reconcile") > before
    placed = core.pools.known([f"job-{number:06}" for number in range(10)])
    assert isinstance(placed[0], redis.ResponseError)
    assert [known.state for known in placed[1:9]] == ["placed"] * 8, "a damaged hash is replaced"
    assert placed[9].state == "withdrawn"


@pytest.mark.parametrize("value", ["a list", "-1", "9" * 400, "no number"])
def test_an_epoch_that_cannot_be_read_is_replaced_and_everything_placed_anew(core, value):
    core.submit(0, 1)
    before = core.failures("reconcile")
    core.redis.delete(core.keys.epoch)
    if value == "a list":
        core.redis.rpush(core.keys.epoch, value)
    else:
        core.redis.set(core.keys.epoch, value)
    core.reconcile()
    assert core.redis.get(core.keys.epoch) == b"2"
    assert core.failures("reconcile") == before + (value == "a list")
    core.later()
    core.relay()
    core.worker.hello()
    core.finish(2)
    core.settle()
    assert core.states(0, 1) == ["succeeded"] * 2


def lose_entry(core, what):
    """Remove what leads to waiting jobs, or to the running job-000000, and to nothing else."""
    tenants = core.keys.pool_tenants(POOL, Priority.STANDARD)
    (tenant,) = core.redis.zrange(tenants, 0, -1)
    removed = {
        "lease": lambda: core.redis.zrem(core.keys.leases, "j job-000000"),
        "leases": lambda: core.redis.delete(core.keys.leases),
        "list": lambda: core.redis.delete(core.keys.pool_jobs(POOL, Priority.STANDARD, tenant.decode())),
        "tenant": lambda: core.redis.zrem(tenants, tenant),
    }[what]()
    assert removed == 1


@pytest.mark.parametrize("what", ["lease", "leases", "list", "tenant"])
def test_a_job_that_nothing_in_redis_leads_to_is_placed_anew(core, what):
    core.submit(*range(3))
    core.draw(1)
    lose_entry(core, what)
    core.reconcile()
    before = [state_of(core.store, number)[1] for number in range(3)]
    assert before == [1, 1, 1], "a job that moves while all is read was not lost"
    core.reconcile()
    is_lost = [1 + (what in ("lease", "leases")), *[1 + (what in ("list", "tenant"))] * 2]
    assert [state_of(core.store, number)[1] for number in range(3)] == is_lost
    core.later()
    core.relay()
    for job in core.draw(3):
        core.worker.finish(growth(job, 1))
    core.settle()
    expected = ["succeeded"] * 3 if what in ("lease", "leases") else ["placed", "succeeded", "succeeded"]
    assert core.states(0, 1, 2) == expected


def test_a_lost_list_comes_back_whole_and_a_step_at_a_time(core, monkeypatch):
    monkeypatch.setattr(lost_entries, "MAX_CHECKED", 3)
    core.submit(*range(8))
    # The time until the next walk is not over when the others are looked for.
    core.reconcile._interval_ms = 300_000
    lose_entry(core, "list")
    for _ in range(2):
        core.later(300_000)
        pause = core.reconcile()
    raised = []
    while True:
        raised.append(sum(state_of(core.store, number)[1] == 2 for number in range(8)))
        if pause > 0:
            break
        pause = core.reconcile()
    assert raised == [3, 6, 8]
    core.later()
    core.relay()
    core.finish(8)
    core.settle()
    assert core.states(*range(8)) == ["succeeded"] * 8


def test_a_job_that_moves_while_it_is_looked_for_is_not_lost(core, monkeypatch):
    core.submit(0, 1)
    look = LostEntries(core.pools)
    unseen = {f"job-{number:06}": 1 for number in range(2)}
    look.note(unseen)
    look.note(unseen)
    hashes = look._hashes

    def read_before_it_moves(job_ids):
        found = hashes(job_ids)
        if len(job_ids) == 2:
            core.draw(1)
        return found

    monkeypatch.setattr(look, "_hashes", read_before_it_moves)
    assert look.look() == []
    assert not look.are_missed


def test_a_pool_that_is_lost_from_the_pools_is_named_again_and_its_jobs_stay(core):
    core.submit(0, 1)
    core.redis.srem(core.keys.pools, POOL)
    core.reconcile()
    core.reconcile()
    assert core.redis.smembers(core.keys.pools) == {POOL.encode()}
    assert [state_of(core.store, number)[1] for number in (0, 1)] == [1, 1]


@pytest.mark.parametrize("what", ["leases", "pools"])
def test_a_key_of_all_jobs_that_is_none_of_ours_is_replaced_and_all_jobs_end(core, what):
    core.submit(*range(3))
    core.draw(1)
    key = getattr(core.keys, what)
    core.redis.delete(key)
    core.redis.set(key, "x")
    before = core.failures("reconcile")
    core.reconcile()
    assert core.failures("reconcile") == before + 1
    core.reconcile()
    core.pools.tick(600_000, 600_000)
    core.reconcile()
    core.reconcile()
    assert core.failures("reconcile") - before <= 2
    dispatches_now = [state_of(core.store, number)[1] for number in range(3)]
    assert dispatches_now == [1 + (what == "leases"), 1, 1]
    core.later()
    core.relay()
    for job in core.draw(3):
        core.worker.finish(growth(job, 1))
    core.settle()
    assert core.states(1, 2) == ["succeeded"] * 2
    if what == "leases":
        assert core.states(0) == ["succeeded"]
    else:
        assert core.redis.type(key) in (b"set", b"none")


def test_jobs_that_wait_and_run_are_never_taken_for_lost(core):
    core.submit(*range(6))
    core.draw(2)
    for _ in range(4):
        core.reconcile()
    assert [state_of(core.store, number)[1] for number in range(6)] == [1] * 6


def test_a_rebuild_raises_all_dispatches_but_that_of_a_row_that_cannot_be_read(core):
    core.submit(*range(4))
    core.sql(update(jobs).where(jobs.c.job_id == "job-000001").values(labels="no JSON"))
    core.redis.flushall()
    core.reconcile()
    assert [state_of(core.store, number)[1] for number in range(4)] == [2, 1, 2, 2]
    core.later()
    core.relay()
    assert core.states(0, 2, 3) == ["placed"] * 3


def test_reconcile_reads_the_payloads_of_what_redis_lost_and_of_nothing_else(core, monkeypatch):
    monkeypatch.setattr(reconcile, "LOST_BATCH", 2)
    core.submit(*range(8))
    for number in (1, 2, 6):
        core.redis.delete(core.keys.job(f"job-{number:06}"))
    reads = []

    def note(connection, cursor, statement, parameters, *_):
        if "jobs.body" in statement:
            reads.append([value for value in _flat(parameters) if str(value).startswith("job-")])

    event.listen(core.store._readers, "before_cursor_execute", note)
    core.reconcile()
    assert reads == [["job-000001", "job-000002"], ["job-000006"]]
    assert [known.state for known in core.pools.known([f"job-{n:06}" for n in range(8)])] == ["placed"] * 8


def _flat(parameters):
    """The values of a statement, of which Postgres gets a list as one."""
    values = parameters.values() if isinstance(parameters, dict) else parameters
    return [each for value in values for each in (value if isinstance(value, list) else [value])]


# Waiting jobs.


class Choices(BoundlessPools):
    """A scheduler that serves one model, and fails for some jobs."""

    def __init__(self, *bad):
        self.bad = [f"job-{number:06}" for number in bad]

    def served_models(self):
        return [DEMO]

    def served_needs(self, with_needs):
        return []

    def choose_pools(self, waiting_jobs):
        broken = ValueError("a scorer broke")
        return [broken if job.job_id in self.bad else choice_of(POOL) for job in waiting_jobs]


def test_waiting_jobs_are_placed_beside_those_that_cannot_be(core, monkeypatch):
    monkeypatch.setattr(waiting, "BATCH", 3)
    core.submit(*range(9), pool=None)
    ids = [f"job-{number:06}" for number in range(9)]
    core.sql(update(jobs).where(jobs.c.job_id.in_(ids[2:4])).values(labels="no JSON"))
    core.sql(update(jobs).where(jobs.c.job_id.in_(ids[4:6])).values(priority="odd"))
    choices = Choices(0, 1)
    step = PlaceWaiting(core.store, choices, core.reservations, now_ms=core.clock)
    assert idle(step) <= 5
    assert core.states(*range(6)) == ["parked"] * 6
    assert {known.state for known in core.pools.known(ids[6:])} == {"placed"}
    before = core.failures("waiting")
    idle(step)
    assert core.failures("waiting") == before, "what is set aside is not read again before its time"
    choices.bad = []
    core.sql(update(jobs).values(labels="{}", priority="standard"))
    core.later(MAX_PAUSE_MS)
    idle(step)
    assert {known.state for known in core.pools.known(ids)} == {"placed"}


# Others.


def test_old_jobs_are_deleted_beside_one_that_cannot_be(core, monkeypatch):
    monkeypatch.setattr(pruning, "BATCH", 2)
    core.submit(*range(6))
    core.finish(6)
    core.settle()
    core.sql(text("CREATE TABLE keeps (job_id TEXT NOT NULL REFERENCES jobs (job_id))"))
    for number in (0, 1, 2):
        core.sql(text(f"INSERT INTO keeps VALUES ('job-{number:06}')"))
    core.later(10)
    prune = Prune(core.store, core.outcomes, retention_ms=1, now_ms=core.clock)
    until_idle(prune, 8)
    left = core.store.read(lambda c: list(c.execute(select(jobs.c.job_id).order_by(jobs.c.job_id)).scalars()))
    assert left == ["job-000000", "job-000001", "job-000002"]
    core.sql(text("DROP TABLE keeps"))
    core.later(MAX_PAUSE_MS)
    until_idle(prune, 8)
    assert core.store.read(scan_jobs, None).rows == []


def test_many_old_jobs_are_deleted_a_few_at_a_time_with_pauses_for_others(core, monkeypatch):
    monkeypatch.setattr(pruning, "BATCH", 2)
    core.submit(*range(5))
    core.finish(5)
    core.settle()
    core.later(10)
    prune = Prune(core.store, core.outcomes, retention_ms=1, now_ms=core.clock)
    left = []
    for _ in range(3):
        rest = prune()
        left.append((len(core.store.read(scan_jobs, None).rows), rest > 0))
    assert left == [(3, True), (1, True), (0, True)]


def test_old_entries_of_the_audit_log_are_deleted_beside_holds_that_cannot_be_compared(core, monkeypatch):
    monkeypatch.setattr(pruning, "AUDIT_BATCH", 2)
    act = Act(act_id="a", actor="key_1", address="", action="keys.create", target="key_2")

    def fail(connection):
        raise ValueError

    monkeypatch.setattr(pruning, "sweep_holds", fail)
    prune = Prune(core.store, core.outcomes, retention_ms=None, audit_retention_ms=10, now_ms=core.clock)
    for _ in range(5):
        core.store.write_alone(add_entry, act, OK, core.clock()).result()
    core.later(SWEEP_MS)
    core.store.write_alone(add_entry, act, OK, core.clock()).result()
    assert prune() == IDLE
    assert [entry.at for entry in core.store.read(audit_page).entries] == [core.clock()]
    assert metrics.REGISTRY.value_of("tether_audit_entries", {}) == 1


def test_a_flood_of_entries_is_deleted_as_fast_as_it_grew_old(core, monkeypatch):
    monkeypatch.setattr(pruning, "AUDIT_BATCH", 1)
    monkeypatch.setattr(pruning, "AUDIT_BATCHES", 2)
    act = Act(act_id="a", actor="key_1", address="", action="keys.create", target="key_2")
    prune = Prune(core.store, core.outcomes, retention_ms=None, audit_retention_ms=10, now_ms=core.clock)
    for _ in range(5):
        core.store.write_alone(add_entry, act, OK, core.clock()).result()
    core.later(SWEEP_MS)
    left = []
    for _ in range(3):
        prune()
        left.append(len(core.store.read(audit_page).entries))
    assert left == [3, 1, 0]


def until_idle(step, most):
    """Step until there is no more to do, whatever pauses there are before."""
    assert any(step() == IDLE for _ in range(most)), f"no end after {most} steps"


def test_a_job_with_an_unreadable_hash_costs_a_list_of_jobs_only_its_live_state(core):
    core.submit(0, 1, 2)
    core.break_job(0)
    core.redis.hset(core.keys.job("job-000001"), "offset", "nan")
    live = LiveStates(core.redis, core.keys)
    try:
        known = live.known([f"job-{number:06}" for number in range(3)])
    finally:
        live.close()
    assert list(known) == ["job-000002"]


def test_attempts_of_a_revoked_worker_are_taken_beside_one_that_cannot_be(core):
    core.submit(0, 1, 2)
    assert len(core.draw(3)) == 3
    core.redis.sadd(core.keys.revoked, "hands")
    core.redis.hset(core.keys.job("job-000000"), "ticket", "no number")
    core.redis.zadd(core.keys.leases, {b"j \xff": 10**15, b"j lost": 10**15})
    core.redis.set(core.keys.job("lost"), "x")
    taken = core.pools.take_from_revoked({"hands"})
    assert sorted(taken) == [*[("hands.1", "placed")] * 2, ("hands.1", "withdrawn")]
    known = core.pools.known([f"job-{number:06}" for number in range(3)])
    assert [each.state for each in known[1:]] == ["placed"] * 2


@pytest.mark.parametrize(
    "bad", [numbers for k in (0, 1, 2, 4) for numbers in itertools.combinations(range(4), k)]
)
def test_a_batch_answers_for_each_job_what_it_alone_would_get(core, bad):
    ids = [f"job-{number:06}" for number in range(4)]

    def dispatch(job_id):
        return Dispatch(
            job_id=job_id,
            dispatch=1,
            pool=POOL,
            tenant="default",
            priority=Priority.STANDARD,
            weight=1.0,
            deadline=0,
            cost=1,
            body=b"{}",
        )

    for number in bad:
        core.break_job(number)
    verbs = [
        (lambda: core.pools.place([dispatch(job_id) for job_id in ids]), PlaceResult.PLACED),
        (lambda: [known and getattr(known, "state", known) for known in core.pools.known(ids)], "placed"),
        (lambda: core.pools.hand_back_many([(job_id, 1) for job_id in ids]), "placed"),
        (lambda: core.pools.withdraw_many([(job_id, 1) for job_id in ids], running=True), "withdrawn"),
        (lambda: core.pools.cancel_many([(job_id, JobState.CANCELLED) for job_id in ids]), "withdrawn"),
        (
            lambda: core.pools.seal_many([(job_id, JobState.CANCELLED, None) for job_id in ids], 1000),
            "sealed",
        ),
    ]
    for verb, good in verbs:
        answers = verb()
        assert [isinstance(answer, redis.ResponseError) for answer in answers] == [
            number in bad for number in range(4)
        ]
        assert [answer for number, answer in enumerate(answers) if number not in bad] == [good] * (
            4 - len(bad)
        )


def test_a_row_that_cannot_be_read_is_listed_without_what_is_broken(core):
    core.submit(0, 1, 2, labels={"a": "b"})
    broken = {"labels": "no JSON", "error": "[1]", "priority": "odd"}
    core.sql(update(jobs).where(jobs.c.job_id == "job-000001").values(broken))
    listed = core.store.read(scan_jobs, None).rows
    assert [row.job_id for row in listed] == ["job-000002", "job-000001", "job-000000"]
    assert [row.labels for row in listed] == [{"a": "b"}, {}, {"a": "b"}]
    assert (listed[1].priority, listed[1].error.code) == (Priority.STANDARD, "internal")
    assert core.store.read(queries.job, "job-000001") == listed[1]


def test_a_dead_letter_whose_attempts_cannot_be_read_is_listed_without(core):
    core.submit(0, 1)
    for drawn in core.draw(2):
        core.worker.fail(growth(drawn), kind="failed", error=JobError("engine_failed", "x"))
    core.settle()
    core.sql(update(dead_letters).where(dead_letters.c.job_id == "job-000000").values(history="no JSON"))
    first, second = (core.store.read(dead_letter, f"job-00000{number}") for number in (1, 0))
    assert (len(first.attempts), first.problem) == (1, None)
    assert (second.attempts, second.problem) == ((), "its attempts cannot be read")


def test_a_job_that_redis_has_lost_is_placed_again_at_the_next_look_and_not_after_minutes(core):
    looks = Reconcile(core.store, core.pools, core.ending, interval=300, life_ms=LIFE_MS, now_ms=core.clock)
    looks()
    core.submit(0, 1, 2)
    (running,) = core.draw()
    core.worker.append(growth(running, 2))
    assert running.job_id == "job-000000"
    core.redis.delete(core.keys.job("job-000000"), core.keys.job("job-000001"))
    assert [job.job_id for job in core.draw(3)] == ["job-000002"], "a miss is in front of nobody"
    core.pools.tick(600_000, 600_000)
    core.redis.zadd(core.keys.leases, {"j job-000000": 1})
    note_recent_tick(core.redis, core.keys)
    core.pools.tick(600_000, 600_000)
    before = metrics.REGISTRY.value_of("tether_set_aside_total")
    assert set(core.pools.set_aside()) == {"job-000000", "job-000001"}
    looks()
    assert core.pools.set_aside() == {}
    assert metrics.REGISTRY.value_of("tether_set_aside_total") == before + 2
    again = {job.job_id: job for job in core.draw(3)}
    assert set(again) == {"job-000000", "job-000001"}
    assert (again["job-000000"].offset, len(again["job-000000"].made)) == (2, 1)
    for job in again.values():
        core.worker.finish(growth(job, 1))
    core.settle()
    assert core.states(0, 1) == ["succeeded", "succeeded"]
    assert len(core.store.read(queries.result_pieces, "job-000000").pieces) == 3
