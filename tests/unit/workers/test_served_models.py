"""Which models a worker serves, and what it says where it serves none."""

import pytest

from tether.config.settings import Settings
from tether.errors import ConfigError
from tether_workers.served_models import MAX_POOLS, served_models


def settings(*models, **worker):
    return Settings.model_validate(
        {"worker": worker, "models": [{"engine": "null", **model} for model in models]}
    )


def test_models_for_its_class_and_region_are_served():
    found = served_models(
        settings(
            {"name": "any"},
            {"name": "here", "gpu_class": "a100", "region": "eu"},
            {"name": "elsewhere", "region": "us"},
            {"name": "bigger", "gpu_class": "h100"},
            gpu_class="a100",
            region="eu",
        ),
        ["null"],
    )
    assert [one.version.name for one in found] == ["any", "here"]
    assert all(one.pool.startswith("gpu.a100.eu.") for one in found)


def test_without_models_the_message_says_what_to_add():
    with pytest.raises(ConfigError, match=r"\[\[models\]\]"):
        served_models(settings(), ["null"])


def test_a_model_whose_engine_is_missing_is_named():
    other = {"name": "big", "engine": "transformers", "source": "/srv/big"}
    with pytest.raises(ConfigError, match="big@1 needs the engine 'transformers'"):
        served_models(settings(other), ["null"])


def test_more_pools_than_a_worker_can_draw_from_are_refused():
    models = [{"name": f"model-{number}"} for number in range(MAX_POOLS + 1)]
    with pytest.raises(ConfigError, match="would serve 17 models"):
        served_models(settings(*models), ["null"])
