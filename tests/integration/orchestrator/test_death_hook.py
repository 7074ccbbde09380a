"""The hook that hears of dead letters: of each at least once, whatever the hook does, at its own cost."""

import threading
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from support.databases import NOW, accept, decide, new_job, outcome, write
from support.waiting import PATIENCE_SECONDS, eventually
from tether.errors import ConfigError, StoreUnavailable
from tether.hooks import load_death_hook
from tether.orchestrator import death_hook
from tether.orchestrator.death_hook import MAX_FAILURES_IN_ROW, MAX_PAUSE_SECONDS, TellOfDeaths
from tether.orchestrator.hook_calls import HookCalls
from tether.orchestrator.set_aside import MAX_PAUSE_MS
from tether.outcomes import OutcomeKind
from tether.store.dead_letters import dead_letter
from tether.store.letter_hooks import next_hook_at, owed_hooks
from tether.store.pruning import prune
from tether.store.settlements import Settle, Settlement
from tether.telemetry import metrics

SETTLE = Settle(decide, has_hook=True)


class HookHere:
    """A hook in this process."""

    def __init__(self, hook):
        self.hook = hook
        self.is_closed = False

    def __call__(self, letter):
        self.hook(letter)

    def close(self):
        self.is_closed = True


class Teller:
    """The step of one orchestrator, with clocks by hand."""

    def __init__(self, store, hook):
        self.store = store
        self.now = NOW
        self.ended = threading.Event()
        self.hook = HookHere(hook)
        self.calls = HookCalls(self.hook, on_end=self.ended.set, clock=self.seconds, batch_seconds=1.0)
        self.step = TellOfDeaths(store, self.calls, now_ms=lambda: self.now, clock=self.seconds)

    def seconds(self):
        return self.now / 1000

    def begin(self):
        """One step. Return whether it began calls."""
        self.ended.clear()
        self.step()
        return self.calls.is_busy or self.ended.is_set()

    def tell(self):
        """Steps, until nothing is due or the hook rests."""
        while self.begin():
            assert self.ended.wait(PATIENCE_SECONDS)

    def later(self, ms=MAX_PAUSE_MS):
        self.now += ms


@pytest.fixture
def teller(store):
    opened = []

    def make(hook):
        opened.append(Teller(store, hook))
        return opened[-1]

    yield make
    for each in opened:
        each.calls.stop()


def die(store, *numbers, settle=SETTLE):
    accept(store, *map(new_job, numbers))
    write(store, settle, *(Settlement(outcome(number, OutcomeKind.POISONED), NOW) for number in numbers))
    return [f"job-{number:06}" for number in numbers]


def counted(result):
    return metrics.REGISTRY.value_of("tether_death_hook_calls_total", {"result": result}) or 0


def test_the_hook_hears_of_each_letter_once_without_its_token(store, teller):
    heard = []
    before = counted("ok")
    told = teller(heard.append)
    jobs = die(store, *range(40))
    told.tell()
    told.later()
    told.tell()
    assert sorted(letter.job_id for letter in heard) == jobs
    assert counted("ok") == before + 40
    kept = store.read(dead_letter, jobs[0])
    (letter,) = (each for each in heard if each.job_id == jobs[0])
    assert kept.retry_token
    assert letter.retry_token == ""
    assert (letter.reason, letter.model, letter.error, letter.attempts) == (
        *(kept.reason, kept.model, kept.error, kept.attempts),
    )
    with pytest.raises(FrozenInstanceError):
        letter.reason = "x"


def test_without_a_hook_nothing_is_owed(store):
    die(store, 1, settle=Settle(decide))
    assert store.read(next_hook_at) is None
    assert TellOfDeaths(store, None, now_ms=lambda: NOW)() == death_hook.IDLE


def test_what_a_process_did_not_note_is_told_by_the_next(store, teller, monkeypatch):
    heard = []
    jobs = die(store, 1, 2)
    dies_before_noting = teller(heard.append)
    assert dies_before_noting.begin()
    assert dies_before_noting.ended.wait(PATIENCE_SECONDS)
    assert [letter.job_id for letter in heard] == jobs
    following = teller(heard.append)
    following.tell()
    assert [letter.job_id for letter in heard] == 2 * jobs
    assert store.read(next_hook_at) is None


def test_a_letter_at_which_the_hook_fails_holds_up_no_other_and_comes_again(store, teller):
    heard, failed = [], []

    def hook(letter):
        if letter.job_id == "job-000000" and len(failed) < 2:
            failed.append(told.now)
            raise ValueError("no")
        heard.append(letter.job_id)

    told = teller(hook)
    jobs = die(store, *range(5))
    before = counted("error")
    told.tell()
    assert sorted(heard) == jobs[1:]
    assert store.read(next_hook_at) == NOW + 1_000
    told.tell()
    assert len(failed) == 1
    told.later(1_000)
    told.tell()
    assert store.read(next_hook_at) == told.now + 2_000
    told.later(2_000)
    told.tell()
    assert heard[-1] == jobs[0]
    assert counted("error") == before + 2
    assert store.read(next_hook_at) is None


def test_a_hook_that_fails_at_all_letters_rests_and_goes_on_when_it_is_well(store, teller):
    calls, is_broken = [], True

    def hook(letter):
        calls.append(letter.job_id)
        if is_broken:
            raise OSError("the pager is away")

    told = teller(hook)
    jobs = die(store, *range(100))
    told.tell()
    assert len(calls) == MAX_FAILURES_IN_ROW
    told.later(500)
    told.tell()
    assert len(calls) == MAX_FAILURES_IN_ROW
    for _ in range(10):
        told.later(int(MAX_PAUSE_SECONDS * 1000))
        told.tell()
    assert len(calls) == MAX_FAILURES_IN_ROW + 10
    is_broken = False
    told.later()
    told.tell()
    assert set(calls) == set(jobs)
    assert store.read(next_hook_at) is None


