"""Which models a process follows, and what announcements say of these."""

from dataclasses import replace

import pytest

from support.presences import DIGEST, presence
from tether.config.settings import Settings
from tether.discovery.announcements.presence import ModelState, Supported
from tether.discovery.followed_models import MAX_FOLLOWED_TOPICS, FollowedModels
from tether.discovery.topics import model_topic, presence_topic
from tether.errors import ConfigError
from tether.models.registry import Registry, pool_name

TABLES = [
    {"name": name, "version": version, "engine": "null"}
    for name, version in (("a", "1"), ("a", "2"), ("b", "1"), ("org/c", "1"))
]


def settings(*models, regions=("local",)):
    return Settings.model_validate({"presence": {"models": models, "regions": regions}, "models": TABLES})


def followed(*models, **options):
    return FollowedModels.from_settings(settings(*models, **options))


def test_without_a_word_all_models_count():
    assert followed() is None


def test_a_name_is_all_its_versions_and_one_may_be_named():
    assert followed("a").keys == {("a", "1"), ("a", "2")}
    assert followed("a@2", "org/c", "a@2").keys == {("a", "2"), ("org/c", "1")}
    assert followed("b").topics(("eu", "us")) == {model_topic("b", "1", "eu"), model_topic("b", "1", "us")}


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("org/d", r"; did you mean org/c\?"), ("org/c@2", r"; did you mean org/c@1\?"), ("x", "")],
)
def test_a_model_that_is_not_configured_is_refused(wrong, meant):
    with pytest.raises(ConfigError, match=f"presence.models: '{wrong}' is not configured{meant}: add"):
        followed("b", wrong)


def test_more_topics_than_peers_can_be_told_of_are_refused():
    regions = [f"r{number}" for number in range(MAX_FOLLOWED_TOPICS // 2 + 1)]
    with pytest.raises(ConfigError, match="topics, and"):
        followed("a", regions=regions)
    assert len(followed("b", regions=regions).topics(regions)) == len(regions)


def test_each_set_of_models_has_a_label_of_its_own():
    assert followed("a").label == followed("a@2", "a@1").label
    assert len({followed(*names).label for names in (["a"], ["a@1"], ["b"], ["a", "b"])}) == 4


VERSIONS = {(each.name, each.version): each for each in Registry.from_settings(settings()).models}


WHOLE = presence_topic("local")


def announced(*keys, topic=WHOLE, **changes):
    models = [VERSIONS[key] for key in keys]
    return presence(
        topic=topic,
        supported=tuple(Supported(each.name, each.version, each.digest, ModelState.WARM) for each in models),
        pools=tuple(pool_name("cpu", "local", each) for each in models),
        **changes,
    )


def test_of_an_announcement_what_it_says_of_these_models_counts():
    whole = announced(("a", "1"), ("b", "1"), ("org/c", "1"))
    assert followed("a", "b").part_of(whole) == announced(("a", "1"), ("b", "1"))
    assert followed("b", "a", "org/c").part_of(whole) is whole
    assert followed("a@2").part_of(whole) is None


def test_on_a_models_topic_only_what_is_said_of_that_model_counts():
    topic = model_topic("a", "1", "local")
    told = announced(("a", "1"), ("b", "1"), topic=topic)
    assert followed("a", "b").part_of(told) == announced(("a", "1"), topic=topic)
    assert followed("b").part_of(told) is None
    assert followed("a").part_of(replace(told, topic=model_topic("a", "1", "elsewhere"))) is None


def test_its_pools_are_those_of_these_models_wherever_they_are():
    models = followed("a@1", "b")
    for key, is_watched in ((("a", "1"), True), (("a", "2"), False), (("org/c", "1"), False)):
        for region in ("eu", "us"):
            assert models.watches(pool_name("h100", region, VERSIONS[key])) is is_watched
    assert not models.watches(pool_name("cpu", "eu", replace(VERSIONS["b", "1"], digest=DIGEST)))
