"""Settling: once, in any order, and final by compare-and-set."""

import itertools
from dataclasses import replace as changed

from sqlalchemy import select, update

from support.databases import (
    NOW,
    POOL,
    accept,
    all_held,
    new_job,
    outbox,
    outcome,
    settle,
    settle_each,
    state_of,
    waiting_at,
    write,
)
from tether.attempts import AttemptEnd
from tether.jobs import JobError, JobState, Piece
from tether.outcomes import OutcomeKind
from tether.store.attempt_rows import MAX_ATTEMPTS_KEPT, TRIM_BY, AttemptRows
from tether.store.bulk import insert_rows
from tether.store.dead_letters import dead_letter
from tether.store.letter_histories import MAX_LETTER_ATTEMPTS, MAX_MESSAGE_CHARACTERS
from tether.store.placements import (
    Placement,
    replace,
)
from tether.store.queries import attempts_of, job, result_pieces
from tether.store.rows import error_to_text
from tether.store.schema import attempts, jobs
from tether.store.settlements import SettledKind


def test_a_success_is_final_with_result_and_usage(store):
    accept(store, new_job(1))
    [settled] = settle(store, outcome(1), now_ms=NOW + 7)
    assert (settled.kind, settled.state) == (SettledKind.SETTLED, JobState.SUCCEEDED)
    row = store.read(job, "job-000001")
    assert (row.finished_at, row.input_tokens, row.output_tokens) == (NOW + 7, 5, 2)
    result = store.read(result_pieces, "job-000001")
    assert result.pieces == (Piece(11, "a"), Piece(12, "b\0"))
    assert (result.run, result.finish_reason) == (0, "stop")
    assert all_held(store) == {}
    assert outbox(store) == []


def test_an_outcome_that_comes_again_changes_nothing(store):
    accept(store, new_job(1))
    ended = outcome(1, OutcomeKind.FAILED)
    assert [each.kind for each in settle(store, ended, ended)] == ["settled", "repeated"]
    assert [each.kind for each in settle(store, ended)] == ["repeated"]
    assert store.read(job, "job-000001").attempts == 1


def test_an_outcome_of_an_older_dispatch_is_noted_and_changes_nothing_else(store):
    accept(store, new_job(1))
    settle_each(store, outcome(1, OutcomeKind.FAILED))
    assert write(store, replace, Placement("job-000001", 1, POOL, NOW)) == [2]
    [stale] = settle(store, outcome(1, attempt=2))
    assert (stale.kind, stale.state, stale.dispatch) == (SettledKind.STALE, JobState.ACCEPTED, 2)
    assert len(store.read(attempts_of, "job-000001")) == 2
    assert store.read(result_pieces, "job-000001") is None


def test_an_outcome_of_an_unknown_job_is_said_to_be_so(store):
    [unknown] = settle(store, outcome(1))
    assert (unknown.kind, unknown.state) == (SettledKind.UNKNOWN, None)


def test_failures_wait_until_they_are_too_many_and_then_leave_a_dead_letter(store):
    accept(store, new_job(1))
    for dispatch in (1, 2):
        [settled] = settle(store, outcome(1, OutcomeKind.FAILED, dispatch=dispatch))
        assert settled.state is JobState.WAITING_RETRY
        assert settled.error.code == "engine_failed"
        assert write(store, replace, Placement("job-000001", dispatch, POOL, NOW + 100)) == [dispatch + 1]
    [settled] = settle(store, outcome(1, OutcomeKind.FAILED, dispatch=3), now_ms=NOW + 500)
    assert settled.state is JobState.DEAD
    row = store.read(job, "job-000001")
    assert (row.attempts, row.error.code, row.finished_at) == (3, "engine_failed", NOW + 500)
    letter = store.read(dead_letter, "job-000001", "default")
    assert (letter.reason, letter.retryable, letter.retry_token) == (
        "attempts_exhausted",
        True,
        "letter-job-000001",
    )
    assert [each.dispatch for each in letter.attempts] == [1, 2, 3]
    assert store.read(dead_letter, "job-000001", "another") is None
    assert (letter.model, letter.pool, letter.correlation_id) == ("demo", POOL, "correlation-1")