def test_a_call_that_is_under_way_at_the_end_is_waited_for_and_noted_or_ended(store, teller, monkeypatch):
    monkeypatch.setattr("tether.orchestrator.hook_calls.STOP_SECONDS", 0.01)
    die(store, 1)
    told = teller(lambda letter: None)
    assert told.begin()
    assert told.ended.wait(PATIENCE_SECONDS)
    told.step.close()
    assert told.hook.is_closed
    assert store.read(next_hook_at) is None, "nobody else tells of it again"

    class Hangs(HookHere):
        def __init__(self):
            super().__init__(None)
            self.has_begun, self.is_ended = threading.Event(), threading.Event()

        def __call__(self, letter):
            self.has_begun.set()
            assert self.is_ended.wait(PATIENCE_SECONDS)
            raise OSError("ended")

        def close(self):
            self.is_ended.set()

    die(store, 2)
    told = teller(None)
    told.calls._hook = hook = Hangs()
    assert told.begin()
    assert hook.has_begun.wait(PATIENCE_SECONDS)
    told.step.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tether-on-dead"]
    assert store.read(next_hook_at) == NOW + 1_000, "the next orchestrator tells of it"


def test_while_nothing_can_be_noted_the_hook_is_not_called_again_with_the_same_letters(
    store, teller, monkeypatch
):
    heard = []
    jobs = die(store, *range(5))
    told = teller(heard.append)
    note, is_away = death_hook.note_hook_answers, True

    def full(connection, answers):
        if is_away:
            raise StoreUnavailable("the disk is full")
        return note(connection, answers)

    monkeypatch.setattr(death_hook, "note_hook_answers", full)
    assert told.begin()
    assert told.ended.wait(PATIENCE_SECONDS)
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            told.step()
        told.later()
    assert [letter.job_id for letter in heard] == jobs
    is_away = False
    told.later()
    told.tell()
    assert [letter.job_id for letter in heard] == jobs
    assert store.read(next_hook_at) is None


def test_a_row_that_cannot_be_noted_holds_up_no_other(store, teller, monkeypatch):
    monkeypatch.setattr(death_hook, "HOOK_BATCH", 2)
    heard = []
    jobs = die(store, *range(6))
    told = teller(heard.append)
    note, stuck = death_hook.note_hook_answers, set(jobs[:2])

    def refuse_some(connection, answers):
        if stuck & {answer.job_id for answer in answers}:
            raise ValueError("refused")
        return note(connection, answers)

    monkeypatch.setattr(death_hook, "note_hook_answers", refuse_some)
    with capture_logs() as logs:
        for _ in range(3):
            told.tell()
            told.later()
    assert [letter.job_id for letter in heard] == jobs
    assert {each["job"] for each in logs} == stuck
    stuck.clear()
    told.tell()
    assert store.read(next_hook_at) is None


def test_while_too_many_rows_cannot_be_noted_no_further_calls_are_made(store, teller, monkeypatch):
    monkeypatch.setattr(death_hook, "HOOK_BATCH", 2)
    monkeypatch.setattr(death_hook, "MAX_UNNOTED", 4)
    heard = []
    jobs = die(store, *range(9))
    told = teller(heard.append)
    note = death_hook.note_hook_answers

    def refuse(connection, answers):
        raise ValueError("refused")

    monkeypatch.setattr(death_hook, "note_hook_answers", refuse)
    told.tell()
    told.tell()
    assert [letter.job_id for letter in heard] == jobs[:4]
    monkeypatch.setattr(death_hook, "note_hook_answers", note)
    told.later()
    told.tell()
    assert [letter.job_id for letter in heard] == jobs
    assert store.read(next_hook_at) is None


def test_as_many_as_cannot_be_noted_can_be_left_out_of_what_is_owed(store):
    jobs = die(store, 1)
    left_out = [f"none-{number:06}" for number in range(death_hook.MAX_UNNOTED + death_hook.HOOK_BATCH)]
    assert [each.job_id for each in store.read(owed_hooks, NOW, 2, left_out)] == jobs
    assert store.read(next_hook_at, left_out) == NOW


def test_the_thread_goes_on_where_the_end_of_its_calls_cannot_be_told():
    heard, told, is_away = [], threading.Event(), True

    def on_end():
        if is_away:
            told.set()
            raise RuntimeError("the loop is gone")
        told.set()

    calls = HookCalls(HookHere(heard.append), on_end=on_end, clock=lambda: 0.0, batch_seconds=1.0)
    try:
        with capture_logs() as logs:
            for number in range(2):
                calls.begin([SimpleNamespace(job_id=number)])
                assert told.wait(PATIENCE_SECONDS)
                eventually(lambda: not calls.is_busy, PATIENCE_SECONDS, "the batch is over")
                told.clear()
                is_away = False
    finally:
        calls.stop()
    assert [letter.job_id for letter in heard] == [0, 1]
    assert [each["error"] for each in logs] == ["the loop is gone"]


def test_a_letter_that_was_deleted_is_owed_to_nobody(store, teller):
    heard = []
    (job_id,) = die(store, 1)
    store.write_alone(prune, [job_id]).result()
    told = teller(heard.append)
    told.tell()
    told.tell()
    assert heard == []
    assert store.read(next_hook_at) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module:function", "cannot be imported"),
        ("json:no_such_function", "cannot be imported"),
        ("json:__doc__", "plain function"),
        ("asyncio:sleep", "plain function"),
    ],
)
def test_a_hook_that_is_none_is_told_with_what_to_do(name, text):
    with pytest.raises(ConfigError, match=text):
        load_death_hook(name)
