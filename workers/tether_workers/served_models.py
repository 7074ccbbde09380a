"""Which of the configured models a worker serves, and the pools that it draws from for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tether.config.settings import ModelSettings, Settings
from tether.errors import ConfigError
from tether.ids import PoolName
from tether.models.registry import ModelVersion, pool_name

MAX_POOLS = 16
"""Pools of one worker: each costs every draw some microseconds."""


@dataclass(frozen=True)
class ServedModel:
    """One model that a worker serves."""

    settings: ModelSettings
    version: ModelVersion
    pool: PoolName


def served_models(settings: Settings, engines: Collection[str]) -> tuple[ServedModel, ...]:
    """The models for this worker's GPU class and region whose engine it has.

    Args:
      engines: Names of the engines that the worker has.

    Raises:
      ConfigError: There is none, or there are more than :data:`MAX_POOLS`.
    """
    gpu_class, region = settings.worker.gpu_class, settings.worker.region
    served, others = [], []
    for model in settings.models:
        version = ModelVersion.from_settings(model)
        name = f"{model.name}@{model.version}"
        if not version.may_run_on(gpu_class, region):
            others.append(f"{name} is for another GPU class or region")
        elif model.engine not in engines:
            others.append(f"{name} needs the engine {model.engine!r}, which is not installed here")
        else:
            served.append(ServedModel(model, version, pool_name(gpu_class, region, version)))
    if not served:
        why = "; ".join(others[:10]) or "no models are configured; add a [[models]] table"
        raise ConfigError(
            f"there is no model for this worker (worker.gpu_class {gpu_class!r}, worker.region {region!r}): "
            f"{why}"
        )
    if len(served) > MAX_POOLS:
        raise ConfigError(
            f"this worker would serve {len(served)} models, and can serve {MAX_POOLS}: set gpu_class or "
            "region of some [[models]] tables"
        )
    return tuple(served)
