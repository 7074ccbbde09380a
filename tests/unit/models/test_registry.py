from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.config.settings import ModelSettings, Settings
from tether.errors import InvalidName, UnknownModel
from tether.models.registry import MAX_POOL_NAME_BYTES, ModelVersion, Registry, pool_name

TINY = ModelSettings(name="Org/Tiny_Model", source="/srv/tiny")
REGISTRY = Registry.from_settings(
    Settings(
        models=(TINY, TINY.model_copy(update={"version": "2"}), ModelSettings(name="count", engine="null"))
    )
)


def test_a_model_is_found_by_its_name_and_by_name_and_version():
    assert REGISTRY.find("Org/Tiny_Model").version == "1"
    assert REGISTRY.find("Org/Tiny_Model@2").version == "2"


@pytest.mark.parametrize("name", ["Org/Tiny_Modle", "Org/Tiny_Model@3"])
def test_an_unknown_model_is_refused_with_the_nearest_name(name):
    with pytest.raises(UnknownModel, match="did you mean 'Org/Tiny_Model'") as caught:
        REGISTRY.find(name)
    assert (caught.value.http_status, caught.value.exit_status) == (404, 2)


def test_where_no_models_are_configured_the_refusal_says_so():
    with pytest.raises(UnknownModel, match="no models are configured"):
        Registry([]).find("x")


@pytest.mark.parametrize(
    "change",
    [{"name": "x"}, {"version": "2"}, {"source": "/other"}, {"quantize": "int8"}, {"context": 1}],
)
def test_whatever_makes_a_model_another_changes_its_digest(change):
    other = ModelVersion.from_settings(TINY.model_copy(update=change))
    assert other.digest != ModelVersion.from_settings(TINY).digest


def test_what_does_not_make_a_model_another_leaves_its_digest():
    other = TINY.model_copy(update={"pinned": True, "adapters": ("a",), "region": "eu"})
    assert ModelVersion.from_settings(other).digest == ModelVersion.from_settings(TINY).digest


def test_the_name_of_a_pool_says_class_region_model_and_digest():
    model = replace(REGISTRY.find("Org/Tiny_Model"), digest="0123456789" * 6 + "0123")
    assert pool_name("h100", "eu-west", model) == "gpu.h100.eu-west.org-tiny-model-01234567"


places = st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)


@given(st.text(max_size=300), places, places)
def test_the_name_of_a_pool_is_short_and_plain_whatever_the_model_is_called(name, gpu_class, region):
    model = ModelVersion(name=name, version="1", digest="ab" * 32, context=1)
    made = pool_name(gpu_class, region, model)
    assert len(made.encode()) <= MAX_POOL_NAME_BYTES
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


@pytest.mark.parametrize("wrong", ["", "A100", "a.b", "x" * 33, "cpu\n", None])
def test_a_class_or_region_that_no_pool_can_have_is_refused(wrong):
    for arguments in ((wrong, "local"), ("cpu", wrong)):
        with pytest.raises(InvalidName):
            pool_name(*arguments, REGISTRY.find("count"))
