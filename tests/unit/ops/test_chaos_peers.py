"""What the kill test of several queues makes of their jobs' reports."""

import importlib

import pytest

from support.paths import ROOT

SECOND = 1_000_000_000


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "ops" / "bench"))
    return importlib.import_module("chaos_peers")


@pytest.fixture
def record(peers):
    def at(seconds, job_id, kind="started", instance="a", pid=1):
        return peers.Record(kind, job_id, instance, pid, int(seconds * SECOND))

    return at


def recoveries(peers, kills, started, finished=()):
    return list(peers.recoveries_of([(name, at * SECOND) for name, at in kills], started, finished))


def test_a_job_that_ran_at_a_kill_recovers_when_it_begins_again(peers, record):
    started = [record(1, "j"), record(5, "j", instance="b", pid=2)]
    assert recoveries(peers, [("a", 2)], started) == [3.0]


def test_a_job_that_never_begins_again_has_not_recovered(peers, record):
    assert recoveries(peers, [("a", 2)], [record(1, "j")]) == [None]


def test_a_job_that_had_finished_or_ran_elsewhere_was_not_struck(peers, record):
    started = [record(1, "done"), record(1, "other", instance="b", pid=2), record(3, "after", pid=3)]
    finished = [record(1.5, "done", kind="finished")]
    assert recoveries(peers, [("a", 2)], started, finished) == []


def test_a_job_that_was_struck_twice_counts_twice(peers, record):
    started = [
        record(1, "j"),
        record(3, "j", instance="b", pid=2),
        record(5, "j", pid=3),
    ]
    assert recoveries(peers, [("a", 2), ("b", 4)], started) == [1.0, 1.0]


def test_what_is_lost_or_doubled_stands_in_the_table_and_only_ours_has_a_goal(peers):
    tally = peers.KillTally(jobs=10, struck=2, recoveries=(1.0, None), finished=9, doubled=1, seconds=30.0)
    ours = {figure.name: figure for figure in peers.kill_figures(peers.TETHER, tally, 30.0)}
    assert ours["lost, of 10 within 30 s"].value == 1
    assert [ours[name].met for name in ("lost, of 10 within 30 s", "doubled")] == [False, False]
    longest = ours["until such a job began again, longest"]
    assert (longest.value, longest.lower_bound) == (30.0, True)
    assert all(not figure.goal for figure in peers.kill_figures(peers.CELERY, tally, 30.0))
