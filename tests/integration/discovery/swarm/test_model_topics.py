"""Those that follow some models know exactly the workers that serve one of these."""

import pytest

from support.waiting import PATIENCE_SECONDS
from tether.discovery.followed_models import FollowedModels
from tether.discovery.topics import model_topic
from tether.models.registry import ModelVersion


def models(*names):
    return FollowedModels(
        tuple(ModelVersion(name=name, version="1", digest="ab" * 32, context=1) for name in names)
    )


def served(watcher):
    """The models that it knows each worker to serve, by worker id."""
    return {
        worker: sorted(model.name for model in presence.supported)
        for worker, presence in watcher.members.items()
    }


@pytest.fixture
def fleet(network):
    """Two that follow different models, one that follows none, and three workers."""
    watchers = (
        network.watcher("follows-a", models=models("a")),
        network.watcher("follows-b-and-c", models=models("b", "c")),
        network.watcher("follows-all"),
    )
    workers = [network.member(f"serves-{names}", models=list(names)) for names in ("a", "abc", "cd")]
    return watchers, workers


def knows(watcher, expected):
    wanted = {worker.worker: sorted(names) for worker, names in expected.items()}
    found = watcher.view.wait_for(lambda _: served(watcher) == wanted, PATIENCE_SECONDS)
    assert found, f"{watcher.enrolled.name} knows {served(watcher)}, not {wanted}; {watcher.transport.status}"


def test_each_knows_exactly_those_of_its_models_while_all_of_them_talk(network, fleet):
    (of_a, of_b_and_c, of_all), (a, abc, cd) = fleet
    knows(of_all, {a: "a", abc: "abc", cd: "cd"})
    knows(of_a, {a: "a", abc: "a"})
    knows(of_b_and_c, {abc: "bc", cd: "c"})
    # Rounds of heartbeats and digests later they know no more.
    of_a.hears_again(a, abc)
    of_b_and_c.hears_again(abc, cd)
    of_all.hears_again(a, abc, cd)
    knows(of_a, {a: "a", abc: "a"})
    knows(of_b_and_c, {abc: "bc", cd: "c"})
    assert {one.worker_id for one in of_a.accepted} == {a.worker, abc.worker}
    assert {one.topic for one in of_a.accepted} == {model_topic("a", "1", network.region)}
    counts = of_a.transport.status["counts"]
    assert counts["refused"] == {}, "nobody was told what it has no use for"
    assert {topic["topic"] for topic in of_a.transport.status["topics"]} == {
        model_topic("a", "1", network.region)
    }


def test_a_goodbye_and_the_end_of_a_life_are_known_on_a_models_topic_too(fleet):
    (of_a, of_b_and_c, _), (a, abc, cd) = fleet
    knows(of_a, {a: "a", abc: "a"})
    knows(of_b_and_c, {abc: "bc", cd: "c"})
    assert abc.stop() == 0
    knows(of_a, {a: "a"})
    knows(of_b_and_c, {cd: "c"})
    cd.kill()
    knows(of_b_and_c, {})
    knows(of_a, {a: "a"})


def test_who_cannot_reach_a_worker_hears_of_it_from_another_that_follows_the_same(network, tmp_path):
    first = network.watcher("first", models=models("a"))
    # The worker lets in the first alone.
    lets_in = tmp_path / "lets-in"
    lets_in.mkdir()
    (lets_in / "first.pub").write_text(first.enrolled.pub_key)
    worker = network.member("worker", models=["a"], trusted=lets_in)
    knows(first, {worker: "a"})
    late = network.watcher("late", models=models("a"))
    knows(late, {worker: "a"})
    late.hears_again(worker)
    assert worker.enrolled.pub_key not in late.peers
    assert worker.stop() == 0
    knows(late, {})
