"""What a worker says of models that it cannot load."""

import json

import redis

from tether.config.loading import load_settings
from tether.errors import EngineFailed
from tether_workers.load_failures import LoadFailure
from tether_workers.presence.load_report import LoadReport
from tether_workers.served_models import served_models


def serve(*names):
    models = json.dumps([{"name": name, "engine": "null"} for name in names])
    return served_models(load_settings(environ={"TETHER_MODELS": models}), ["null"])


def test_it_is_told_when_it_changes_and_again_while_it_lasts():
    now, failures, told = [0.0], {}, []
    report = LoadReport(serve("one", "two"), lambda name, _: failures.get(name), told.append, lambda: now[0])
    report.tell()
    assert told == []
    failures["two"] = LoadFailure(EngineFailed("no room"), 1, 5.0)
    report.tell()
    report.tell()
    assert told == [{"two@1": "no room"}]
    now[0] = 6.0
    report.tell()
    assert told == [{"two@1": "no room"}] * 2
    failures.clear()
    report.tell()
    report.tell()
    assert told[2:] == [{}]


def test_an_outage_is_waited_out():
    told = []

    def write(reasons):
        told.append(reasons)
        if len(told) == 1:
            raise redis.ConnectionError

    failure = LoadFailure(EngineFailed("no room"), 1, 5.0)
    report = LoadReport(serve("one"), lambda *_: failure, write, lambda: 0.0)
    report.tell()
    report.tell()
    report.tell()
    assert told == [{"one@1": "no room"}] * 2
