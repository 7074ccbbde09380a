"""Tether's settings: from defaults, a TOML file and the environment, each value with its source.

Later wins: defaults, then the file, then the environment. Keys that do not exist, values of the wrong type
and values that cannot go together are reported all at once, each with where it was set.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, PrivateAttr, TypeAdapter, model_validator
from pydantic.fields import FieldInfo

from tether.config.breaker_settings import BreakerSettings
from tether.config.hook_settings import HookSettings
from tether.config.models import ModelSettings, duplicates
from tether.config.retry_settings import RetrySettings
from tether.config.sections import (
    BrokerSettings,
    DatabaseSettings,
    GatewaySettings,
    JobSettings,
    LogSettings,
    NetworkSettings,
    OrchestratorSettings,
    PresenceSettings,
    RedisSettings,
    SchedulingSettings,
    WorkerSettings,
)
from tether.config.types import Section, shown_setting, suggestion
from tether.errors import ConfigError

__all__ = [
    "MODELS",
    "BreakerSettings",
    "BrokerSettings",
    "DatabaseSettings",
    "GatewaySettings",
    "HookSettings",
    "JobSettings",
    "LogSettings",
    "ModelSettings",
    "NetworkSettings",
    "OrchestratorSettings",
    "PresenceSettings",
    "RedisSettings",
    "RetrySettings",
    "SchedulingSettings",
    "Settings",
    "ShownSetting",
    "WorkerSettings",
    "adapter",
    "fields",
    "sections",
]

MODELS = "models"
"""The key of all models together; one of them is ``models[0]``, and so on."""


class ShownSetting(NamedTuple):
    """One setting, fit to be shown: secrets are masked."""

    key: str
    value: str
    source: str


class Settings(Section):
    """All settings. Frozen; :func:`tether.config.loading.load_settings` makes them."""

    redis: RedisSettings = Field(default_factory=RedisSettings)
    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    logs: LogSettings = Field(default_factory=LogSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    presence: PresenceSettings = Field(default_factory=PresenceSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)
    retries: RetrySettings = Field(default_factory=RetrySettings)
    scheduling: SchedulingSettings = Field(default_factory=SchedulingSettings)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    orchestrator: OrchestratorSettings = Field(default_factory=OrchestratorSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    hooks: HookSettings = Field(default_factory=HookSettings)
    models: tuple[ModelSettings, ...] = ()

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        for place, first in duplicates(self.models):
            raise ValueError(f"models[{place}] has the name and version of models[{first}]")
        return self

    def is_default(self, key: str) -> bool:
        """Whether the user left a setting as it is.

        Raises:
          ConfigError: There is no such key.
        """
        return self.source(key) == "default"

    def source(self, key: str) -> str:
        """Where the value of ``key`` (as in ``redis.url``, ``models`` or ``models[0]``) is from.

        It is ``default``, the file's path, ``environment`` with the variable's name, or ``program`` where
        the settings were not loaded but made.

        Raises:
          ConfigError: There is no such key.
        """
        if self._is_models(key):
            return self._sources.get(MODELS, "program" if self.models else "default")
        if key not in fields():
            raise ConfigError(f"unknown setting {key!r}{suggestion(key, (*fields(), MODELS))}")
        section, _, name = key.partition(".")
        if key in self._sources:
            return self._sources[key]
        return "program" if name in getattr(self, section).model_fields_set else "default"

    def _is_models(self, key: str) -> bool:
        numbered = re.fullmatch(rf"{MODELS}\[(\d{{1,9}})\]", key, re.ASCII)
        return key == MODELS or (numbered is not None and int(numbered.group(1)) < len(self.models))

    def describe(self) -> list[ShownSetting]:
        """Every setting with its value, secrets masked, and its source; each model is one line."""
        rows = []
        for key, info in fields().items():
            section, _, name = key.partition(".")
            value = getattr(getattr(self, section), name)
            rows.append(ShownSetting(key, shown_setting(info, value), self.source(key)))
        for number, model in enumerate(self.models):
            key = f"{MODELS}[{number}]"
            rows.append(ShownSetting(key, model.describe(), self.source(key)))
        return rows


@cache
def sections() -> dict[str, type[Section]]:
    """Every section by its name."""
    return {
        name: info.annotation
        for name, info in Settings.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
    }


@cache
def fields() -> dict[str, FieldInfo]:
    """Every key, as in ``redis.url``, with its field."""
    return {
        f"{section}.{key}": info
        for section, model in sections().items()
        for key, info in model.model_fields.items()
    }


@cache
def adapter(key: str) -> TypeAdapter[Any]:
    """What reads the value of a key, or of one in a model, as in ``models.name``."""
    section, _, name = key.partition(".")
    info = ModelSettings.model_fields[name] if section == MODELS else fields()[key]
    return TypeAdapter(Annotated[info.annotation, *info.metadata])  # type: ignore[arg-type]  # made at run time
