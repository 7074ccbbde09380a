"""A view of the fleet that looks whether its members draw from the pools that they announce."""

import logging
import time

import redis

from support.presences import MODEL, envelope, presence
from support.waiting import eventually
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.fleet.liveness import Appearance, Draws, Evidence
from tether.discovery.static import StaticPresence
from tether.models.registry import pool_name

SECONDS = 60
WORKER, POOL = presence().worker_id, pool_name("cpu", "local", MODEL)
NOW = 1_000_000


class Seen:
    """What is seen, as a test says."""

    def __init__(self):
        self.error, self.failures = None, 0
        self.asked = {}

    def __call__(self):
        if self.error is not None:
            self.failures += 1
            raise self.error
        return Evidence(now=NOW, asked=self.asked, known={WORKER: Appearance(0, 0, 0)})


def opened(seen):
    source = StaticPresence()
    changes = {"issued_at": time.time_ns() // 1_000_000}
    source.announce(envelope(**changes), presence(**changes))
    view = FleetView(source, lambda key: True, evidence=seen)
    view.start()
    assert view.wait_until_read(SECONDS)
    return view


def draws(view):
    return [(pool.workers, pool.silent) for pool in view.pools()]


def test_who_is_not_seen_to_draw_does_not_serve_and_serves_again_by_drawing(caplog):
    caplog.set_level(logging.WARNING)
    seen = Seen()
    view = opened(seen)
    try:
        eventually(lambda: draws(view) == [(0, 1)], SECONDS, "it is silent")
        assert not view.fleet.served
        seen.asked = {Draws(WORKER, POOL): NOW}
        assert view.wait_for(lambda fleet: fleet.served.get(POOL) == 1, SECONDS)
        assert draws(view) == [(1, 0)]
    finally:
        view.stop()
    assert caplog.text.count("draws no jobs") == 1


def test_while_nothing_can_be_seen_the_last_judgement_stays():
    seen = Seen()
    view = opened(seen)
    try:
        eventually(lambda: draws(view) == [(0, 1)], SECONDS, "it is silent")
        seen.error = redis.ConnectionError()
        seen.asked = {Draws(WORKER, POOL): NOW}
        eventually(lambda: seen.failures >= 2, SECONDS, "it was asked, and told nothing")
        assert draws(view) == [(0, 1)]
        seen.error = None
        assert view.wait_for(lambda fleet: fleet.served.get(POOL) == 1, SECONDS)
    finally:
        view.stop()


def test_without_evidence_all_are_believed():
    view = opened(None)
    try:
        assert draws(view) == [(1, 0)]
        view.judge()
        assert draws(view) == [(1, 0)]
    finally:
        view.stop()
