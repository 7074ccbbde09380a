"""What a worker says of models that it cannot load."""

import json

import redis

from tether.config.loading import load_settings
from tether.errors import EngineFailed
from tether_workers.load_failures import TRIES_BEFORE_TELLING, LoadFailure
from tether_workers.presence.load_report import LoadReport
from tether_workers.served_models import served_models


def serve(*names):
    models = json.dumps([{"name": name, "engine": "null"} for name in names])
    return served_models(load_settings(environ={"TETHER_MODELS": models}), ["null"])


def test_it_is_told_at_the_beginning_when_it_changes_and_again_while_it_lasts():
    now, failures, told = [0.0], {}, []
    report = LoadReport(
        serve("one", "two"),
        lambda name, _: failures.get(name),
        lambda *said: told.append(said),
        lambda: now[0],
    )
    report.tell()
    report.tell()
    # A former process of the worker may have said something else.
    assert told == [({}, {})]
    failures["two"] = LoadFailure(EngineFailed("no room"), 1, 5.0)
    report.tell()
    report.tell()
    assert told[1:] == [({"two@1": "no room"}, {})]
    now[0] = 6.0
    report.tell()
    assert told[2:] == [({"two@1": "no room"}, {})]
    failures.clear()
    report.tell()
    report.tell()
    assert told[3:] == [({}, {})]


def test_what_failed_again_and_again_is_told_with_whether_a_try_may_begin():
    now, told = [0.0], []
    failures = {
        "one": LoadFailure(EngineFailed("no room"), TRIES_BEFORE_TELLING - 1, 5.0),
        "two": LoadFailure(EngineFailed("broken"), TRIES_BEFORE_TELLING, 3.0),
    }
    report = LoadReport(
        serve("one", "two"), lambda name, _: failures[name], lambda *said: told.append(said), lambda: now[0]
    )
    for now[0] in (0.0, 1.0, 3.0):
        report.tell()
    assert [without_hope for _, without_hope in told] == [{"two@1": False}, {"two@1": True}]


def test_an_outage_is_waited_out():
    told = []

    def write(*said):
        told.append(said)
        if len(told) == 1:
            raise redis.ConnectionError

    failure = LoadFailure(EngineFailed("no room"), 1, 5.0)
    report = LoadReport(serve("one"), lambda *_: failure, write, lambda: 0.0)
    report.tell()
    report.tell()
    report.tell()
    assert told == [({"one@1": "no room"}, {})] * 2
