"""Processes that know the workers of some models alone, over Redis: clients and orchestrators."""

import pytest

from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from tether.core.control_plane import ControlPlane
from tether.core.direct.backend import DirectBackend
from tether.core.direct.tether import DirectTether
from tether.discovery.followed_models import FollowedModels
from tether.jobs import DEFAULT_TENANT
from tether.orchestrator.orchestrator import Orchestrator


@pytest.fixture
def cluster():
    with Cluster(models={"a": (0, 4), "b": (0, 4)}, presence="interval = 200\nexpiry = 2000") as opened:
        yield opened


def following(cluster, *models):
    presence = cluster.settings.presence.model_copy(update={"models": models})
    return cluster.settings.model_copy(update={"presence": presence})


def served(plane):
    """The models that it knows somebody to serve."""
    return {view.model for view in plane.fleet.pools() if view.workers}


def open_plane(cluster, *models):
    return cluster._stack.enter_context(ControlPlane(following(cluster, *models)))


def test_over_redis_each_knows_the_workers_of_its_models_alone(cluster):
    cluster._stack.enter_context(Orchestrator(open_plane(cluster)))
    of_a, of_both, of_b = (open_plane(cluster, *models) for models in ("a", ("a@1", "b"), "b"))
    only_b = {"TETHER_MODELS": '[{"name": "b", "engine": "null"}]'}
    worker = cluster.start_worker(**only_b)
    eventually(lambda: served(of_both) == served(of_b) == {"b"}, PATIENCE_SECONDS, "those of b are known")
    assert not of_a.fleet.fleet.members
    both = cluster.start_worker()
    eventually(lambda: served(of_a) == {"a"}, PATIENCE_SECONDS, "the worker of a is known")
    eventually(lambda: served(of_both) == {"a", "b"}, PATIENCE_SECONDS, "both are")
    (member,) = of_a.fleet.fleet.members.values()
    assert [model.name for model in member.presence.supported] == ["a"]
    assert len(of_b.fleet.fleet.members) == 2
    both.stop()
    eventually(lambda: not of_a.fleet.fleet.members, PATIENCE_SECONDS, "its goodbye is heard")
    assert served(of_b) == {"b"}
    worker.stop()
    eventually(lambda: not of_b.fleet.fleet.members, PATIENCE_SECONDS, "nobody is left")


def test_a_worker_that_is_not_followed_and_lost_an_attempt_is_distrusted_by_those_that_know_it(cluster):
    everything, of_a = open_plane(cluster), open_plane(cluster, "a")
    cluster._stack.enter_context(Orchestrator(everything))
    cluster.start_worker(TETHER_MODELS='[{"name": "b", "engine": "null"}]')
    eventually(lambda: served(everything) == {"b"}, PATIENCE_SECONDS, "it is known")
    (member,) = everything.fleet.fleet.members.values()
    lost = []
    everything.fleet.on_change(lambda fleet: lost.extend(fleet.unroutable))

    def is_told():
        # A heartbeat may come in between, and then it counts.
        of_a.distrust_loser(member.presence.boot_id)
        return member.presence.worker_id in lost

    eventually(is_told, PATIENCE_SECONDS, "it is told")


def test_orchestrators_of_different_models_place_the_jobs_of_theirs_beside_each_other(cluster):
    client = cluster.client()
    orchestrators = {
        models: cluster._stack.enter_context(Orchestrator(open_plane(cluster, *models)))
        for models in (("a",), ("b",))
    }

    for models, orchestrator in orchestrators.items():
        label = FollowedModels.from_settings(following(cluster, *models)).label
        for loop in ("waiting", "lost-pools", "held-workers"):
            eventually(
                lambda orchestrator=orchestrator, lease=f"{loop}@{label}": orchestrator._keeper.holds(lease),
                PATIENCE_SECONDS,
                f"the one of {models} runs its own {loop}",
            )
    jobs = {name: client.submit(name, "x") for name in "ab"}
    assert {job.status().state for job in jobs.values()} == {"parked"}
    cluster.start_worker()
    for job in jobs.values():
        assert len(job.result(PATIENCE_SECONDS).token_ids) == 4


def test_a_gateway_of_other_models_accepts_a_job_that_another_orchestrator_places(cluster):
    cluster._stack.enter_context(Orchestrator(open_plane(cluster)))
    cluster.start_worker()
    plane = ControlPlane(following(cluster, "a")).open()
    client = cluster._stack.enter_context(DirectTether(DirectBackend(plane, DEFAULT_TENANT)))
    eventually(lambda: served(plane) == {"a"}, PATIENCE_SECONDS, "it knows one of them")
    assert len(client.submit("b", "x").result(PATIENCE_SECONDS).token_ids) == 4