def test_what_a_held_worker_failed_is_noted_and_counts_as_no_attempt(store):
    accept(store, new_job(1))
    probe = changed(outcome(1, OutcomeKind.FAILED), worker="b.1", was_probe=True)
    [settled] = settle(store, probe)
    assert settled.state is JobState.WAITING_RETRY
    row = store.read(job, "job-000001")
    assert (row.attempts, row.error.code, row.failed_on) == (0, "engine_failed", "b")
    assert len(store.read(attempts_of, "job-000001")) == 1


def test_a_withdrawn_job_waits_for_another_pool(store):
    accept(store, new_job(1))
    settle_each(store, outcome(1, OutcomeKind.WITHDRAWN, attempt=0, draw=""))
    assert state_of(store, 1) == ("parked", 1)
    assert all_held(store) == {("quota", "default"): 1}
    assert store.read(job, "job-000001").attempts == 0
    assert [each.job_id for each in waiting_at(store, NOW)] == ["job-000001"]


def test_a_poisoned_job_is_dead(store):
    accept(store, new_job(1))
    [settled] = settle(store, outcome(1, OutcomeKind.POISONED, error=None, deaths=3))
    assert settled.state is JobState.DEAD
    assert settled.error.code == "worker_lost"
    assert "the process that ran it died 3 times" in settled.error.message
    assert store.read(job, "job-000001").error == settled.error


def test_several_outcomes_of_one_job_are_settled_in_order(store):
    accept(store, new_job(1))
    kinds = settle(store, outcome(1, OutcomeKind.FAILED), outcome(1, attempt=2), outcome(1, attempt=3))
    assert [each.kind for each in kinds] == ["settled", "settled", "stale"]
    assert state_of(store, 1) == ("succeeded", 1)


def test_a_second_failure_of_one_hand_over_does_not_count_twice(store):
    accept(store, new_job(1))
    kinds = settle(store, outcome(1, OutcomeKind.FAILED), outcome(1, OutcomeKind.FAILED, attempt=2))
    assert [each.kind for each in kinds] == ["settled", "stale"]
    assert store.read(job, "job-000001").attempts == 1


def test_what_a_cancelled_job_had_made_is_kept(store):
    accept(store, new_job(1))
    settle_each(store, outcome(1, OutcomeKind.CANCELLED, pieces=(Piece(1, "x"),), offset=1))
    assert store.read(result_pieces, "job-000001").pieces == (Piece(1, "x"),)


