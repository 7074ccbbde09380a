"""Loads the settings from a TOML file and the environment, and says all that is wrong with them at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tether.config import (
    BrokerSettings,
    Expected,
    Settings,
    adapter,
    broken_timings,
    fields,
    is_secret,
    suggestion,
)
from tether.errors import ConfigError
from tether.telemetry.redaction import scrub

DEFAULT_FILE = "tether.toml"
LARGEST_FILE = 1_048_576
"""Bytes that a settings file may have."""

_RESERVED_VARIABLES = ("TETHER_URL", "TETHER_API_KEY", "TETHER_DIR", "TETHER_CONFIG")
_SERVICE_LINK = re.compile(
    r"TETHER(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)"
)
"""Variables that Kubernetes and Docker put beside a service named ``tether…``."""

_HEADER = re.compile(r"\s*\[\s*([\w-]+)\s*\]")
_KEY = re.compile(r"\s*([\w.-]+)\s*=")


@dataclass(frozen=True)
class _Given:
    """A value as it was set: where, and whether as bare text."""

    key: str
    value: object
    source: str
    place: str
    is_text: bool


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
        try:
            values[given.key] = _read(given)
            sources[given.key] = given.source
        except ValidationError:
            failed.add(given.key.partition(".")[0])
            problems.append(f"{given.key} ({given.place}): {_blame(given)}")
    if "broker" not in failed:
        problems += _timing_problems(values, sources)
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n  ".join([f"the configuration has {count}:", *problems]))
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    settings = Settings.model_validate(sections)
    settings._sources.update(sources)
    return settings


def _read(given: _Given) -> Any:
    reader = adapter(given.key)
    if given.is_text and isinstance(given.value, str):
        return reader.validate_strings(given.value)
    return reader.validate_python(given.value, strict=True)


def _blame(given: _Given) -> str:
    info = fields()[given.key]
    expected = next(mark.text for mark in info.metadata if isinstance(mark, Expected))
    return f"{_shown_wrong(info, given.value)} is not {expected}"


def _shown_wrong(info: FieldInfo, value: object) -> str:
    if is_secret(info):
        return "what stands there (not shown, it may hold a password)"
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    return _quoted(value)


def _quoted(text: object) -> str:
    shown = scrub(repr(text))
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _timing_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    timings = {
        **dict(BrokerSettings()),
        **{key.removeprefix("broker."): value for key, value in values.items()},
    }

    def told(name: str) -> str:
        key = f"broker.{name}"
        return f"{key} = {timings[name]} ({sources.get(key, 'default')})"

    for longer, factor, shorter in broken_timings(timings):
        times = f"{factor} times " if factor > 1 else ""
        yield f"{told(longer)} must be at least {times}{told(shorter)}"


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[_Given]:
    keys = {f"TETHER_{key.upper().replace('.', '__')}": key for key in fields()}
    for name in sorted(name for name in environ if name.startswith("TETHER_")):
        if name in keys:
            place = f"environment {name}"
            if environ[name]:
                yield _Given(keys[name], environ[name], place, place, is_text=True)
        elif name not in _RESERVED_VARIABLES and not _is_service_link(name, environ[name]):
            known = (*keys, *_RESERVED_VARIABLES)
            problems.append(f"environment {_bare(name)}: there is no such variable{suggestion(name, known)}")


def _is_service_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name) is None:
        return False
    # A port written by hand, with one underscore too few, is no address.
    return "_SERVICE_" in name or not value.isdigit()


def _from_file(environ: Mapping[str, str], file: Path | None, problems: list[str]) -> Iterator[_Given]:
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
    sections = Settings.model_fields
    for section, content in document.items():
        place = f"{path}:{lines[section]}" if section in lines else str(path)
        if section not in sections and isinstance(content, dict):
            problems.append(
                f"[{_bare(section)}] ({place}): there is no such section{suggestion(section, sections)}"
            )
        elif section not in sections:
            problems.append(
                f"{_bare(section)} ({place}): there is no such key{suggestion(section, fields())}"
            )
        elif not isinstance(content, dict):
            problems.append(f"{section} ({place}): must be a table, written as [{section}]")
        else:
            for name, value in content.items():
                key = f"{section}.{name}"
                place = f"{path}:{lines[key]}" if key in lines else str(path)
                if key in fields():
                    yield _Given(key, value, str(path), place, is_text=False)
                else:
                    problems.append(
                        f"{_bare(key)} ({place}): there is no such key{suggestion(key, fields())}"
                    )


def _file_text(path: Path, optional: bool) -> str:
    try:
        with path.open("rb") as opened:
            data = opened.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        if optional:
            return ""
        raise ConfigError(f"there is no settings file {path}: make it, or name another one") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"the settings file {path} cannot be read: {reason}") from None
    if len(data) > LARGEST_FILE:
        raise ConfigError(
            f"the settings file {path} is larger than {LARGEST_FILE} bytes: is it the right one?"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"the settings file {path} is not UTF-8 text (line {line}): save it as UTF-8"
        ) from None


def _lines_of_keys(text: str) -> dict[str, int]:
    """The lines on which sections and keys are set, as far as a look at each line alone can tell."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = header.group(1)
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            lines.setdefault(f"{section}.{key.group(1)}" if section else key.group(1), number)
    return lines


def _bare(name: str) -> str:
    """A name as it is, or quoted and cut short where it is not an ordinary one."""
    return name if re.fullmatch(r"[\w.-]{1,80}", name, re.ASCII) else _quoted(name)
