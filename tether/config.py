"""Tether's settings: from defaults, a TOML file and the environment, each value with its source.

Later wins: defaults, then the file, then the environment. Keys that do not exist, values of the wrong type
and values that cannot go together are reported all at once, each with where it was set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    model_validator,
)
from pydantic.fields import FieldInfo

from tether.errors import ConfigError, mask_url

_DAY_MS = 86_400_000
_TEN_YEARS_MS = 3_650 * _DAY_MS
_RULES = (("heartbeat_timeout", 2, "heartbeat_interval"), ("stall_timeout", 1, "heartbeat_timeout"))


@dataclass(frozen=True)
class Expected:
    """What a value must be, in words."""

    text: str


class _Secret:
    """Marks a value that is never shown as it is."""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _none_word(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "none" else value


def _check_redis_url(url: str) -> str:
    parts = urlsplit(url)
    is_socket = parts.scheme == "unix" and parts.path
    is_address = (
        parts.scheme in ("redis", "rediss")
        and parts.hostname
        and parts.port != 0  # reading it raises ValueError where it is no port
        and re.fullmatch(r"/?|/\d+", parts.path)
    )
    if not (is_socket or is_address) or parts.fragment or re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("not the address of a Redis server")
    return url


Milliseconds = Annotated[
    int, Field(ge=1, le=_DAY_MS), Expected(f"a whole number of milliseconds from 1 to {_DAY_MS}")
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str, str]]:
        for key, info in type(self).model_fields.items():
            value = getattr(self, key)
            yield key, _shown(info, value) if is_secret(info) else value


class RedisSettings(_Section):
    """Which Redis, and what its keys begin with."""

    url: Annotated[
        str,
        AfterValidator(_check_redis_url),
        _Secret(),
        Expected(
            "the address of a Redis server, redis://, rediss:// or unix://, as in redis://127.0.0.1:6379/0"
        ),
    ] = "redis://127.0.0.1:6379/0"
    namespace: Annotated[
        str,
        Field(pattern=r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,63}$"),
        Expected("a name of letters, digits, '.', '_' or '-', at most 64 of them"),
    ] = "tether"
    hash_tag: Annotated[bool, Expected("true or false")] = True


class BrokerSettings(_Section):
    """How fast a dead worker is noticed, and how long dead letters are kept; all in milliseconds."""

    heartbeat_interval: Milliseconds = 500
    heartbeat_timeout: Milliseconds = 3_000
    stall_timeout: Milliseconds = 15_000
    dead_message_ttl: Annotated[
        Annotated[int, Field(ge=1, le=_TEN_YEARS_MS)] | None,
        BeforeValidator(_none_word),
        Expected(f'"none" or a whole number of milliseconds from 1 to {_TEN_YEARS_MS}'),
    ] = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for longer, factor, shorter in broken_timings(dict(self)):
            raise ValueError(f"{longer} must be at least {factor} times {shorter}")
        return self


class LogSettings(_Section):
    """What is logged, and in which form."""

    form: Annotated[Literal["human", "json"], BeforeValidator(_lower), Expected("human or json")] = "human"
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(_lower),
        Expected("debug, info, warning, error or critical"),
    ] = "info"


class WorkerSettings(_Section):
    """How many messages are worked on at once, and how long a stop may take."""

    processes: Annotated[int, Field(ge=1, le=1_024), Expected("a whole number from 1 to 1024")] = 1
    threads: Annotated[int, Field(ge=1, le=4_096), Expected("a whole number from 1 to 4096")] = 8
    shutdown_timeout: Milliseconds = 600_000


class ShownSetting(NamedTuple):
    """One setting, fit to be shown: secrets are masked."""

    key: str
    value: str
    source: str


class Settings(_Section):
    """All settings. Frozen; :func:`load_settings` makes them."""

    redis: RedisSettings = Field(default_factory=RedisSettings)
    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    logs: LogSettings = Field(default_factory=LogSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    def source(self, key: str) -> str:
        """Where the value of ``key`` (as in ``redis.url``) is from.

        It is ``default``, the file's path, ``environment`` with the variable's name, or ``program`` where
        the settings were not loaded but made.

        Raises:
          ConfigError: There is no such key.
        """
        if key not in fields():
            raise ConfigError(f"there is no setting {key!r}{suggestion(key, fields())}")
        section, _, name = key.partition(".")
        if key in self._sources:
            return self._sources[key]
        return "program" if name in getattr(self, section).model_fields_set else "default"

    def describe(self) -> list[ShownSetting]:
        """Every setting with its value, secrets masked, and its source."""
        rows = []
        for key, info in fields().items():
            section, _, name = key.partition(".")
            value = getattr(getattr(self, section), name)
            rows.append(ShownSetting(key, _shown(info, value), self.source(key)))
        return rows


@cache
def fields() -> dict[str, FieldInfo]:
    """Every key, as in ``redis.url``, with its field."""
    sections: dict[str, Any] = {name: info.annotation for name, info in Settings.model_fields.items()}
    return {
        f"{section}.{key}": info
        for section, model in sections.items()
        for key, info in model.model_fields.items()
    }


@cache
def adapter(key: str) -> TypeAdapter[Any]:
    info = fields()[key]
    return TypeAdapter(Annotated[info.annotation, *info.metadata])  # type: ignore[arg-type]  # made at run time


def is_secret(info: FieldInfo) -> bool:
    return any(isinstance(mark, _Secret) for mark in info.metadata)


def _shown(info: FieldInfo, value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return mask_url(str(value)) if is_secret(info) else str(value)


def broken_timings(timings: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Timings that do not go together: the first must be at least so many times the last."""
    for longer, factor, shorter in _RULES:
        if timings[longer] < factor * timings[shorter]:
            yield longer, factor, shorter


def suggestion(name: str, known: Iterable[str]) -> str:
    names = list(known)
    leaf = name.rpartition(".")[2]
    likely = [other for other in names if other.rpartition(".")[2] == leaf]
    likely += difflib.get_close_matches(name[:100], names, n=1, cutoff=0.7)
    return f"; did you mean {likely[0]}?" if likely else ""
