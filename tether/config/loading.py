"""Loads the settings from a TOML file and the environment, and says all that is wrong with them at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tether.config.model_loading import Place, models_from_text, read_models
from tether.config.quoting import bare, shown_wrong
from tether.config.settings import MODELS, Settings, adapter, fields, sections
from tether.config.types import expected, is_comma_separated, suggestion
from tether.errors import ConfigError

DEFAULT_FILE = "tether.toml"
MAX_FILE_BYTES = 1_048_576
"""Bytes that a settings file may have."""

_RESERVED_VARIABLES = ("TETHER_URL", "TETHER_API_KEY", "TETHER_DIR", "TETHER_CONFIG")
_CHILD_VARIABLES = "TETHER_CHILD_"
_SERVICE_LINK = re.compile(
    r"TETHER(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)"
)
"""Variables that Kubernetes and Docker put beside a service named ``tether…``."""

_MODELS_VARIABLE = f"TETHER_{MODELS.upper()}"
_HEADER = re.compile(r"\s*(\[\[?)\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*([\w.-]+)\s*=")


@dataclass(frozen=True)
class _Given:
    """A value as it was set: where, and whether as bare text."""

    key: str
    value: object
    source: str
    place: str
    is_text: bool


@dataclass(frozen=True)
class _GivenModels:
    """The array of models as it was set, and where each key of it stands."""

    items: object
    source: str
    place: Place


def load_settings(*, environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """The settings from the file and the environment.

    The file is ``file``, else the one that ``TETHER_CONFIG`` names, else ``tether.toml`` in the working
    directory where there is one. The variable of ``redis.url`` is ``TETHER_REDIS__URL``, and so on; an
    empty variable counts as not set.

    Raises:
      ConfigError: The file cannot be read, or settings are not valid. The message names all of them.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    failed: set[str] = set()
    for given in (*_from_file(environ, file, problems), *_from_environment(environ, problems)):
        if isinstance(given, _GivenModels):
            values[MODELS] = read_models(given.items, given.place, problems)
            sources[MODELS] = given.source
            continue
        try:
            values[given.key] = _read(given)
            sources[given.key] = given.source
        except ValidationError:
            failed.add(given.key.partition(".")[0])
            info = fields()[given.key]
            wrong = f"{shown_wrong(info, given.value)} is not {expected(info)}"
            if given.is_text and is_comma_separated(info):
                wrong += "; in a variable its items are separated by commas, without brackets or quotes"
            problems.append(f"{given.key} ({given.place}): {wrong}")
    for section in sections():
        if section not in failed:
            problems += _rule_problems(section, values, sources)
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n  ".join([f"the configuration has {count}:", *problems]))
    settings = Settings.model_validate(_nested(values))
    settings._sources.update(sources)
    return settings


def _read(given: _Given) -> Any:
    reader = adapter(given.key)
    if given.is_text and isinstance(given.value, str):
        if is_comma_separated(fields()[given.key]):
            parts = tuple(part.strip() for part in given.value.split(","))
            return reader.validate_python(tuple(part for part in parts if part), strict=True)
        return reader.validate_strings(given.value)
    return reader.validate_python(given.value, strict=True)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if name:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    return nested


