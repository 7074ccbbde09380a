"""A chaos run's checker finds each promise that is broken, and nothing in a run that keeps them."""

import dataclasses
import importlib

import pytest

from support.paths import ROOT

PIECES = ((11, "a"), (12, "b"), (13, "c"))
OTHER = ((11, "a"), (99, "x"), (13, "c"))


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "ops" / "bench"))
    return Run(*map(importlib.import_module, ("chaos_log", "chaos_snapshot", "chaos_checker")))


class Run:
    """A small run that keeps every promise: a job that succeeded, one that was cancelled, one that was
    refused; a reader that reconnected."""

    def __init__(self, log, snapshot, checker):
        self.log, self.snapshot_module, self.checker = log, snapshot, checker
        self.clients = []
        for number, (key, job_id) in enumerate([("k1", "j1"), ("k2", "j2")]):
            self.say("Submitting", tenant="t", key=key, request={"model": "m", "prompt": key})
            if number == 0:
                self.say("Unanswered", tenant="t", key=key, why="reset")
                self.say("Submitting", tenant="t", key=key, request={"model": "m", "prompt": key})
            self.say("Accepted", tenant="t", key=key, job_id=job_id, is_new=number != 0)
        self.say("Submitting", tenant="t", key="k4", request={"model": "m", "prompt": "k4"})
        self.say("Refused", tenant="t", key="k4", status=429, code="quota_exceeded")
        self.say("Connected", reader="r", job_id="j1", last_event_id="")
        self.receive("started", 0)
        self.receive("delta", 2, PIECES[:2])
        self.say("Disconnected", reader="r", job_id="j1", why="reset")
        self.say("Connected", reader="r", job_id="j1", last_event_id="2")
        self.receive("rerouted", 2)
        self.receive("delta", 3, PIECES[2:])
        self.receive("finished", 3, reason="stop")
        self.say("Cancelling", job_id="j2")
        self.say("CancelAnswered", job_id="j2", answer="running")
        self.receive("delta", 1, PIECES[:1], reader="r2", job_id="j2")
        self.receive("failed", 1, reason="cancelled", reader="r2", job_id="j2")
        self.say("Resulted", job_id="j1", state="succeeded", text="abc", finish_reason="stop")
        self.faults = [
            log.FaultEnded(
                at=1.0, client="faults", number=1, type="worker killed", target="w", effects={"lost": 1}
            )
        ]
        self.fault_types = {"worker killed"}
        self.snapshot = snapshot.ChaosSnapshot(
            jobs={
                "j1": self.row("j1", "k1"),
                "j2": self.row("j2", "k2", state="cancelled", pieces=None, finish_reason="", wins=0),
            },
        )
        self.undisturbed = dict.fromkeys(("k1", "k2", "k4"), snapshot.Undisturbed(PIECES, "stop"))

    def row(self, job_id, key, **changes):
        row = self.snapshot_module.ChaosJob(
            job_id=job_id,
            tenant="t",
            key=key,
            state="succeeded",
            has_deadline=False,
            pieces=PIECES,
            finish_reason="stop",
            output_tokens=3,
            wins=1,
        )
        return dataclasses.replace(row, **changes)

    def say(self, entry, /, **fields):
        self.clients.append(getattr(self.log, entry)(at=float(len(self.clients)), client="c", **fields))

    def receive(self, kind, offset, pieces=(), *, reason="", reader="r", job_id="j1", run=0):
        self.say(
            "Received",
            reader=reader,
            job_id=job_id,
            kind=kind,
            event_id=str(offset),
            run=run,
            offset=offset,
            pieces=pieces,
            reason=reason,
        )

    def change_job(self, job_id, **changes):
        jobs = {**self.snapshot.jobs, job_id: dataclasses.replace(self.snapshot.jobs[job_id], **changes)}
        self.snapshot = dataclasses.replace(self.snapshot, jobs=jobs)

    def change(self, **changes):
        self.snapshot = dataclasses.replace(self.snapshot, **changes)

    def insert_after(self, kind, entries, *, reader="r"):
        """Put entries behind the first one of this kind that a reader got."""
        place = next(
            i
            for i, entry in enumerate(self.clients)
            if getattr(entry, "kind", None) == kind and entry.reader == reader
        )
        rest, self.clients = self.clients[place + 1 :], self.clients[: place + 1]
        entries()
        self.clients += rest

    def remove(self, kind, *, reader="r"):
        for entry in [one for one in self.clients if getattr(one, "kind", None) == kind]:
            if entry.reader == reader:
                self.clients.remove(entry)

    def check(self):
        return self.checker.check_run(
            {"c": self.clients, "faults": self.faults}, self.snapshot, self.undisturbed, self.fault_types
        )


