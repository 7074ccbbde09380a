"""The doctor tells of letters that the hook on_dead has not heard of."""

import json

import pytest

from support.databases import NOW
from tether.ids import JobId
from tether.local import hook_check
from tether.local.doctor import CheckStatus
from tether.local.hook_check import LATE_MS, backlog_at, check_death_hook
from tether.store import Store
from tether.store.letter_hooks import HookAnswer, HookBacklog, note_hook_answers, owe_hooks


def owe(store, failures, due_at):
    job_ids = [JobId(f"job-{failures}-{due_at}-{number}") for number in range(2)]
    store.write_alone(owe_hooks, job_ids, NOW).result()
    answers = [HookAnswer(job_id, due_at, failures) for job_id in job_ids]
    store.write_each(note_hook_answers, answers)


@pytest.fixture
def checked(store, database_url, monkeypatch):
    # Any function will do: nobody calls it here.
    monkeypatch.setattr(hook_check.time, "time_ns", lambda: NOW * 1_000_000)
    monkeypatch.setattr(hook_check, "try_death_hook", json.loads)
    return lambda: check_death_hook('"pager:page"', lambda: backlog_at(database_url))


def test_letters_that_are_told_soon_are_no_finding(store, database_url, checked):
    owe(store, 0, NOW - LATE_MS)
    owe(store, 1, NOW)
    assert (checked().verdict, backlog_at(database_url)) == (CheckStatus.OK, HookBacklog(0, 0))


def test_one_that_fails_again_and_again_is_told_and_one_that_nobody_calls(store, database_url, checked):
    owe(store, 0, NOW - LATE_MS - 1)
    check = checked()
    assert (check.verdict, "2 dead letters for more than 5 minutes" in check.found) == (
        CheckStatus.WARN,
        True,
    )
    assert "an orchestrator runs" in check.mend
    owe(store, 2, NOW + 1_000)
    check = checked()
    assert (check.verdict, "again and again at 2 dead letters" in check.found) == (CheckStatus.WARN, True)
    assert "log" in check.mend
    assert backlog_at(database_url) == HookBacklog(2, 2)


def test_without_a_hook_or_a_database_there_is_none(checked, tmp_path):
    assert check_death_hook("", lambda: HookBacklog(9, 9)).verdict is CheckStatus.OK
    missing = tmp_path / "none.db"
    assert backlog_at(f"sqlite:///{missing}") is None
    assert not missing.exists()
    Store(f"sqlite:///{missing}").open().close()
    assert backlog_at(f"sqlite:///{missing}") == HookBacklog(0, 0)
    assert checked().verdict is CheckStatus.OK
