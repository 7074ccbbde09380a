"""The hook that hears of dead letters: of each at least once, whatever the hook does, at its own cost."""

import importlib
import sys
import threading
from dataclasses import FrozenInstanceError
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from support.databases import NOW, accept, decide, new_job, outcome, write
from support.waiting import PATIENCE_SECONDS
from tether.errors import ConfigError
from tether.hooks import load_death_hook
from tether.jobs import OutcomeKind
from tether.orchestrator import death_hook
from tether.orchestrator.death_hook import MAX_FAILURES_IN_ROW, MAX_PAUSE_SECONDS, TellOfDeaths
from tether.orchestrator.hook_calls import HookCalls
from tether.orchestrator.set_aside import MAX_PAUSE_MS
from tether.store.dead_letters import dead_letter
from tether.store.letter_hooks import next_hook_at
from tether.store.pruning import prune
from tether.store.settlements import Settle, Settlement
from tether.telemetry import metrics

SETTLE = Settle(decide, has_hook=True)
LIMIT_MS = 5_000


class Teller:
    """The step of one orchestrator, with clocks by hand."""

    def __init__(self, store, hook):
        self.store = store
        self.now = NOW
        self.ended = threading.Event()
        load = hook if hook is None or (callable(hook) and hook.__name__ == "load") else lambda: hook
        self.calls = HookCalls(load, on_end=self.ended.set, clock=self.seconds, batch_seconds=1.0)
        self.step = TellOfDeaths(
            store, self.calls, time_limit_ms=LIMIT_MS, now_ms=lambda: self.now, clock=self.seconds
        )

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
    assert TellOfDeaths(store, None, time_limit_ms=1, now_ms=lambda: NOW)() == death_hook.IDLE


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


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_letter_at_which_the_hook_fails_holds_up_no_other_and_comes_again(store, teller, error):
    heard, failed = [], []

    def hook(letter):
        if letter.job_id == "job-000000" and len(failed) < 2:
            failed.append(told.now)
            raise error("no")
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


def test_a_hook_that_hangs_is_told_of_and_keeps_nobody_else(store, teller):
    heard, go_on, has_begun = [], threading.Event(), threading.Event()

    def hook(letter):
        has_begun.set()
        go_on.wait(PATIENCE_SECONDS)
        heard.append(letter.job_id)

    told = teller(hook)
    before = counted("overdue")
    jobs = die(store, 1, 2)
    assert told.begin()
    assert has_begun.wait(PATIENCE_SECONDS)
    with capture_logs() as logs:
        assert told.step() == LIMIT_MS / 1000
        told.later(LIMIT_MS)
        assert told.step() == death_hook.IDLE
        assert told.step() == death_hook.IDLE
    assert [(each["job"], each["limit_seconds"]) for each in logs] == [(jobs[0], LIMIT_MS / 1000)]
    assert counted("overdue") == before + 1
    # Another letter waits, and no further thread hangs.
    jobs += die(store, 3)
    told.step()
    assert [thread.name for thread in threading.enumerate()].count("tether-on-dead") == 1
    assert heard == []
    go_on.set()
    assert told.ended.wait(PATIENCE_SECONDS)
    told.tell()
    assert heard == jobs


def test_a_hook_that_hangs_does_not_keep_a_process_from_its_end(store, teller, monkeypatch):
    monkeypatch.setattr("tether.orchestrator.hook_calls.STOP_SECONDS", 0.01)
    go_on, has_begun = threading.Event(), threading.Event()
    told = teller(lambda letter: (has_begun.set(), go_on.wait(PATIENCE_SECONDS)))
    die(store, 1)
    assert told.begin()
    assert has_begun.wait(PATIENCE_SECONDS)
    assert not told.calls.stop()
    go_on.set()


def test_a_letter_that_was_deleted_is_owed_to_nobody(store, teller):
    heard = []
    (job_id,) = die(store, 1)
    store.write_alone(prune, [job_id]).result()
    told = teller(heard.append)
    told.tell()
    told.tell()
    assert heard == []
    assert store.read(next_hook_at) is None


def test_letters_wait_for_a_hook_that_cannot_be_imported_yet(store, teller, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = f"pager_{uuid4().hex}"

    def load():
        return load_death_hook(f"{module}:page")

    told = teller(load)
    (job_id,) = die(store, 1)
    with capture_logs() as logs:
        told.tell()
        told.tell()
    assert [("cannot be imported" in each["error"]) for each in logs] == [True]
    (tmp_path / f"{module}.py").write_text("heard = []\npage = heard.append\n")
    importlib.invalidate_caches()
    told.later()
    told.tell()
    assert [letter.job_id for letter in sys.modules.pop(module).heard] == [job_id]


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