def drop_row(run):
    run.change(jobs={job_id: row for job_id, row in run.snapshot.jobs.items() if job_id != "j1"})


def swap_token(run):
    (entry,) = (one for one in run.clients if getattr(one, "pieces", ()) == PIECES[:2])
    run.clients[run.clients.index(entry)] = type(entry)(
        at=entry.at,
        client=entry.client,
        reader="r",
        job_id="j1",
        kind="delta",
        event_id="2",
        run=0,
        offset=2,
        pieces=OTHER[:2],
    )


FAULTY = {
    "a job is in no row": ("lost", drop_row),
    "a job never ended": ("lost", lambda run: run.change_job("j1", state="placed")),
    "a job stands still in Redis": ("lost", lambda run: run.change_job("j2", state="running")),
    "a key has two jobs": (
        "doubled",
        lambda run: run.change(jobs={**run.snapshot.jobs, "j5": run.row("j5", "k1")}),
    ),
    "a key was answered with two jobs": (
        "doubled",
        lambda run: run.say("Accepted", tenant="t", key="k2", job_id="j1", is_new=False),
    ),
    "two answers say new": (
        "doubled",
        lambda run: run.say("Accepted", tenant="t", key="k2", job_id="j2", is_new=True),
    ),
    "two attempts succeeded": ("doubled", lambda run: run.change_job("j1", wins=2)),
    "charged twice": ("doubled", lambda run: run.change_job("j1", output_tokens=6)),
    "a job is dead": ("wrongly dead", lambda run: run.change_job("j2", state="dead")),
    "a letter of a job that lives": ("wrongly dead", lambda run: run.change(letters={"j1": 1})),
    "a letter of no job": ("wrongly dead", lambda run: run.change(letters={"j9": 1})),
    "a refused job ran": (
        "unasked",
        lambda run: run.change(jobs={**run.snapshot.jobs, "j4": run.row("j4", "k4")}),
    ),
    "a job out of nowhere": (
        "unasked",
        lambda run: run.change(jobs={**run.snapshot.jobs, "j9": run.row("j9", "k9")}),
    ),
    "another tenant's job": ("unasked", lambda run: run.change_job("j1", tenant="u")),
    "cancelled without being asked": ("unasked", lambda run: run.change_job("j1", state="cancelled")),
    "expired without a deadline": ("unasked", lambda run: run.change_job("j2", state="expired")),
    "a token twice": (
        "stream",
        lambda run: run.insert_after("rerouted", lambda: run.receive("delta", 2, PIECES[1:2])),
    ),
    "a token missing": ("stream", lambda run: run.remove("delta")),
    "two ends": ("stream", lambda run: run.receive("finished", 3, reason="stop")),
    "no end": ("stream", lambda run: run.remove("finished")),
    "a delta after the end": ("stream", lambda run: run.receive("delta", 4, ((14, "d"),))),
    "a new run without a word": (
        "stream",
        lambda run: run.insert_after("rerouted", lambda: run.receive("delta", 1, PIECES[:1], run=1)),
    ),
    "a restart beyond what was read": (
        "stream",
        lambda run: run.insert_after("rerouted", lambda: run.receive("restarted", 3, run=1)),
    ),
    "a stream of another text": ("text", swap_token),
    "a result of another text": ("text", lambda run: run.change_job("j1", pieces=OTHER)),
    "a result that is cut off": (
        "text",
        lambda run: run.change_job("j1", pieces=PIECES[:2], output_tokens=2),
    ),
    "a result that runs on": (
        "text",
        lambda run: run.change_job("j1", pieces=(*PIECES, (14, "d")), output_tokens=4),
    ),
    "another finish reason": ("text", lambda run: run.change_job("j1", finish_reason="length")),
    "a cancelled job's tokens are others": ("text", lambda run: run.change_job("j2", pieces=OTHER)),
    "a client was told another state": (
        "answer",
        lambda run: run.say("Resulted", job_id="j2", state="succeeded", text="abc", finish_reason="stop"),
    ),
    "a client was told another text": (
        "answer",
        lambda run: run.say("Resulted", job_id="j1", state="succeeded", text="abx", finish_reason="stop"),
    ),
    "a stream finished of a job that is cancelled": (
        "answer",
        lambda run: run.change_job("j1", state="cancelled"),
    ),
    "a stream that was told of another end": (
        "answer",
        lambda run: run.change_job("j2", state="expired", has_deadline=True),
    ),
    "a hold": ("left", lambda run: run.change(holds=("j1",))),
    "a counter": ("left", lambda run: run.change(counters={"quota t": -1})),
    "an outbox row": ("left", lambda run: run.change(outbox=("j1",))),
    "a key in Redis": ("left", lambda run: run.change(redis={"job:j1": "it has no life"})),
    "a fault without an effect": ("effectless", lambda run: run.fault_types.add("redis killed")),
    "a fault that struck nobody": (
        "effectless",
        lambda run: run.faults.__setitem__(
            0,
            run.log.FaultEnded(
                at=1.0, client="faults", number=1, type="worker killed", target="w", effects={"lost": 0}
            ),
        ),
    ),
}


