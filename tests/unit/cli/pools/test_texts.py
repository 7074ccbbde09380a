"""How pools are shown, and how what waits in one is changed in steps."""

import pytest

from tether.errors import ResultTimeout
from tether_cli.pools import changes
from tether_cli.pools.texts import (
    MEMBER_COLUMNS,
    POOL_COLUMNS,
    POOL_LEFT_OUT_FIRST,
    member_row,
    pool_lines,
    pool_row,
)
from tether_cli.terminal.tables import fitting_columns

NAME = "gpu.cpu.local.tiny-aaaaaaaa"
POOL = {
    "pool": NAME,
    "model": "tiny",
    "version": "1",
    "state": "serving",
    "reason": None,
    "paused_at": None,
    "gpu_class": "cpu",
    "region": "local",
    "workers": 3,
    "suspect_workers": 0,
    "held_workers": 0,
    "silent_workers": 0,
    "slots": 8,
    "free": 5,
    "is_warm": True,
    "tokens_per_second": 12.34,
    "jobs": 7,
    "waiting": 3,
    "owed": 1,
    "classes": [{"priority": "batch", "waiting": 3, "waiting_alone": 2, "owed": 1}],
}
MEMBER = {
    "worker_id": "0123456789abcdef",
    "name": "",
    "state": "serving",
    "model_state": "warm",
    "is_silent": False,
    "held": None,
    "free": 1,
    "slots": 2,
    "tokens_per_second": 4.0,
}


def cells(**changed):
    return dict(zip(POOL_COLUMNS, pool_row({**POOL, **changed}), strict=True))


def test_a_pool_is_a_row():
    row = cells()
    assert row["model"] == "tiny@1"
    assert [row[name] for name in ("workers", "free", "jobs", "waiting", "owed")] == [
        "3",
        "5/8",
        "7",
        "3",
        "1",
    ]
    assert row["tokens/s"] == "12.3"


def test_what_is_wrong_with_workers_is_told_where_something_is():
    assert cells(suspect_workers=1, silent_workers=2)["workers"] == "3 (1 suspect, 2 silent)"
    assert cells(held_workers=3, state="held_back")["state"] == "all held back"


def test_what_is_not_known_is_told_as_that():
    row = cells(model=None, version=None, gpu_class=None, region=None, waiting=None, state="no_workers")
    assert [row[name] for name in ("model", "gpu class", "region", "waiting", "state")] == [
        *("-", "-", "-", "?"),
        "no workers",
    ]


def test_a_pool_is_shown_with_its_pause_and_what_waits():
    shown = dict(pool_lines({**POOL, "state": "paused", "reason": "new driver", "paused_at": 0}))
    assert shown["paused"] == "since 1970-01-01T00:00:00Z: new driver"
    assert shown["waiting batch"] == "3 in Redis, 2 more that must run alone, 1 in the database"
    assert "paused" not in dict(pool_lines(POOL))
    assert dict(pool_lines({**POOL, "reason": "", "paused_at": 0}))["paused"] == "since 1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("changed", "state"),
    [({}, "serving"), ({"is_silent": True}, "silent"), ({"held": "3 failed"}, "held back")],
)
def test_a_worker_of_a_pool_is_a_row(changed, state):
    row = dict(zip(MEMBER_COLUMNS, member_row({**MEMBER, **changed}), strict=True))
    assert (row["state"], row["name"], row["free"], row["model"]) == (state, "-", "1/2", "warm")


def test_a_narrow_terminal_keeps_what_matters():
    columns, rows = fitting_columns(POOL_COLUMNS, [pool_row(POOL)], POOL_LEFT_OUT_FIRST, 80)
    assert columns[0] == "pool"
    assert {"state", "workers", "jobs", "waiting"} <= set(columns)
    assert rows[0][0] == NAME
    assert fitting_columns(POOL_COLUMNS, [], POOL_LEFT_OUT_FIRST, 1_000) == (POOL_COLUMNS, [])


class Steps:
    """Answers one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, count):
        self.asked.append(count)
        jobs, failed, has_more = self.answers.pop(0)
        return {"jobs": jobs, "failed": failed, "has_more": has_more}


def test_jobs_are_changed_a_part_at_a_time_until_as_many_are_done_as_waited():
    steps = Steps((256, 0, True), (256, 0, True), (88, 0, True))
    assert changes.in_steps(steps, 600)["jobs"] == 600
    assert steps.asked == [256, 256, 88]


def test_nothing_more_than_there_is_is_waited_for_and_what_fails_counts_once():
    steps = Steps((10, 2, True), (5, 2, False))
    done = changes.in_steps(steps, 600)
    assert (done["jobs"], done["failed"]) == (15, 2)


def test_what_is_not_settled_is_waited_for_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(changes, "SETTLING_SECONDS", 0)
    assert changes.in_steps(Steps((1, 0, True), (0, 0, True), (1, 0, False)), 9)["jobs"] == 2
    monkeypatch.setattr(changes, "MAX_SETTLING_SECONDS", 0)
    with pytest.raises(ResultTimeout, match=r"1 jobs are done, and the rest is not.*tether orchestrator"):
        changes.in_steps(Steps((1, 0, True), (0, 0, True)), 9)
