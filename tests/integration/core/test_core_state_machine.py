"""Jobs under random interleavings, crashes between any two steps, stale workers, losses in Redis."""

from dataclasses import replace

import pytest

from support.core_machine import CoreMachine
from support.databases import store_in_memory
from support.machines import catches_bug, run_machine
from tether.broker.pools.pools import Pools
from tether.broker.scripts import BROKER_SCRIPTS
from tether.jobs import JobState
from tether.orchestrator.outbox_relay import RelayOutbox
from tether.orchestrator.outcomes import SettleOutcomes
from tether.orchestrator.reconcile import Reconcile
from tether.store import placements, settlements

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


@pytest.fixture(scope="module")
def store():
    with store_in_memory() as opened:
        yield opened


@pytest.mark.parametrize("examples", [30, pytest.param(300, marks=pytest.mark.long)])
def test_every_job_ends_once_and_whole(machine_redis_url, store, examples):
    run_machine(CoreMachine, {"url": machine_redis_url, "store": store}, max_examples=examples)


def plant(script, original, planted):
    """A bug in one script."""

    def apply(monkeypatch):
        sound = BROKER_SCRIPTS.source
        assert sound(f"pool/{script}").count(original) == 1
        monkeypatch.setattr(
            BROKER_SCRIPTS,
            "source",
            lambda name: (
                sound(name).replace(original, planted, 1) if name == f"pool/{script}" else sound(name)
            ),
        )

    return apply


def without_second_look(planted):
    """The same bug where reconcile does not look for what was handed back to nobody."""

    def apply(monkeypatch):
        planted(monkeypatch)
        monkeypatch.setattr(Pools, "hand_back_many", lambda _, jobs: [""] * len(jobs))

    return apply


def without_outbox(monkeypatch):
    monkeypatch.setattr(RelayOutbox, "__call__", lambda self: 1.0)


def settle_before_commit(monkeypatch):
    carry = SettleOutcomes._carry

    def hasty(self, entries, unreadable):
        self._outcomes.acknowledge(entry.entry_id for entry in entries)
        carry(self, entries, unreadable)

    monkeypatch.setattr(SettleOutcomes, "_carry", hasty)


def keep_holds(monkeypatch):
    monkeypatch.setattr(settlements, "free_holds", lambda *_: None)


def without_reconcile(monkeypatch):
    monkeypatch.setattr(Reconcile, "_reconcile", lambda self: None)


def settle_what_is_final(monkeypatch):
    sound = settlements._settle_one

    def loose(changes, settlement, decide):
        row = changes.rows.get(settlement.outcome.job_id)
        if row is not None and row.state.is_final:
            changes.rows[row.job_id] = replace(row, state=JobState.PLACED)
        return sound(changes, settlement, decide)

    monkeypatch.setattr(settlements, "_settle_one", loose)


def without_second_telling(monkeypatch):
    monkeypatch.setattr(Reconcile, "_follow", lambda *_: None)


def record_whatever_was_placed(monkeypatch):
    """Where reconcile does not find it later."""
    without_second_telling(monkeypatch)
    sound = placements._recorded

    def loose(row, item):
        return sound(row, item if row is None else item._replace(priority=row.priority))

    monkeypatch.setattr(placements, "_recorded", loose)


PLANTED = {
    "fences are not compared: append": plant(
        "append_many", "if job_fence ~= fence(dispatch, attempt, draw) then", "if false then"
    ),
    "fences are not compared: finish": plant(
        "finish", "if job_fence ~= fence(dispatch, attempt, draw) then", "if false then"
    ),
    "offsets are not compared": plant(
        "append_many", "if job_run ~= run or job_offset ~= offset then", "if false then"
    ),
    "a dispatch is placed twice": plant(
        "place", "if is_readable and job_number == number then", "if false then"
    ),
    "a success is handed back to nobody": without_second_look(
        plant("finish", "add_outcome(id, 'succeeded',", "local _ = (function() end)(id, 'succeeded',")
    ),
    "a failure is handed back to nobody": without_second_look(
        plant("fail", "write_outcome(id, kind, now, error, was_probe)\nif kind ~=", "if kind ~=")
    ),
    "a lost attempt's job waits nowhere": plant(
        "expire", "return_to_pool(id, now, worker, 'lease_lost')", "''"
    ),
    "nobody relays the outbox": without_outbox,
    "outcomes are acknowledged before the commit": without_second_look(settle_before_commit),
    "holds are kept": keep_holds,
    "nothing is reconciled": without_reconcile,
    "what is final is settled again": settle_what_is_final,
    "a job that is moved waits nowhere": plant(
        "reprioritise", "redis.call('LPUSH', list, entry)", "local _ = nil"
    ),
    "a running job's next attempt has the priority of before": plant(
        "release", "if is_priority(job_next) then", "if false then"
    ),
    "nobody tells Redis of a priority again": without_second_telling,
    "what was placed with the priority of before is recorded": record_whatever_was_placed,
}
"""Bugs, each of which breaks one promise."""

FOUND_SOON = {
    "fences are not compared: append": 1,
    "fences are not compared: finish": 8,
    "offsets are not compared": 0,
    "a failure is handed back to nobody": 8,
    "a lost attempt's job waits nowhere": 7,
    "outcomes are acknowledged before the commit": 8,
    "what is final is settled again": 0,
    "a job that is moved waits nowhere": 3,
    "a running job's next attempt has the priority of before": 2,
}
"""Bugs that show soon among the examples with these numbers, and late among those that hypothesis takes."""

FOUND_LATE = {
    "nothing is reconciled",
    "what is final is settled again",
    "nobody tells Redis of a priority again",
    "what was placed with the priority of before is recorded",
}
"""Bugs that take longest to show: `--mutants` plants them, CI does not."""

assert FOUND_SOON.keys() | FOUND_LATE <= PLANTED.keys()


@pytest.mark.mutants
@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=[pytest.mark.long] * (bug in FOUND_LATE)) for bug in PLANTED]
)
def test_a_planted_bug_is_caught(bug, machine_redis_url, store, monkeypatch):
    PLANTED[bug](monkeypatch)
    assert catches_bug(
        CoreMachine, {"url": machine_redis_url, "store": store}, max_examples=250, number=FOUND_SOON.get(bug)
    )