def test_outcomes_in_any_order_and_repeated_come_to_the_same_end(store):
    ended = [
        outcome(1, OutcomeKind.FAILED),
        outcome(1, OutcomeKind.SUCCEEDED, attempt=2, draw="worker:2"),
        outcome(1, OutcomeKind.WITHDRAWN, attempt=0, draw=""),
        outcome(1, OutcomeKind.FAILED, dispatch=2),
    ]
    ends = set()
    for number in range(24):
        order = list(ended)
        arranged = [order.pop(number // divisor % len(order)) for divisor in (1, 4, 12, 24)]
        accept(store, new_job(number))
        mine = [changed(each, job_id=f"job-{number:06}") for each in arranged]
        settle(store, *mine)
        settle(store, *mine[::-1])
        row = store.read(job, f"job-{number:06}")
        noted = len(store.read(attempts_of, row.job_id))
        ends.add((row.state, row.dispatch, row.output_tokens, noted))
    assert ends == {(JobState.SUCCEEDED, 1, 2, 4)}
    assert all_held(store) == {}


def end(attempt, *, dispatch=1, draw="worker:1", cause="lease_lost", went="pool", ended_at=NOW, **more):
    """How an attempt ended, as Redis noted it."""
    given = {"run": 0, "offset": attempt, "started_at": NOW - 10, "start_offset": attempt - 1} | more
    return AttemptEnd(
        dispatch=dispatch,
        attempt=attempt,
        draw_id=draw,
        pool=POOL,
        cause=cause,
        went=went,
        ended_at=ended_at,
        **given,
    )


def told(store, number=1):
    return [
        (row["dispatch"], row["attempt"], row["kind"], row["cause"], row["went"], row["offset"])
        for row in store.read(attempts_of, f"job-{number:06}")
    ]


def test_an_outcome_leaves_a_row_for_each_attempt_before_it(store):
    accept(store, new_job(1))
    ends = (
        end(1, evidence={"how": "signal 9"}),
        end(2, cause="released", draw="other:7"),
        end(3, cause="succeeded", went="end", offset=5),
    )
    ended = outcome(1, attempt=3, offset=5, ended_at=NOW + 1, ends=ends, dropped_ends=4)
    assert [each.kind for each in settle(store, ended)] == ["settled"]
    assert [each.kind for each in settle(store, ended)] == ["repeated"]
    assert told(store) == [
        (1, 1, "", "lease_lost", "pool", 1),
        (1, 2, "", "released", "pool", 2),
        (1, 3, "succeeded", "succeeded", "end", 5),
    ]
    first, second, third = store.read(attempts_of, "job-000001")
    assert (first["pool"], first["started_at"], first["start_offset"]) == (POOL, NOW - 10, 0)
    assert (first["evidence"], second["evidence"]) == ('{"how":"signal 9"}', None)
    assert (second["worker"], third["worker"]) == ("other", "worker")
    assert (third["outcome_at"], third["ended_at"], third["dropped"]) == (NOW + 1, NOW, 4)
    assert store.read(job, "job-000001").attempts == 1, "only what its outcome ended counts"


def test_attempts_are_the_same_whatever_order_their_outcomes_come_in(store):
    ends = (end(1), end(2, cause="released", ended_at=NOW + 5))
    # The first outcome is of an older version; after a loss in Redis an attempt ended once more.
    ended = [
        outcome(1, OutcomeKind.FAILED, attempt=1, offset=9),
        outcome(1, OutcomeKind.WITHDRAWN, attempt=2, draw="worker:1", offset=2, ends=ends),
        outcome(1, OutcomeKind.FAILED, dispatch=2, ends=(ends[1], end(1, dispatch=2, cause="failed"))),
        outcome(
            1, OutcomeKind.FAILED, dispatch=3, ends=(changed(ends[0], ended_at=NOW + 9, cause="failed"),)
        ),
    ]
    seen = set()
    for number, order in enumerate(itertools.permutations(ended)):
        accept(store, new_job(number))
        mine = [changed(each, job_id=f"job-{number:06}") for each in order]
        settle(store, *mine[:2])
        settle(store, *mine[2:], *mine)
        rows = store.read(attempts_of, f"job-{number:06}")
        seen.add(tuple(tuple(row.values())[1:] for row in rows))
    [rows] = seen
    assert len(rows) == 4
    assert told(store, 0)[:2] == [
        (1, 1, "failed", "lease_lost", "pool", 1),
        (1, 2, "withdrawn", "released", "pool", 2),
    ]


def test_an_outcome_counts_although_its_attempt_was_noted_before(store):
    accept(store, new_job(1))
    noted = outcome(1, OutcomeKind.WITHDRAWN, attempt=2, draw="worker:2", dispatch=9, ends=(end(1),))
    assert [each.kind for each in settle(store, noted)] == ["stale"]
    settle_each(store, outcome(1, attempt=1))
    assert state_of(store, 1) == ("succeeded", 1)


def test_a_dead_letter_has_the_attempts_that_no_outcome_names(store):
    accept(store, new_job(1))
    settle_each(
        store,
        outcome(
            1, OutcomeKind.POISONED, attempt=2, ends=(end(1, evidence={"how": "oom"}), end(2, went="end"))
        ),
    )
    history = store.read(dead_letter, "job-000001").attempts
    assert [(each.attempt, each.cause, each.evidence) for each in history] == [
        (1, "lease_lost", {"how": "oom"}),
        (2, "lease_lost", {}),
    ]


def older_attempts(count, message):
    """Rows of so many earlier dispatches of job 1."""
    ended = AttemptEnd(
        dispatch=0,
        attempt=1,
        draw_id="worker:1",
        pool=POOL,
        run=0,
        offset=0,
        started_at=NOW,
        start_offset=0,
        ended_at=NOW,
        cause="failed",
        went="database",
    )
    error = JobError("engine_failed", message, retryable=True)
    of_end = {name: value for name, value in vars(ended).items() if name != "evidence"}
    known = {"job_id": "job-000001", "worker": "worker", "kind": "failed", "dropped": 0, "outcome_at": NOW}
    row = {**of_end, **known, "error": error_to_text(error), "evidence": None}
    return [{**row, "dispatch": 100 + number} for number in range(count)]


def test_a_job_with_thousands_of_attempts_costs_its_neighbours_nothing(store):
    accept(store, new_job(1))
    rows = older_attempts(2_000, "x")
    write(store, lambda connection, items: insert_rows(connection, attempts, rows) or items, None)
    ended = outcome(1, OutcomeKind.POISONED)
    read = store.read(lambda connection: AttemptRows.of(connection, ["job-000001"], [ended])._known)
    assert read == {"job-000001": {}}
    settle_each(store, ended)
    letter = store.read(dead_letter, "job-000001")
    assert 0 < len(letter.attempts) <= MAX_LETTER_ATTEMPTS
    assert letter.attempts[-1].dispatch == 2_099
    assert len(letter.attempts) + letter.dropped == 2_001
    told = store.read(attempts_of, "job-000001")
    assert (len(told), told[-1]["dispatch"]) == (MAX_ATTEMPTS_KEPT, 2_099)
    assert len(told) + told[0]["dropped"] == 2_001


def kept_attempts(store):
    query = select(attempts.c.dispatch, attempts.c.dropped).order_by(attempts.c.dispatch)
    return store.read(lambda connection: list(connection.execute(query)))


def fail_at(store, *numbers, **fields):
    """Attempts of job 1 end with their dispatches, and another is to come."""
    for number in numbers:
        store.write_alone(lambda connection, n=number: connection.execute(row_at(n)) and None).result()
        settle_each(store, outcome(1, OutcomeKind.WITHDRAWN, dispatch=number, **fields))


def row_at(dispatch):
    changed = {"dispatch": dispatch, "state": "running"}
    return update(jobs).where(jobs.c.job_id == "job-000001").values(changed)


def test_a_job_keeps_its_newest_attempts_and_the_number_of_all(store):
    accept(store, new_job(1))
    rows = older_attempts(MAX_ATTEMPTS_KEPT + TRIM_BY, "x")
    rows[3]["dropped"], rows[TRIM_BY + 1]["dropped"] = 7, 5
    rows[-1] |= {"dropped": 9, "kind": "", "error": None, "outcome_at": None}
    write(store, lambda connection, items: insert_rows(connection, attempts, rows) or items, None)
    last = rows[-1]["dispatch"]
    total = len(rows) + 7 + 5 + 9
    fail_at(store, last + 1)
    kept = kept_attempts(store)
    assert (len(kept), kept[-1].dispatch) == (MAX_ATTEMPTS_KEPT, last + 1)
    assert len(kept) + sum(row.dropped for row in kept) == total + 1
    # It is done once for many.
    fail_at(store, last + 2, last + 3)
    assert len(kept_attempts(store)) == MAX_ATTEMPTS_KEPT + 2
    told = store.read(attempts_of, "job-000001")
    assert len(told) == MAX_ATTEMPTS_KEPT
    assert len(told) + sum(row["dropped"] for row in told) == total + 3
    # The outcome of an attempt that was known by its end alone, late.
    late = outcome(1, OutcomeKind.WITHDRAWN, dispatch=last)
    assert [each.kind for each in settle(store, late)] == [SettledKind.STALE]
    assert sum(row.dropped for row in kept_attempts(store)) + MAX_ATTEMPTS_KEPT + 2 == total + 3
    store.write_alone(lambda connection: connection.execute(row_at(last + 4)) and None).result()
    settle_each(store, outcome(1, OutcomeKind.POISONED, dispatch=last + 4))
    letter = store.read(dead_letter, "job-000001")
    assert len(letter.attempts) + letter.dropped == total + 4


def test_a_letter_is_small_however_long_the_words_of_its_attempts(store):
    accept(store, new_job(1))
    rows = older_attempts(99, "long " * 10_000)
    write(store, lambda connection, items: insert_rows(connection, attempts, rows) or items, None)
    settle_each(store, outcome(1, OutcomeKind.POISONED))
    letter = store.read(dead_letter, "job-000001")
    assert len(letter.attempts) == 100
    messages = [each.error.message for each in letter.attempts]
    assert messages[0] == "it broke"
    assert set(messages[1:]) == {f"{'long ' * (MAX_MESSAGE_CHARACTERS // 5)}…"}
