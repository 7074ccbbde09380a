"""The life of a retry token in the database: issued, used, used again, purged, expired, pruned, forged."""

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import Engine, event, select

from support.databases import NOW, accept, fresh_sqlite, new_job, outcome, settle_each, write
from support.machines import catches_bug, run_machine
from tether.dead_letters import LetterFilter, LetterState
from tether.orchestrator.letter_expiry import ExpireLetters
from tether.outcomes import OutcomeKind
from tether.store import Store, admissions
from tether.store.admissions import AdmissionKind, admit
from tether.store.dead_letters import dead_letter, scan_letters
from tether.store.letter_changes import LetterClosing, close_letters
from tether.store.letter_retries import owner_of_token, retry_chain
from tether.store.pruning import prunable_jobs, prune
from tether.store.schema import jobs

RETENTION_MS = 1_000
OPEN, RETRIED, PURGED, EXPIRED = LetterState
PICK = st.integers(0, 9)
NUMBERS = itertools.count()


class Letter:
    def __init__(self, job_id, died_at):
        self.job_id = job_id
        self.died_at = died_at
        self.state = OPEN
        self.made = None
        self.is_gone = False


class TokenMachine(RuleBasedStateMachine):
    """What each token may do, told from a few lines of its own."""

    store = None

    def __init__(self):
        super().__init__()
        self.letters = []
        self.now = NOW
        self.purge_all()

    def purge_all(self):
        """Nothing of the run before is open."""
        found = self.store.read(scan_letters, LetterFilter(), None, 1_000)
        closings = [LetterClosing(place.job_id, PURGED, NOW) for place in found.places]
        write(self.store, close_letters, *closings)

    def letter(self, pick):
        return self.letters[pick % len(self.letters)] if self.letters else None

    def die(self, job_id):
        settle_each(self.store, outcome(int(job_id[4:]), OutcomeKind.POISONED), now_ms=self.now)
        self.letters.append(Letter(job_id, self.now))

    def retry_of(self, letter):
        number = next(NUMBERS)
        return new_job(
            number,
            retry_of=letter.job_id,
            correlation_id="chain",
            retry_token=f"letter-{letter.job_id}",
            now_ms=self.now,
        )

    @rule()
    def a_job_dies(self):
        job = new_job(next(NUMBERS), now_ms=self.now)
        accept(self.store, job)
        self.die(job.job_id)

    @rule(pick=PICK)
    def a_retry_dies_too(self, pick):
        letter = self.letter(pick)
        dead = {each.job_id for each in self.letters}
        if letter and letter.made and not letter.is_gone and letter.made not in dead:
            self.die(letter.made)

    @rule(pick=PICK, times=st.integers(1, 3), together=st.booleans())
    def a_token_is_used(self, pick, times, together):
        letter = self.letter(pick)
        if letter is None or letter.is_gone:
            return
        uses = [self.retry_of(letter) for _ in range(times)]
        answers = write(self.store, admit, *uses) if together else self.store.write_each(admit, uses)
        kinds = [answer.kind for answer in answers]
        if letter.state in (PURGED, EXPIRED):
            assert set(kinds) == {AdmissionKind.LETTER_CLOSED}
            return
        if letter.state is OPEN:
            assert kinds == [AdmissionKind.ACCEPTED] + [AdmissionKind.KNOWN] * (times - 1)
            letter.state, letter.made = RETRIED, answers[0].job_id
        else:
            assert set(kinds) == {AdmissionKind.KNOWN}
        assert {answer.job_id for answer in answers} == {letter.made}

    @rule(pick=PICK)
    def a_letter_is_purged(self, pick):
        letter = self.letter(pick)
        if letter is None or letter.is_gone:
            return
        answer = write(self.store, close_letters, LetterClosing(letter.job_id, PURGED, self.now))
        assert answer == [letter.state is OPEN]
        if letter.state is OPEN:
            letter.state = PURGED

    @rule(milliseconds=st.sampled_from([1, RETENTION_MS // 2, RETENTION_MS + 1]))
    def time_passes_and_letters_expire(self, milliseconds):
        self.now += milliseconds
        ExpireLetters(self.store, retention_ms=RETENTION_MS, now_ms=lambda: self.now)()
        for letter in self.letters:
            if letter.state is OPEN and letter.died_at < self.now - RETENTION_MS:
                letter.state = EXPIRED

    @rule()
    def what_ended_is_pruned(self):
        pruned = set(self.store.read(prunable_jobs, self.now, 1_000, now_ms=self.now))
        if pruned:
            write(self.store, prune, *sorted(pruned))
        for letter in self.letters:
            if letter.job_id in pruned:
                assert letter.state is not OPEN, "no open letter is deleted"
                letter.is_gone = True

    @rule(pick=PICK)
    def a_token_is_foreign_or_forged(self, pick):
        letter = self.letter(pick)
        token = f"letter-{letter.job_id}" if letter else "letter-none"
        assert self.store.read(owner_of_token, token, "another") is None
        assert self.store.read(owner_of_token, f"{token}-forged", "default") is None

    @invariant()
    def the_database_agrees(self):
        found = self.store.read(scan_letters, LetterFilter(tenant_id="default"), None, 1_000)
        open_ones = {letter.job_id for letter in self.letters if letter.state is OPEN}
        assert {place.job_id for place in found.places} == open_ones
        for letter in self.letters:
            stored = self.store.read(dead_letter, letter.job_id)
            assert (stored is None) == letter.is_gone
            if stored is not None:
                assert (stored.state, stored.retried_as) == (letter.state, letter.made)
                assert bool(stored.retry_token) == (letter.state in (OPEN, RETRIED))
                made = self.store.read(retries_of, letter.job_id)
                assert made in ([], [letter.made])
                chain = self.store.read(retry_chain, letter.job_id, "default")
                assert letter.job_id in [link.job_id for link in chain]


def retries_of(connection, job_id):
    return list(connection.execute(select(jobs.c.job_id).where(jobs.c.retry_of == job_id)).scalars())


@pytest.mark.parametrize("examples", [8, pytest.param(300, marks=pytest.mark.long)])
def test_a_token_makes_one_job_at_most_whatever_happens_to_its_letter(store, examples):
    run_machine(TokenMachine, {"store": store}, examples)


def test_a_batch_is_closed_in_two_statements_each_letter_by_one_of_those_who_ask(store):
    numbers = [next(NUMBERS) for _ in range(60)]
    accept(store, *map(new_job, numbers))
    settle_each(store, *(outcome(number, OutcomeKind.POISONED) for number in numbers))
    ids = [f"job-{number:06}" for number in numbers]
    purge = [LetterClosing(job_id, PURGED, NOW) for job_id in ids]
    asked = []

    def note(*call):
        asked.append(call[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        answers = write(store, close_letters, *purge[:50])
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert answers == [True] * 50
    assert len([each for each in asked if "dead_letters" in each]) == 2
    # Two who purge in one transaction, and one who lets expire.
    expire = [LetterClosing(job_id, EXPIRED, NOW) for job_id in ids]
    assert write(store, close_letters, *expire[45:55], *purge[45:]) == [
        *([False] * 5),
        *([True] * 5),
        *([False] * 10),
        *([True] * 5),
    ]
    states = [store.read(dead_letter, job_id).state for job_id in ids]
    assert states == [*([PURGED] * 50), *([EXPIRED] * 5), *([PURGED] * 5)]


def forget_to_close(connection, job_id, retried_as, now_ms):
    pass


def close_for_another_job(connection, job_id, retried_as, now_ms):
    CLOSE(connection, job_id, "job-999999", now_ms)


def find_all_open(connection, job_ids):
    return dict.fromkeys(LOCKED(connection, job_ids), OPEN)


CLOSE, LOCKED = admissions.close_as_retried, admissions.locked_letters
PLANTED = {
    "a used letter stays open": ("close_as_retried", forget_to_close),
    "a letter is linked with another job": ("close_as_retried", close_for_another_job),
    "a closed letter passes for an open one": ("locked_letters", find_all_open),
    "a second use is another request": ("is_same_job", lambda digest, retry_of, mine, my: digest == mine),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(tmp_path, monkeypatch, bug):
    name, planted = PLANTED[bug]
    monkeypatch.setattr(admissions, name, planted)
    with Store(fresh_sqlite(tmp_path / "tether.db")) as store:
        assert catches_bug(TokenMachine, {"store": store}, 20)
