"""What a process knows of the fleet before it places its first job."""

import json

from support.cluster import Cluster
from tether.core.control_plane import ControlPlane
from tether.discovery.fleet.fleet_view import EVIDENCE_SECONDS, FleetView

RECORD = {"jobs": ["a"], "tenants": ["one"], "count": 5, "code": "engine_failed", "others": True}
RECORD |= {"since": 1, "at": 2**50, "pause": 1_000, "until_ms": 2, "probe": ""}


def test_who_is_held_back_is_known_before_the_first_job_where_that_can_be_read(monkeypatch):
    # Later looks come when they come.
    monkeypatch.setattr(FleetView, "_look_for_evidence", lambda view: EVIDENCE_SECONDS)
    with Cluster() as cluster:
        cluster.redis.hset(cluster.keys.worker_health("w"), "pool", json.dumps(RECORD))
        cluster.redis.zadd(cluster.keys.held_workers, {"w": 1})
        with ControlPlane(cluster.settings) as plane:
            assert plane.fleet.fleet.held["w"]["pool"].keeps_from("one")
        cluster.redis.set(cluster.keys.seen, "no notes")
        with ControlPlane(cluster.settings) as plane:
            assert plane.fleet.evidence is None