def test_a_run_that_keeps_every_promise_is_not_blamed(run):
    assert run.check() == []


def test_a_job_that_a_client_knows_nothing_of_but_asked_for_may_run_or_not(run):
    run.say("Submitting", tenant="t", key="k5", request={})
    run.say("Unanswered", tenant="t", key="k5", why="reset")
    run.undisturbed["k5"] = run.undisturbed["k1"]
    assert run.check() == []
    run.change(jobs={**run.snapshot.jobs, "j5": run.row("j5", "k5")})
    assert run.check() == []


def test_a_restart_that_goes_back_and_makes_the_rest_again_is_whole(run):
    run.insert_after("rerouted", lambda: run.receive("restarted", 1, run=1))
    place = next(i for i, entry in enumerate(run.clients) if getattr(entry, "kind", "") == "restarted")
    run.clients[place + 1 :] = [
        one for one in run.clients[place + 1 :] if getattr(one, "reader", None) != "r"
    ]
    run.receive("delta", 3, PIECES[1:], run=1)
    run.receive("finished", 3, reason="stop", run=1)
    assert run.check() == []


def test_a_reader_that_left_on_purpose_need_not_be_told_the_end(run):
    run.remove("finished")
    run.say("Disconnected", reader="r", job_id="j1", why="on purpose")
    assert run.check() == []


@pytest.mark.parametrize("name", FAULTY)
def test_each_broken_promise_is_found(run, name):
    promise, break_it = FAULTY[name]
    break_it(run)
    found = run.check()
    assert promise in {violation.promise for violation in found}, found


def test_entries_are_read_as_they_were_written_and_a_line_that_was_cut_off_is_left_out(run, tmp_path):
    file = tmp_path / "c.jsonl"
    with run.log.ChaosLog(file) as log:
        for entry in (*run.clients, *run.faults):
            log.write(entry)
    with file.open("ab") as cut_off:
        cut_off.write(b'{"entry":"Acc')
    assert list(run.log.read_log(file)) == [*run.clients, *run.faults]


def test_a_line_that_is_no_entry_is_not_taken_for_one(run, tmp_path):
    file = tmp_path / "c.jsonl"
    file.write_bytes(b'{"entry":"Nothing"}\n')
    with pytest.raises(ValueError, match="Nothing"):
        list(run.log.read_log(file))


@pytest.mark.parametrize(("lasts_until", "promises"), [(1_000.0, set()), (3.0, {"doubled"})])
def test_a_job_may_run_again_that_ended_in_what_redis_was_set_back_from(run, lasts_until, promises):
    about = {"client": "faults", "number": 2, "type": "Redis rolled back", "target": "redis"}
    run.faults.append(run.log.FaultBegan(at=2.0, **about))
    run.faults.append(run.log.FaultEnded(at=lasts_until, effects={"jobs set back": 1}, **about))
    run.change_job("j1", wins=2, won_at=50.0)
    assert {violation.promise for violation in run.check()} == promises