def _rule_problems(section: str, values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    model = sections()[section]
    together = {
        name: values.get(f"{section}.{name}", info.get_default(call_default_factory=True))
        for name, info in model.model_fields.items()
    }

    def told(name: str) -> str:
        key = f"{section}.{name}"
        return f"{key} = {together[name]} ({sources.get(key, 'default')})"

    for rule in model.broken_rules(together):
        times = f"{rule.factor} times " if rule.factor > 1 else ""
        yield f"{told(rule.longer)} must be at least {times}{told(rule.shorter)}"


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[_Given | _GivenModels]:
    keys = {f"TETHER_{key.upper().replace('.', '__')}": key for key in fields()}
    for name in sorted(name for name in environ if name.startswith("TETHER_")):
        place = f"environment {name}"
        if name in keys:
            if environ[name]:
                yield _Given(keys[name], environ[name], place, place, is_text=True)
        elif name == _MODELS_VARIABLE:
            try:
                if environ[name]:
                    yield _GivenModels(models_from_text(environ[name]), place, _always(place))
            except ConfigError as error:
                problems.append(f"{MODELS} ({place}): {error}")
        elif name.startswith(_CHILD_VARIABLES):
            # How a supervisor speaks to its children.
            continue
        elif name not in _RESERVED_VARIABLES and not _is_service_link(name, environ[name]):
            known = (*keys, _MODELS_VARIABLE, *_RESERVED_VARIABLES)
            problems.append(f"environment {bare(name)}: unknown variable{suggestion(name, known)}")


def _always(place: str) -> Place:
    return lambda key: place


def _is_service_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name) is None:
        return False
    # A port written by hand, with one underscore too few, is no address.
    return "_SERVICE_" in name or not value.isdigit()


def _from_file(
    environ: Mapping[str, str], file: Path | None, problems: list[str]
) -> Iterator[_Given | _GivenModels]:
    named = environ.get("TETHER_CONFIG")
    path = file or Path(named or DEFAULT_FILE)
    try:
        text = _file_text(path, optional=file is None and not named)
        document = tomllib.loads(text)
    except ConfigError as error:
        problems.append(str(error))
        return
    except (ValueError, RecursionError) as error:
        problems.append(f"the settings file {path} is not valid TOML: {error}")
        return
    lines = _lines_of_keys(text)

    def place(key: str) -> str:
        return f"{path}:{lines[key]}" if key in lines else str(path)

    def nearest_place(key: str) -> str:
        found = next((part for part in (key, key.rpartition(".")[0], MODELS) if part in lines), "")
        return place(found)

    for section, content in document.items():
        if section == MODELS:
            yield _GivenModels(content, str(path), nearest_place)
        elif section in sections() and isinstance(content, dict):
            yield from _from_section(section, content, path, place, problems)
        elif section in sections():
            problems.append(f"{section} ({place(section)}): must be a table, written as [{section}]")
        elif isinstance(content, dict):
            meant = suggestion(section, (*sections(), MODELS))
            problems.append(f"[{bare(section)}] ({place(section)}): unknown section{meant}")
        else:
            meant = suggestion(section, fields())
            problems.append(f"{bare(section)} ({place(section)}): unknown key{meant}")


def _from_section(
    section: str, content: Mapping[str, object], path: Path, place: Place, problems: list[str]
) -> Iterator[_Given]:
    for name, value in content.items():
        key = f"{section}.{name}"
        if key in fields():
            yield _Given(key, value, str(path), place(key), is_text=False)
        else:
            meant = suggestion(key, fields())
            problems.append(f"{bare(key)} ({place(key)}): unknown key{meant}")


def _file_text(path: Path, optional: bool) -> str:
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if optional:
            return ""
        raise ConfigError(f"the settings file {path} does not exist: create it, or use another one") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"the settings file {path} cannot be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"the settings file {path} is larger than {MAX_FILE_BYTES} bytes: is it the right one?"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"the settings file {path} is not UTF-8 text (line {line}): save it as UTF-8"
        ) from None


def _lines_of_keys(text: str) -> dict[str, int]:
    """The lines on which sections and keys are set, as far as a look at each line alone can tell.

    The first table of ``[[models]]`` is ``models[0]``, and so on.
    """
    lines: dict[str, int] = {}
    tables: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            bracket, section = header.groups()
            lines.setdefault(section, number)
            first, dot, rest = section.partition(".")
            if bracket == "[[" and not dot:
                tables[first] = tables.get(first, -1) + 1
            if first in tables:
                section = f"{first}[{tables[first]}]{dot}{rest}"
                lines.setdefault(section, number)
        elif key := _KEY.match(line):
            lines.setdefault(f"{section}.{key.group(1)}" if section else key.group(1), number)
    return lines
